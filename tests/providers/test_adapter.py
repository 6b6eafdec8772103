"""How far a request got: what the adapter calls surely not sent, and what it calls unclear."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.providers import stub
from tests.providers.stub import Stub
from worker import clock
from worker.providers.adapter import BODY_CAP, NotSent, Timeouts, Unclear, parse
from worker.providers.base import LATER, STOP_CHANNEL, UNCLEAR, SendError
from worker.providers.egress import Egress, Resolver
from worker.providers.http import HttpClient

QUICK = Timeouts(connect=1.0, read=0.3, total=0.8, start=5.0, idle=5.0)


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(allow_loopback=True, timeouts=QUICK)
    yield client
    client.close()


def failure(client: HttpClient, url: str, body: bytes = b"{}") -> SendError:
    with pytest.raises(SendError) as caught:
        client.request("POST", url, {}, body)
    return caught.value


def test_a_request_arrives_whole_and_the_answer_comes_back(client: HttpClient) -> None:
    with Stub(stub.answer(201, {"id": "1"}, X_Trace="abc")) as server:
        answer = client.request("POST", server.url + "/send?a=1", {"X-Key": "secret"}, b'{"a": 1}')
    request = server.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/send?a=1", b'{"a": 1}')
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["x-key"] == "secret"
    assert request.headers["accept-encoding"] == "identity"
    assert (answer.status, answer.body, answer.headers["x-trace"]) == (201, b'{"id": "1"}', "abc")


def test_one_connection_serves_many_requests(client: HttpClient) -> None:
    with Stub() as server:
        for _ in range(5):
            client.request("POST", server.url, {}, b"x")
        assert server.connections == 1


def test_it_works_inside_a_requests_session(client: HttpClient) -> None:
    with Stub(stub.answer(200, {"ok": True}, Set_Cookie="a=b")) as server, client.session() as session:
        response = session.post(server.url, json={"a": 1}, allow_redirects=False)
        assert response.json() == {"ok": True}
        assert response.ok
        assert list(response.cookies) == []
        assert not list(session.cookies)
    assert server.requests[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        b"HTTP/1.1 200\r\ncontent-length:11\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\nContent-Length: 11\n\nhello world",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\r\nX-Long: a\r\n  b\r\nContent-Length: 11\r\n\r\nhello world",
    ],
)
def test_every_way_to_frame_a_body_is_read(client: HttpClient, data: bytes) -> None:
    with Stub(stub.raw(data)) as server:
        for _ in range(2):
            assert client.request("GET", server.url).body == b"hello world"
        assert server.connections == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_body_may_end_with_the_stream(client: HttpClient, version: str) -> None:
    with Stub(stub.then_close(b"HTTP/%s 200 OK\r\n\r\nhello" % version.encode())) as server:
        assert client.request("GET", server.url).body == b"hello"
        assert client.request("GET", server.url).body == b"hello"
        assert server.connections == 2


def test_an_answer_without_a_body_ends_at_its_head(client: HttpClient) -> None:
    with Stub(stub.raw(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        assert client.request("POST", server.url, {}, b"").body == b""
        assert client.request("POST", server.url, {}, b"").status == 204
        assert server.connections == 1
        assert server.requests[0].headers["content-length"] == "0"


def test_connection_close_is_obeyed(client: HttpClient) -> None:
    with Stub(stub.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")) as server:
        client.request("GET", server.url)
        client.request("GET", server.url)
        assert server.connections == 2


def test_bytes_after_the_answer_are_never_taken_for_the_next_one(client: HttpClient) -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    with Stub(stub.raw(smuggled)) as server:
        assert client.request("GET", server.url).body == b"ok"
        assert client.request("GET", server.url).body == b"ok"
        assert server.connections == 2


# --- surely not sent --------------------------------------------------------------------------------


def test_a_refused_connection_is_surely_not_sent(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failure(client, f"http://127.0.0.1:{port}/")
    assert (error.outcome, error.cause, error.counts, error.breaker) == (LATER, "connect_failed", False, True)


def test_a_name_without_an_address_is_surely_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int) -> list[tuple[int, str]]:
        raise socket.gaierror(-2, "Name or service not known")

    client = HttpClient()
    client.adapter._resolver = Resolver(Egress(), lookup)
    error = failure(client, "https://gateway.example/send")
    assert (error.outcome, error.cause, error.counts) == (LATER, "dns", False)


def test_a_silent_name_server_is_not_waited_for_without_end() -> None:
    never = threading.Event()

    def lookup(host: str, port: int) -> list[tuple[int, str]]:
        never.wait()
        return []

    client = HttpClient(timeouts=QUICK._replace(connect=0.05))
    client.adapter._resolver = Resolver(Egress(), lookup)
    try:
        assert failure(client, "https://gateway.example/send").cause == "dns"
    finally:
        never.set()


def test_a_connection_that_the_peer_closed_is_replaced_before_writing(client: HttpClient) -> None:
    with Stub() as server:
        client.request("POST", server.url, {}, b"1")
        server.hang_up()
        client.request("POST", server.url, {}, b"2")
        assert [request.body for request in server.requests] == [b"1", b"2"]
        assert [request.connection for request in server.requests] == [1, 2]


def test_a_connection_that_idled_too_long_is_not_used_again(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stub() as server:
        client.request("GET", server.url)
        later = clock.monotonic() + QUICK.idle
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        client.request("GET", server.url)
        assert server.connections == 2


def test_a_write_of_which_nothing_left_is_repeated_on_a_new_connection(client: HttpClient) -> None:
    with Stub() as server:
        client.request("GET", server.url)
        (idle,) = (kept[0] for kept in client.adapter._idle.values())

        class Broken:
            """Looks alive, and refuses the first byte."""

            def fileno(self) -> int:
                return real.fileno()

            def settimeout(self, _: float) -> None: ...

            def send(self, _: bytes) -> int:
                raise BrokenPipeError(32, "Broken pipe")

            def close(self) -> None:
                real.close()

        real, idle.sock = idle.sock, Broken()  # type: ignore[assignment]
        client.request("POST", server.url, {}, b"again")
        assert [request.body for request in server.requests] == [b"", b"again"]


def test_a_request_that_would_begin_too_late_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    client = HttpClient(allow_loopback=True)
    ticks = iter([0.0, *[60.0] * 50])
    with Stub() as server:
        monkeypatch.setattr(clock, "monotonic", lambda: next(ticks))
        error = failure(client, server.url)
        monkeypatch.undo()
        assert (error.outcome, error.cause) == (LATER, "connect_failed")
        assert server.requests == []
    client.close()


# --- unclear ----------------------------------------------------------------------------------------

ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500


@pytest.mark.parametrize(
    ("behave", "cause"),
    [
        (stub.silent, "timeout"),
        (stub.reset, "connection_lost"),
        (stub.then_close(), "connection_lost"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), "connection_lost"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), "connection_lost"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "answer_unreadable"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), "answer_unreadable"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "answer_unreadable"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), "answer_unreadable"),
        (stub.then_close(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "answer_unreadable"),
        (stub.then_close(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "answer_unreadable"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "answer_unreadable"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\nxx"), "answer_too_large"),
        (stub.then_close(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (BODY_CAP + 1)), "answer_too_large"),
        (
            stub.then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n"),
            "answer_too_large",
        ),
    ],
)
def test_after_the_first_byte_every_failure_is_unclear(client: HttpClient, behave: stub.Behaviour, cause: str) -> None:
    with Stub(behave) as server:
        error = failure(client, server.url)
        assert (error.outcome, error.cause) == (UNCLEAR, cause)
        assert len(server.requests) == 1, "an unclear request was repeated"


def test_a_reset_on_a_reused_connection_is_unclear_and_not_repeated(client: HttpClient) -> None:
    with Stub(script=[stub.answer(), stub.reset]) as server:
        client.request("POST", server.url, {}, b"1")
        error = failure(client, server.url, b"2")
        assert (error.outcome, error.cause) == (UNCLEAR, "connection_lost")
        assert [request.body for request in server.requests] == [b"1", b"2"]


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_dripping_answer_is_cut_off_at_the_deadline(client: HttpClient, part: str) -> None:
    data = b"HTTP/1.1 200 OK\r\nX: " if part == "head" else b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    pause = threading.Event()
    with Stub(stub.drip(data + b"x" * 5000, pause)) as server:
        began = clock.monotonic()
        error = failure(client, server.url)
        pause.set()
    assert (error.outcome, error.cause) == (UNCLEAR, "timeout")
    assert clock.monotonic() - began < QUICK.total + 1


def test_a_large_request_leaves_whole(client: HttpClient) -> None:
    body = b"x" * 3_000_000
    with Stub() as server:
        assert client.request("POST", server.url, {}, body).status == 200
        assert server.requests[0].body == body


# --- what is never done -----------------------------------------------------------------------------


def test_a_redirect_is_an_answer(client: HttpClient) -> None:
    with Stub() as elsewhere, Stub(stub.answer(302, Location=elsewhere.url)) as server:
        assert client.request("POST", server.url, {"Authorization": "Bearer k"}, b"x").status == 302
        assert elsewhere.requests == []


def test_the_environment_names_no_proxy(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub() as proxy, Stub() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        client.request("GET", server.url)
        with client.session() as session:
            session.get(server.url)
        assert (len(proxy.requests), len(server.requests)) == (0, 2)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://gateway.example/",
        "http://user:password@gateway.example/",
        "http://gateway.example/\r\nX-Evil: 1",
        "http://gateway.example/a b",
        "http:///nowhere",
        "http://gateway.example:99999/",
        "http://[::1",
        "gateway.example/send",
    ],
)
def test_an_address_that_cannot_be_used_stops_the_channel(client: HttpClient, url: str) -> None:
    error = failure(client, url)
    assert (error.outcome, error.cause) == (STOP_CHANNEL, "settings_invalid")


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "ключ", "\x00"])
def test_a_header_that_cannot_be_sent_stops_the_channel(client: HttpClient, value: str) -> None:
    with Stub() as server, pytest.raises(SendError) as caught:
        client.request("GET", server.url, {"Authorization": value})
    assert (caught.value.outcome, caught.value.cause) == (STOP_CHANNEL, "settings_invalid")
    assert server.requests == []


def test_an_address_is_split_as_it_is_spelt() -> None:
    assert parse("https://Gateway.Example/a?b=c#d") == ((True, "gateway.example", 443), "/a?b=c")
    assert parse("http://пример.рф:8080") == ((False, "xn--e1afmkfd.xn--p1ai", 8080), "/")
    assert parse("http://h/путь")[1] == "/%D0%BF%D1%83%D1%82%D1%8C"


def test_connections_close_with_the_client() -> None:
    client = HttpClient(allow_loopback=True, timeouts=QUICK)
    with Stub() as server:
        client.request("GET", server.url)
        client.close()
        assert not any(client.adapter._idle.values())


def test_many_threads_share_connections(client: HttpClient) -> None:
    with Stub(stub.answer(200, b"ok")) as server:
        seen: list[bytes] = []

        def work() -> None:
            seen.extend(client.request("GET", server.url).body for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [b"ok"] * 160
        assert server.connections <= 8


# --- TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A certificate for 127.0.0.1 that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = Path(tmp_path_factory.mktemp("tls")) / "server.pem"
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(encoding)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return SimpleNamespace(path=path, context=context)


def pointed(client: HttpClient) -> HttpClient:
    """The same client, for which every name is this machine."""
    client.adapter._resolver = Resolver(Egress(loopback=True), lambda host, port: [(socket.AF_INET, "127.0.0.1")])
    return client


def test_an_unknown_issuer_is_surely_not_sent(client: HttpClient, certificate: SimpleNamespace) -> None:
    with Stub(tls=certificate.context) as server:
        error = failure(pointed(client), f"https://gateway.example:{server.port}/")
    assert (error.outcome, error.cause, error.counts) == (LATER, "tls", False)
    assert "self-signed" in error.detail
    assert server.requests == []


def test_a_server_that_speaks_no_tls_is_surely_not_sent(client: HttpClient) -> None:
    with Stub(stub.then_close(b"what?")) as server:
        error = failure(client, server.url.replace("http:", "https:"))
    assert (error.outcome, error.cause) == (LATER, "tls")


def test_a_trusted_issuer_is_spoken_to_and_the_name_must_match(
    client: HttpClient, certificate: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    with Stub(stub.answer(200, b"safe"), tls=certificate.context) as server:
        pointed(client)
        for _ in range(3):
            assert client.request("POST", f"https://gateway.example:{server.port}/", {}, b"x").body == b"safe"
        assert server.connections == 1
        error = failure(client, f"https://other.example:{server.port}/")
        assert (error.outcome, error.cause) == (LATER, "tls")


def test_a_lost_answer_over_tls_is_unclear(
    client: HttpClient, certificate: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    with Stub(stub.reset, tls=certificate.context) as server:
        error = failure(pointed(client), f"https://gateway.example:{server.port}/")
    assert (error.outcome, error.cause) == (UNCLEAR, "connection_lost")


def test_the_adapter_speaks_in_exceptions_that_requests_users_know(client: HttpClient) -> None:
    assert issubclass(NotSent, requests.exceptions.ConnectionError)
    assert issubclass(Unclear, requests.exceptions.ConnectionError)
    closed = Stub(stub.then_close())
    with closed as server, client.session() as session, pytest.raises(requests.exceptions.RequestException):
        session.get(server.url)
