"""The server's event loop: resting connections cost nothing and lose nothing."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waitress.server import create_server

from webapp import loop


@pytest.fixture
def server() -> Iterator[Any]:
    def answer(environ: dict[str, Any], start: Any) -> list[bytes]:
        body: bytes = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/slow":
            time.sleep(0.3)
        data = b"x" * 3_000_000 if environ["PATH_INFO"] == "/large" else body or b"ok"
        start("200 OK", [("Content-Length", str(len(data)))])
        return [data]

    made = create_server(
        answer, map=loop.Lines(), host="127.0.0.1", port=0, threads=4, channel_timeout=1, cleanup_interval=1
    )
    made.asyncore = loop
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield made
    made.close()
    made.trigger.close()
    made.pull_trigger = lambda: None
    for channel in list(made.active_channels.values()):
        channel.close()
    thread.join(10)
    assert not thread.is_alive()


def connect(server: Any) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.effective_port, timeout=10)


def get(line: http.client.HTTPConnection, path: str = "/", body: bytes | None = None) -> bytes:
    line.request("POST" if body else "GET", path, body)
    return line.getresponse().read()


def test_many_resting_connections_are_answered_whenever_they_ask(server: Any) -> None:
    lines = [connect(server) for _ in range(60)]
    for _ in range(3):
        assert [get(line) for line in lines] == [b"ok"] * 60
    for line in lines:
        line.close()


def test_large_bodies_go_both_ways(server: Any) -> None:
    line = connect(server)
    assert get(line, "/", b"y" * 2_000_000) == b"y" * 2_000_000
    assert len(get(line, "/large")) == 3_000_000
    assert get(line) == b"ok"
    line.close()


def test_someone_who_leaves_in_the_middle_disturbs_nobody(server: Any) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.effective_port)) as line:
            line.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    other = connect(server)
    assert get(other) == b"ok"
    other.close()


def test_two_requests_at_once_on_one_line_are_both_answered(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.effective_port)) as line:
        line.settimeout(10)
        line.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        got = b""
        while got.count(b"\r\n\r\nok") < 2:
            got += line.recv(4096)


def test_a_line_that_rests_too_long_is_closed(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.effective_port)) as line:
        line.settimeout(10)
        assert line.recv(1) == b""


class Answered:
    """A line whose request is answered by its thread while the loop looks at it."""

    accepting = False

    def __init__(self) -> None:
        self.requests = ["under way"]

    def readable(self) -> bool:
        if self.requests:
            self.requests = []
            return False
        return True

    def writable(self) -> bool:
        return False


def test_an_answer_while_the_loop_looks_does_not_leave_the_line_unheard() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(select.epoll()) as poller:
        fd = ours.fileno()
        line, restless = Answered(), {fd}
        loop.look(poller, {fd: line}, restless)
        loop.look(poller, {fd: line}, restless)  # the thread wakes the loop once when it is done
        assert not restless
        theirs.sendall(b"GET /")
        assert poller.poll(5) == [(fd, select.EPOLLIN)]


def test_the_number_of_a_closed_line_may_be_that_of_a_file_by_now(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, contextlib.closing(select.epoll()) as poller:
        restless = {file.fileno()}
        loop.look(poller, {}, restless)
        assert not restless
