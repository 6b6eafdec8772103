"""The line to an SMSC that behaves badly: what is known of a message is said exactly, and nobody waits for ever."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.providers.tiny_smsc import (
    BIND,
    DELIVER,
    ENQUIRE,
    UNBIND,
    Pdu,
    TinySmsc,
    deliver,
    no,
    ok,
    pack,
    short_message,
)
from tests.tls import certificate
from worker import clock
from worker.delivery import KEPT_HEADERS
from worker.providers import smpp_line, smpp_wire
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    UNCLEAR,
    Accepted,
    Outgoing,
    RawCallback,
    SendError,
    StatusUpdate,
    left_at,
)
from worker.providers.smpp import Smpp

LONG = "Здравствуйте! " * 12  # 168 units: three parts
Make = Callable[..., Smpp]


@pytest.fixture
def make() -> Iterator[Make]:
    """make(smsc, window=…, timing={"answer": 0.3}) is a Provider with short limits; closed in the end."""
    made: list[Smpp] = []

    def one(smsc: TinySmsc | int, timing: dict[str, Any] | None = None, **settings: Any) -> Smpp:
        port = smsc if isinstance(smsc, int) else smsc.port
        given = {
            "host": "127.0.0.1",
            "port": port,
            "system_id": "molva",
            "password": "long password",
            "sender": "Molva",
        }
        provider = Smpp({**given, "allowed_private_hosts": ("127.0.0.1",), **settings})
        short = {"backoff": (0.02, 0.05), "goodbye": 0.4, "slow": (0.05, 0.2), **(timing or {})}
        provider.timing = provider.timing._replace(**short)
        made.append(provider)
        return provider

    yield one
    for provider in made:
        provider.close()


def send(provider: Smpp, text: str = "hello", phone: str = "+79161234567") -> Accepted:
    return provider.send(Outgoing(phone, "token", text))


def failure(provider: Smpp, text: str = "hello") -> SendError:
    with pytest.raises(SendError) as caught:
        send(provider, text)
    return caught.value


def several(provider: Smpp, texts: list[str]) -> list[Future[Accepted]]:
    with ThreadPoolExecutor(len(texts)) as pool:
        return [pool.submit(send, provider, text, f"+7916{n:07d}") for n, text in enumerate(texts)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


# --- bytes ------------------------------------------------------------------------------------------


def test_a_pdu_is_read_however_its_bytes_arrive(make: Make) -> None:
    def byte_by_byte(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> None:
        for octet in ok(pdu, "7f"):
            sock.sendall(bytes([octet]))

    with TinySmsc(byte_by_byte) as smsc:
        provider = make(smsc)
        assert [send(provider).provider_id for _ in range(3)] == ["7f"] * 3


@pytest.mark.parametrize("length", [0, 15, 64 * 1024 + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_the_connection(make: Make, length: int) -> None:
    garbage = length.to_bytes(4, "big") + b"\x00" * 12
    turns = iter([lambda pdu: garbage, lambda pdu: ok(pdu)])
    with TinySmsc(lambda smsc, sock, pdu: next(turns)(pdu)) as smsc:
        provider = make(smsc)
        error = failure(provider)
        assert (error.outcome, error.cause) == (UNCLEAR, "connection_lost")
        assert send(provider).provider_id
        assert len(smsc.of(BIND)) == 2


def test_an_answer_before_garbage_still_counts(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: ok(pdu, "good") + b"\xff" * 20) as smsc:
        assert send(make(smsc)).provider_id == "good"


def test_answers_that_come_together_are_all_read(make: Make) -> None:
    held: list[Pdu] = []

    def in_threes(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
        held.append(pdu)
        return b"".join(ok(one) for one in reversed(held)) if len(held) == 3 else None

    with TinySmsc(in_threes) as smsc:
        assert len({future.result().provider_id for future in several(make(smsc), ["a"] * 3)}) == 3


def test_an_id_without_its_end_is_read_whole(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: pack(0x80000004, 0, pdu.sequence, b"abc123")) as smsc:
        assert send(make(smsc)).provider_id == "abc123"


def test_an_acceptance_without_an_id_is_an_acceptance(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: pack(0x80000004, 0, pdu.sequence)) as smsc:
        assert send(make(smsc)) == Accepted(None)


def test_a_password_longer_than_the_standard_is_not_cut(make: Make) -> None:
    with TinySmsc() as smsc:
        send(make(smsc))
        assert b"molva\x00long password\x00" in smsc.of(BIND)[0].body


# --- pace -------------------------------------------------------------------------------------------


def test_the_window_is_never_exceeded(make: Make) -> None:
    waiting: list[Pdu] = []
    most = []
    lock = threading.Lock()

    def slowly(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> None:
        with lock:
            waiting.append(pdu)
            most.append(len(waiting))

        def later() -> None:
            with lock:
                waiting.remove(pdu)
                sock.sendall(ok(pdu))

        threading.Timer(0.02, later).start()

    with TinySmsc(slowly) as smsc:
        provider = make(smsc, window=3)
        assert provider.most() == 3
        for future in several(provider, [LONG, "a"] * 6):
            future.result()
    assert max(most) == 3


def test_the_pace_counts_parts(make: Make) -> None:
    with TinySmsc() as smsc:
        for future in several(make(smsc, per_second=50), [LONG] * 4):
            future.result()
        at = [moment for pdu, moment in zip(smsc.pdus, smsc.times, strict=True) if pdu.command == 4]
    assert len(at) == 12
    assert at[-1] - at[0] >= 10 / 50


def test_a_long_message_at_a_very_slow_pace_is_complete_in_time_and_the_next_one_waits(make: Make) -> None:
    with TinySmsc() as smsc:
        provider = make(smsc, per_second=1, timing={"answer": 0.6, "start": 0.4})
        assert len(send(provider, LONG).parts) == 3
        error = failure(provider)
        assert (error.outcome, error.cause, error.slow_channel) == (LATER, "smpp_0x58", True)
        assert error.retry_after is not None
        assert 1 < error.retry_after < 3
        assert len(smsc.submits) == 3


def test_the_moment_of_leaving_is_that_of_the_first_part(make: Make) -> None:
    with TinySmsc() as smsc:
        provider = make(smsc, per_second=20)
        send(provider)
        left_at()
        asked = time.monotonic()
        send(provider, LONG)
        left = left_at()
        assert left is not None
        assert asked + 0.02 < left < time.monotonic() - 0.05
    provider.close()
    failure(provider)
    assert left_at() is None


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome", "about_message"),
    [
        (0x08, LATER, False),
        (0x45, LATER, False),
        (0x0B, REFUSED, False),
        (0x33, REFUSED, False),
        (0x0A, REFUSED, True),
        (0x66, REFUSED, True),
        (0x0E, STOP_CHANNEL, False),
        (0x01, STOP_BROADCAST, False),
        (0x61, STOP_BROADCAST, False),
        (0x62, STOP_BROADCAST, False),
        (0x777, REFUSED, True),
    ],
)
def test_each_status_has_its_outcome(make: Make, status: int, outcome: str, about_message: bool) -> None:
    with TinySmsc(lambda smsc, sock, pdu: no(pdu, status)) as smsc:
        error = failure(make(smsc))
    assert (error.outcome, error.cause, error.about_message) == (outcome, f"smpp_0x{status:02x}", about_message)
    assert not error.breaker


@pytest.mark.parametrize("status", [0x58, 0x14])
def test_too_fast_slows_the_channel_longer_each_time(make: Make, status: int) -> None:
    with TinySmsc(lambda smsc, sock, pdu: no(pdu, status)) as smsc:
        provider = make(smsc)
        errors = [failure(provider) for _ in range(4)]
    assert {(e.outcome, e.slow_channel, e.counts) for e in errors} == {(LATER, True, False)}
    assert [e.retry_after for e in errors] == [0.05, 0.1, 0.2, 0.2]


def test_a_channel_may_read_codes_in_its_own_way(make: Make) -> None:
    codes = "0x0400 = later   # the vendor's book\n\n0x08 = unclear\n1030 = channel"
    for status, outcome in [(0x400, LATER), (0x08, UNCLEAR), (0x406, STOP_CHANNEL)]:
        with TinySmsc(lambda smsc, sock, pdu, status=status: no(pdu, status)) as smsc:
            assert failure(make(smsc, codes=codes)).outcome == outcome


def test_a_map_of_codes_that_cannot_be_read_is_named(make: Make) -> None:
    error = failure(make(1, codes="0x400 = sometimes"))
    assert (error.outcome, error.cause) == (STOP_CHANNEL, "settings_invalid")
    assert "0x400 = sometimes" in error.detail


def test_a_nack_is_an_answer(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: pack(0x80000000, 0x0B, pdu.sequence)) as smsc:
        assert failure(make(smsc)).outcome == REFUSED


# --- long messages ----------------------------------------------------------------------------------


def numbers(submits: list[Pdu]) -> list[int]:
    return [short_message(pdu)[5] for pdu in submits]


def test_a_refusal_of_the_first_part_keeps_the_others_back(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: no(pdu, 0x0B)) as smsc:
        error = failure(make(smsc), LONG)
        assert (error.outcome, error.cause) == (REFUSED, "smpp_0x0b")
        assert numbers(smsc.submits) == [1]


def test_the_ids_are_in_the_order_of_the_parts(make: Make) -> None:
    waiting: list[Pdu] = []

    def last_first(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
        waiting.append(pdu)
        if len(waiting) == 1:
            return ok(pdu, "p1")
        return ok(waiting[2], "p3") + ok(waiting[1], "p2") if len(waiting) == 3 else None

    with TinySmsc(last_first) as smsc:
        assert send(make(smsc), LONG) == Accepted("p1", parts=("p1", "p2", "p3"))
        assert numbers(smsc.submits) == [1, 2, 3]


@pytest.mark.parametrize("status", [0x58, 0x14, 0x08])
def test_only_the_refused_part_is_repeated_under_the_same_reference(make: Make, status: int) -> None:
    tries: list[int] = []

    def second_time(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes:
        number = short_message(pdu)[5]
        tries.append(number)
        return no(pdu, status) if number == 2 and tries.count(2) < 3 else ok(pdu)

    with TinySmsc(second_time) as smsc:
        assert len(send(make(smsc), LONG).parts) == 3
        assert sorted(tries) == [1, 2, 2, 2, 3]
        assert len({short_message(pdu)[3] for pdu in smsc.submits}) == 1


def test_a_part_that_stays_refused_leaves_the_message_unclear_within_its_limit(make: Make) -> None:
    def never_the_last(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes:
        return no(pdu, 0x14) if short_message(pdu)[5] == 3 else ok(pdu)

    with TinySmsc(never_the_last) as smsc:
        error = failure(make(smsc, timing={"answer": 0.4}), LONG)
    assert error.outcome == UNCLEAR
    assert error.cause == "smpp_partly"
    assert "2 of 3" in error.detail


def test_a_part_refused_for_good_after_others_were_taken_is_unclear(make: Make) -> None:
    def not_the_second(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes:
        return no(pdu, 0x66) if short_message(pdu)[5] == 2 else ok(pdu)

    with TinySmsc(not_the_second) as smsc:
        error = failure(make(smsc), LONG)
    assert (error.outcome, error.cause) == (UNCLEAR, "smpp_partly")
    assert "smpp_0x66" in error.detail


def test_two_long_messages_to_one_phone_have_references_of_their_own(make: Make) -> None:
    with TinySmsc() as smsc:
        provider = make(smsc)
        send(provider, LONG)
        send(provider, LONG)
        assert len({short_message(pdu)[3] for pdu in smsc.submits}) == 2


# --- lines that break -------------------------------------------------------------------------------


def test_what_was_written_when_the_line_broke_is_unclear(make: Make) -> None:
    def dropping(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> None:
        if len(smsc.connections) == 1:
            smsc.drop(sock)
        else:
            sock.sendall(ok(pdu))

    with TinySmsc(dropping) as smsc:
        provider = make(smsc)
        error = failure(provider)
        assert (error.outcome, error.cause, error.breaker) == (UNCLEAR, "connection_lost", True)
        assert send(provider).provider_id
        assert len(smsc.submits) == 2


def test_what_waited_for_room_survives_a_lost_line(make: Make) -> None:
    def first_connection_only(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
        if len(smsc.connections) > 1:
            return ok(pdu)
        threading.Timer(0.1, smsc.drop, [sock]).start()
        return None

    with TinySmsc(first_connection_only) as smsc:
        futures = several(make(smsc, window=1), ["a", "b", "c"])
        failed = [future for future in futures if future.exception()]
        assert len(failed) == 1
        assert len(smsc.submits) == 3  # one that was lost, and nothing twice


def test_silence_is_unclear_and_makes_room_again(make: Make) -> None:
    def first_one_never(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
        return None if len(smsc.submits) == 1 else ok(pdu)

    with TinySmsc(first_one_never) as smsc:
        provider = make(smsc, window=1, timing={"answer": 0.2})
        error = failure(provider)
        assert (error.outcome, error.cause) == (UNCLEAR, "timeout")
        assert send(provider).provider_id


def test_a_message_that_never_came_to_its_turn_was_surely_not_sent(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        provider = make(smsc, window=1, timing={"answer": 1.0, "start": 0.2})
        errors = [future.exception() for future in several(provider, ["a", "b"])]
        assert sorted(e.outcome for e in errors if isinstance(e, SendError)) == [LATER, UNCLEAR]
        assert len(smsc.submits) == 1


def test_what_was_given_up_is_not_written_however_the_threads_fall(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stalled(list[int]):
        """The parts of a message whose line is stopped just before it takes one, until the sender has given up."""

        job: smpp_line.Job

        def pop(self, at: Any = -1) -> int:
            assert self.job.wait(5)
            return super().pop(at)

    class StalledJob(smpp_line.Job):
        def __init__(self, pdus: list[bytes], token: str) -> None:
            super().__init__(pdus, token)
            self.todo = Stalled(self.todo)
            self.todo.job = self

    monkeypatch.setattr(smpp_line, "Job", StalledJob)
    monkeypatch.setattr(smpp_line, "MARGIN", 0.1)
    with TinySmsc() as smsc:
        provider = make(smsc, timing={"start": 0.2, "answer": 0.1})
        error = failure(provider)
        provider.close()
        assert (error.outcome == LATER) == (not smsc.submits)


def test_nobody_there_is_later_and_feeds_the_breaker(make: Make) -> None:
    error = failure(make(free_port()))
    assert (error.outcome, error.cause, error.counts, error.breaker) == (LATER, "connect_failed", False, True)


def test_an_smsc_that_never_answers_the_bind_is_not_waited_for(make: Make) -> None:
    with TinySmsc() as smsc:
        smsc.bind = [0]
        smsc._answer = lambda sock, pdu: None  # type: ignore[method-assign]
        error = failure(make(smsc, timing={"bind": 0.2}))
        assert (error.outcome, error.cause) == (LATER, "connect_failed")


@pytest.mark.parametrize("status", [0x0D, 0x0E, 0x0F])
def test_a_refused_account_stops_the_channel_and_does_not_knock_on(make: Make, status: int) -> None:
    with TinySmsc(bind=(status,)) as smsc:
        provider = make(smsc, timing={"lingering": 0})
        errors = [failure(provider) for _ in range(3)]
        assert {(e.outcome, e.cause) for e in errors} == {(STOP_CHANNEL, f"smpp_0x{status:02x}")}
        assert len(smsc.of(BIND)) == 1


@pytest.mark.parametrize("status", [0x0D, 0x0E, 0x0F])
def test_a_message_that_comes_later_tries_a_refused_account_again(make: Make, status: int) -> None:
    with TinySmsc(bind=(status, status, 0)) as smsc:
        provider = make(smsc, timing={"lingering": 0, "again": 0.1})
        for binds in (1, 2):
            assert failure(provider).outcome == STOP_CHANNEL
            assert len(smsc.of(BIND)) == binds
            time.sleep(0.1)  # the pause itself is what is promised
        assert send(provider).provider_id
        assert len(smsc.of(BIND)) == 3


def test_all_who_come_while_a_refused_account_is_tried_again_wait_for_it(make: Make) -> None:
    with TinySmsc(bind=(0x0E, 0)) as smsc:
        provider = make(smsc, timing={"again": 0.1})
        assert failure(provider).outcome == STOP_CHANNEL
        usual = smsc._answer
        asked = threading.Event()

        def slowly(sock: socket.socket, pdu: Pdu) -> bytes | None:
            if pdu.command == BIND:
                asked.set()
                time.sleep(0.2)
            return usual(sock, pdu)

        smsc._answer = slowly  # type: ignore[method-assign]
        time.sleep(0.1)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(send, provider)
            assert asked.wait(5)
            second = pool.submit(send, provider)
            assert first.result().provider_id
            assert second.result().provider_id


def test_a_new_try_of_a_refused_account_is_not_waited_for_without_end(make: Make) -> None:
    with TinySmsc(bind=(0x0E,)) as smsc:
        provider = make(smsc, timing={"again": 0.05, "trial": 0.2})
        assert failure(provider).outcome == STOP_CHANNEL
        smsc._answer = lambda sock, pdu: None  # type: ignore[method-assign]
        time.sleep(0.05)
        began = time.monotonic()
        error = failure(provider)
        assert (error.outcome, error.cause) == (STOP_CHANNEL, "smpp_0x0e")
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("status", [0x05, 0x0D])
def test_a_bind_that_a_dead_process_left_behind_is_waited_out(make: Make, status: int) -> None:
    with TinySmsc(bind=(status, status, 0)) as smsc:
        provider = make(smsc, timing={"backoff": (30.0,), "again": 0.05})
        error = failure(provider)
        assert (error.outcome, error.cause, error.counts) == (LATER, f"smpp_0x{status:02x}", False)
        assert (error.breaker, error.slow_channel, error.retry_after) == (False, True, 0.05)
        until_accepted(provider)
        assert len(smsc.of(BIND)) == 3


def test_a_bind_refused_for_now_is_tried_again(make: Make) -> None:
    with TinySmsc(bind=(0x05, 0x58, 0)) as smsc:
        provider = make(smsc)
        assert failure(provider).outcome == LATER
        until_accepted(provider)
        assert len(smsc.of(BIND)) == 3


def until_accepted(provider: Smpp) -> None:
    until = time.monotonic() + 5
    while True:
        try:
            send(provider)
        except SendError:
            assert time.monotonic() < until
            time.sleep(0.01)
        else:
            return


def test_an_smsc_that_has_forgotten_the_bind_is_bound_again(make: Make) -> None:
    def first_connection_forgotten(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes:
        return no(pdu, 0x04) if len(smsc.connections) == 1 else ok(pdu)

    with TinySmsc(first_connection_forgotten) as smsc:
        provider = make(smsc)
        error = failure(provider)
        assert (error.outcome, error.cause, error.counts) == (LATER, "smpp_0x04", False)
        assert send(provider).provider_id
        assert len(smsc.of(BIND)) == 2


def test_what_is_on_the_wire_is_answered_before_a_forgotten_bind_is_given_up(make: Make) -> None:
    held: list[Pdu] = []

    def second_forgotten(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
        held.append(pdu)
        if len(held) == 2:
            threading.Timer(0.1, sock.sendall, [ok(held[0])]).start()
        return no(pdu, 0x04) if len(held) == 2 else None

    with TinySmsc(second_forgotten) as smsc:
        futures = several(make(smsc), ["a", "b"])
        assert sorted(str(getattr(future.exception(), "cause", "")) for future in futures) == ["", "smpp_0x04"]
        smsc.wait(lambda: len(smsc.of(BIND)) == 2)


def test_an_unbind_is_answered_and_the_line_comes_back(make: Make) -> None:
    with TinySmsc() as smsc:
        provider = make(smsc)
        send(provider)
        smsc.send(pack(UNBIND, 0, 77))
        smsc.wait(lambda: Pdu(UNBIND | 0x80000000, 0, 77, b"") in smsc.pdus)
        smsc.wait(lambda: len(smsc.of(BIND)) == 2)
        assert send(provider).provider_id


def test_an_enquiry_is_answered(make: Make) -> None:
    with TinySmsc() as smsc:
        send(make(smsc))
        smsc.send(pack(ENQUIRE, 0, 5) + pack(0x103, 0, 6) + pack(0x102, 0, 7))
        smsc.wait(lambda: Pdu(ENQUIRE | 0x80000000, 0, 5, b"") in smsc.pdus)
        smsc.wait(lambda: Pdu(0x80000000, 0x03, 6, b"") in smsc.pdus)
        assert not [pdu for pdu in smsc.pdus if pdu.sequence == 7]


def test_an_idle_line_enquires_and_one_without_life_is_given_up(make: Make) -> None:
    with TinySmsc(enquiries=False) as smsc:
        send(make(smsc, timing={"enquire": 0.05, "silence": 0.2}))
        smsc.wait(lambda: len(smsc.of(BIND)) == 2)
        assert len(smsc.of(ENQUIRE)) >= 2


def test_a_ping_asks_over_the_line(make: Make) -> None:
    with TinySmsc() as smsc:
        make(smsc).ping()
        assert len(smsc.of(ENQUIRE)) == 1
    with pytest.raises(SendError) as caught:
        make(free_port()).ping()
    assert caught.value.outcome == LATER


def test_a_ping_that_nobody_answers_ends(make: Make) -> None:
    with TinySmsc(enquiries=False) as smsc, pytest.raises(SendError) as caught:
        make(smsc, timing={"start": 0.2}).ping()
    assert caught.value.outcome == LATER


def test_closing_unbinds_and_leaves_nobody_waiting(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        provider = make(smsc, window=1)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(send, provider) for _ in range(2)]
            smsc.wait(lambda: smsc.submits)
            began = time.monotonic()
            provider.close()
            outcomes = sorted(str(getattr(f.exception(), "outcome", "")) for f in futures)
        assert time.monotonic() - began < 2
        assert outcomes == [LATER, UNCLEAR]
        assert smsc.pdus[-1].command == UNBIND
        assert failure(provider).outcome == LATER


def test_answers_that_come_while_closing_still_count(make: Make) -> None:
    def soon(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> None:
        threading.Timer(0.1, sock.sendall, [ok(pdu)]).start()

    with TinySmsc(soon) as smsc:
        provider = make(smsc)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(send, provider)
            smsc.wait(lambda: smsc.submits)
            provider.close()
            assert future.result().provider_id


@pytest.mark.parametrize("pace", [None, 1])
def test_a_message_that_has_begun_is_completed_before_the_line_closes(make: Make, pace: int | None) -> None:
    def slowly(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
        if short_message(pdu)[5] > 1:
            return ok(pdu)
        threading.Timer(0.1, sock.sendall, [ok(pdu)]).start()
        return None

    with TinySmsc(slowly) as smsc:
        provider = make(smsc, timing={"goodbye": 1.5}, per_second=pace, window=1)
        with ThreadPoolExecutor(2) as pool:
            begun = pool.submit(send, provider, LONG)
            smsc.wait(lambda: smsc.submits)
            waiting = pool.submit(send, provider, LONG)
            began = time.monotonic()
            provider.close()
            assert time.monotonic() - began < 2
            assert len(begun.result().parts) == 3
            assert getattr(waiting.exception(), "outcome", "") == LATER
        assert numbers(smsc.submits) == [1, 2, 3]
        assert smsc.pdus[-1].command == UNBIND


def test_a_message_that_cannot_be_completed_does_not_keep_the_line_open(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: no(pdu, 0x14) if short_message(pdu)[5] == 2 else ok(pdu)) as smsc:
        provider = make(smsc)
        with ThreadPoolExecutor(1) as pool:
            begun = pool.submit(send, provider, LONG)
            smsc.wait(lambda: len(smsc.submits) > 1)
            began = time.monotonic()
            provider.close()
            assert time.monotonic() - began < 1
            assert getattr(begun.exception(), "cause", "") == "smpp_partly"


def test_answers_that_come_with_the_goodbye_still_count(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        usual = smsc._answer
        smsc._answer = lambda sock, pdu: (
            (ok(smsc.submits[0]) if pdu.command == UNBIND else b"") + (usual(sock, pdu) or b"")
        )  # type: ignore[method-assign]
        provider = make(smsc)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(send, provider)
            smsc.wait(lambda: smsc.submits)
            provider.close()
            assert future.result().provider_id


def test_a_provider_that_was_closed_never_binds_again(make: Make) -> None:
    with TinySmsc() as smsc:
        unused, used = make(smsc), make(smsc)
        send(used)
        for provider in (unused, used):
            provider.close()
            for call in (lambda p=provider: send(p), provider.ping, lambda p=provider: p.open(Store())):
                with pytest.raises(SendError) as caught:
                    call()
                error = caught.value
                assert (error.outcome, error.cause, error.counts, error.breaker) == (
                    LATER,
                    "connect_failed",
                    False,
                    False,
                )
        assert len(smsc.connections) == 1


# --- what comes in ----------------------------------------------------------------------------------


def answers(smsc: TinySmsc, sequence: int) -> list[int]:
    return [pdu.status for pdu in smsc.of(DELIVER | 0x80000000) if pdu.sequence == sequence]


class Store:
    """Keeps what it is given, and says what the test wants."""

    def __init__(self, *says: bool) -> None:
        self.says = list(says)
        self.kept: list[RawCallback] = []

    def __call__(self, callbacks: Sequence[RawCallback]) -> bool:
        self.kept.extend(callbacks)
        return self.says.pop(0) if self.says else True


def test_a_receipt_is_stored_before_it_is_answered(make: Make) -> None:
    stored = threading.Event()
    seen: list[RawCallback] = []

    def receive(callbacks: Sequence[RawCallback]) -> bool:
        seen.extend(callbacks)
        return stored.wait(5)

    with TinySmsc() as smsc:
        provider = make(smsc)
        provider.open(receive)
        smsc.wait(lambda: smsc.of(BIND))
        smsc.send(deliver(9, b"hi"))
        smsc.wait(lambda: seen)
        assert send(provider).provider_id  # a slow store does not hold up the line
        assert answers(smsc, 9) == []
        stored.set()
        assert smsc.wait(lambda: answers(smsc, 9)) == [0]
        assert seen[0].method == "SMPP"
        assert seen[0].body == deliver(9, b"hi")


def test_what_could_not_be_stored_is_to_be_repeated(make: Make) -> None:
    def receive(callbacks: Sequence[RawCallback]) -> bool:
        if any(b"boom" in callback.body for callback in callbacks):
            raise OSError("disk")
        return False

    with TinySmsc() as smsc:
        make(smsc).open(receive)
        smsc.wait(lambda: smsc.of(BIND))
        smsc.send(deliver(1, b"boom") + deliver(2, b"no"))
        assert smsc.wait(lambda: answers(smsc, 1)) == [0x64]
        assert smsc.wait(lambda: answers(smsc, 2)) == [0x64]


def test_a_line_that_only_sends_acknowledges_nothing(make: Make) -> None:
    with TinySmsc() as smsc:
        send(make(smsc))
        smsc.send(deliver(3))
        assert smsc.wait(lambda: answers(smsc, 3)) == [0x64]


def test_what_comes_with_the_answer_to_the_bind_is_not_lost(make: Make) -> None:
    with TinySmsc() as smsc:
        usual = smsc._answer
        smsc._answer = lambda sock, pdu: (usual(sock, pdu) or b"") + (deliver(4) if pdu.command == BIND else b"")  # type: ignore[method-assign]
        store = Store()
        make(smsc).open(store)
        smsc.wait(lambda: answers(smsc, 4) == [0])
        assert len(store.kept) == 1


def updates(provider: Smpp, store: Store) -> list[StatusUpdate]:
    """What the stored callbacks say, read as they come from the table: without a method or headers of their own."""
    kept = [RawCallback("POST", c.path, c.query, c.headers, c.body) for c in store.kept]
    assert all(set(callback.headers) <= set(KEPT_HEADERS) for callback in kept)
    return [item for callback in kept for item in provider.parse(callback) if isinstance(item, StatusUpdate)]


def test_an_answer_after_the_limit_tells_that_the_message_was_taken(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        provider, store = make(smsc, timing={"answer": 0.1}), Store()
        provider.open(store)
        assert (failure(provider).outcome, store.kept) == (UNCLEAR, [])
        smsc.send(ok(smsc.submits[0], "late") + ok(smsc.submits[0], "again"))
        smsc.wait(lambda: store.kept)
        (update,) = updates(provider, store)
        assert (update.status, update.provider_id, update.token) == ("sent", "late", "token")
        assert abs(update.at - clock.now()) < 5_000
        smsc.send(deliver(1))
        smsc.wait(lambda: answers(smsc, 1))
        assert len(store.kept) == 2  # one answer, one message
        assert not smsc.of(0x80000000)


def test_an_answer_after_the_limit_without_an_id_tells_it_as_well(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        provider, store = make(smsc, timing={"answer": 0.1}), Store()
        provider.open(store)
        failure(provider)
        smsc.send(pack(0x80000004, 0, smsc.submits[0].sequence))
        smsc.wait(lambda: store.kept)
        (update,) = updates(provider, store)
        assert (update.status, update.provider_id, update.token) == ("sent", None, "token")


def test_a_long_message_is_known_to_be_taken_with_its_last_late_part(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: ok(pdu, "p1") if short_message(pdu)[5] == 1 else None) as smsc:
        provider, store = make(smsc, timing={"answer": 0.2}), Store()
        provider.open(store)
        assert failure(provider, LONG).outcome == UNCLEAR
        smsc.send(ok(smsc.submits[2], "p3") + deliver(1))
        smsc.wait(lambda: answers(smsc, 1))
        assert updates(provider, store) == []
        smsc.send(ok(smsc.submits[1], "p2"))
        smsc.wait(lambda: len(store.kept) == 2)
        (update,) = updates(provider, store)
        assert (update.status, update.provider_id, update.token) == ("sent", "p1", "token")


def test_a_late_refusal_and_a_late_riddle_change_nothing(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        provider, store = make(smsc, timing={"answer": 0.1}), Store()
        provider.open(store)
        for _ in range(2):
            failure(provider)
        refused, riddle = smsc.submits
        smsc.send(no(refused, 0x0B) + pack(0x80000000, 0, riddle.sequence) + deliver(1))
        smsc.wait(lambda: answers(smsc, 1))
        assert updates(provider, store) == []


def test_an_answer_of_an_earlier_connection_is_nobodys(make: Make) -> None:
    with TinySmsc(lambda smsc, sock, pdu: None) as smsc:
        provider, store = make(smsc, timing={"answer": 0.1}), Store()
        provider.open(store)
        failure(provider)
        smsc.drop(smsc.connections[-1])
        smsc.wait(lambda: len(smsc.of(BIND)) == 2)
        smsc.send(ok(smsc.submits[0]) + deliver(1))
        smsc.wait(lambda: answers(smsc, 1))
        assert updates(provider, store) == []


def ids(provider: Smpp, store: Store) -> list[str]:
    return [item.provider_id or "" for callback in store.kept for item in provider.parse(callback)]


def test_a_repeat_after_a_refusal_is_the_same_reply(make: Make) -> None:
    with TinySmsc() as smsc:
        provider, store = make(smsc), Store(False)
        provider.open(store)
        smsc.wait(lambda: smsc.of(BIND))
        for sequence in (1, 2):
            smsc.send(deliver(sequence, b"yes"))
            smsc.wait(lambda sequence=sequence: answers(smsc, sequence))
        assert len(set(ids(provider, store))) == 1


def test_a_repeat_after_a_lost_answer_is_the_same_reply(make: Make) -> None:
    with TinySmsc() as smsc:
        provider, store = make(smsc), Store()
        provider.open(store)
        smsc.wait(lambda: smsc.of(BIND))
        smsc.send(deliver(1, b"yes"))
        smsc.wait(lambda: answers(smsc, 1))
        smsc.drop(smsc.connections[-1])
        smsc.wait(lambda: len(smsc.of(BIND)) == 2)
        smsc.send(deliver(8, b"yes"))
        smsc.wait(lambda: answers(smsc, 8))
        assert len(set(ids(provider, store))) == 1


def test_a_person_may_say_the_same_twice(make: Make) -> None:
    with TinySmsc() as smsc:
        provider, store = make(smsc), Store()
        provider.open(store)
        smsc.wait(lambda: smsc.of(BIND))
        smsc.send(deliver(1, b"yes") + deliver(2, b"yes"))
        smsc.wait(lambda: answers(smsc, 1) and answers(smsc, 2))
        smsc.send(deliver(3, b"yes"))
        smsc.wait(lambda: answers(smsc, 3))
        assert len(set(ids(provider, store))) == 3


# --- settings ---------------------------------------------------------------------------------------


def test_a_private_address_is_refused() -> None:
    with TinySmsc() as smsc:
        provider = Smpp({"host": "127.0.0.1", "port": smsc.port, "system_id": "a", "password": "b"})
        error = failure(provider)
        provider.close()
        assert (error.outcome, error.cause) == (STOP_CHANNEL, "address_forbidden")
        assert smsc.connections == []


def test_check_says_what_it_found(make: Make) -> None:
    with TinySmsc(bind=(0, 0x05, 0x0E)) as smsc:
        found = [make(smsc).check()[0] for _ in range(3)]
        assert [(f.level, f.code) for f in found] == [
            ("ok", "account_found"),
            ("ok", "account_found"),
            ("error", "smpp_0x0e"),
        ]
        assert len(smsc.of(UNBIND)) == 1
    assert make(free_port()).check()[0].code == "connect_failed"


def test_an_smsc_without_tls_is_not_spoken_to_in_the_clear(make: Make) -> None:
    with TinySmsc() as smsc:
        error = failure(make(smsc, tls=True, timing={"connect": 0.3}))
        assert (error.outcome, error.cause) == (LATER, "tls")
        assert smsc.of(BIND) == []


@pytest.mark.parametrize(
    ("address", "trusted", "good"),
    [("127.0.0.1", True, True), ("127.0.0.2", True, False), ("127.0.0.1", False, False)],
)
def test_tls_checks_the_certificate_and_its_name(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, trusted: bool, good: bool
) -> None:
    path = certificate(tmp_path, address)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with TinySmsc(tls=context) as smsc:
        provider = make(smsc, tls=True)
        if not good:
            assert failure(provider).cause == "tls"
            assert smsc.of(BIND) == []
            return
        provider.open(Store())
        assert [len(f.result().parts) for f in several(provider, [LONG, LONG, LONG])] == [3, 3, 3]
        smsc.send(b"".join(deliver(n, b"hello " * 20) for n in range(1, 150)))
        smsc.wait(lambda: len(smsc.of(DELIVER | 0x80000000)) == 149)


def test_without_its_extra_the_channel_says_what_to_install(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smpp_wire, "installed", lambda: False)
    error = failure(make(1))
    assert (error.outcome, error.cause) == (STOP_CHANNEL, "settings_invalid")
    assert "molva[smpp]" in error.detail
    assert make(1).check()[0].code == "settings_invalid"


def test_the_registry_does_not_need_the_extra() -> None:
    code = "import sys; sys.modules['smpplib'] = None; from worker.providers import PROVIDERS; PROVIDERS['smpp']({})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("settings", [{"host": ""}, {"system_id": "Молва"}, {"sender": "Молва"}])
def test_settings_that_cannot_work_stop_the_channel(make: Make, settings: dict[str, str]) -> None:
    with TinySmsc() as smsc:
        error = failure(make(smsc, **settings))
        assert (error.outcome, error.cause) == (STOP_CHANNEL, "settings_invalid")


@pytest.mark.parametrize(
    ("sender", "answerable"), [("Molva", False), ("+7 495 1234567", True), ("1234", True), ("", True)]
)
def test_nobody_can_answer_a_name(make: Make, sender: str, answerable: bool) -> None:
    assert make(1, sender=sender).answerable() is answerable


def test_nothing_for_this_channel_comes_over_http(make: Make) -> None:
    callback = RawCallback("POST", "", {}, {}, deliver(1))
    assert make(1).verify(callback) is False
    assert make(1).handshake(callback) is None


@pytest.mark.parametrize(
    ("changed", "faults"),
    [
        ({}, []),
        ({"sender": "Molva Shop"}, []),
        ({"sender": "+79160000000"}, []),
        ({"sender": "МойМагазин"}, [("sender", "sender_long")]),
        ({"sender": "A name of twelve"}, [("sender", "sender_long")]),
        ({"host": "http://smsc.example"}, [("host", "host_only")]),
        ({"system_id": "логин"}, [("system_id", "логин")]),
        ({"codes": "0x0400 = whenever"}, [("codes", "0x0400 = whenever")]),
    ],
)
def test_what_sending_would_refuse_is_refused_when_it_is_typed(
    changed: dict[str, str], faults: list[tuple[str, str]]
) -> None:
    given = {"host": "smsc.example", "system_id": "molva", "password": "x", "sender": "Molva", **changed}
    assert Smpp.faults(given) == faults
