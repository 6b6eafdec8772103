"""The line to an SMSC: one thread owns the socket and the messages on it.

Sender threads hand it whole messages and wait; every message ends with its ids or a Failure, whatever happens.
The first part of a message goes ahead alone: what is refused with it is refused for the whole message, so that
nobody gets half of one. The other parts follow together. A part that was refused only for now, after others were
taken, is submitted again under the same reference.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import secrets
import selectors
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

from worker import clock
from worker.providers import smpp_errors, smpp_session, smpp_wire
from worker.providers.base import LATER, STOP_CHANNEL, UNCLEAR, RawCallback, Receive
from worker.providers.egress import Resolver
from worker.providers.rules import DOWN, TOO_FAST, Rule
from worker.providers.smpp_errors import UNSURE
from worker.providers.smpp_session import Account, Failure, Lost, NotBound, Session, Timing
from worker.providers.smpp_wire import ANSWER, Pdu, Unreadable

log = logging.getLogger("molva.smpp")

IDENTITY, RECEIVED_AT = "x-line-id", "x-line-at"  # what the line adds to a stored PDU, as header names
TOGETHER = 500  # PDUs that are stored with one commit, which takes as long as for one
CROWD = 2_000  # PDUs that may wait to be stored; more are refused, and the SMSC offers them again
ANSWERED = "answer"  # path of a stored answer that came late: JSON with the token and the ids of all parts
FORGOTTEN = 10_000  # submits without an answer in time of which the latest are remembered
LOOK = 0.25  # seconds between two looks at the limits
CATCH_UP = 0.02  # seconds by which a submit may be late without the pace losing them
MARGIN = 5.0  # seconds after which a waiting thread gives up on the line itself

PARTLY = "smpp_partly"
CLOSED = Failure(Rule(LATER, counts=False), "connect_failed", "the line was closed")


class Waiter:
    """What a sender thread waits for."""

    def __init__(self) -> None:
        self.asked = clock.monotonic()
        self.failure: Failure | None = None
        self._done = threading.Event()
        self._turn = threading.Lock()  # what is begun and what is given up exclude each other

    def finish(self, failure: Failure | None = None) -> None:
        with self._turn:
            self._finish(failure)

    def give_up(self, failure: Failure) -> None:
        """The end by the waiting thread, which has waited long enough."""
        self.finish(failure)

    def drop(self, failure: Failure) -> None:
        """The end, unless it is a message that has begun."""
        self.finish(failure)

    def _finish(self, failure: Failure | None) -> None:
        if not self._done.is_set():
            self.failure = failure
            self._done.set()

    @property
    def finished(self) -> bool:
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        return self._done.wait(seconds)


class Job(Waiter):
    """One message: its submits without their numbers, and how far each has come."""

    def __init__(self, pdus: list[bytes], token: str = "") -> None:
        super().__init__()
        self.pdus = pdus
        self.token = token
        self.todo = list(range(len(pdus)))
        self.ids: dict[int, str] = {}  # of the parts that were taken
        self.left: float | None = None  # when the first part was written
        self.last = 0.0  # when the latest was
        self.open = 0  # parts without an answer
        self.again: list[int] = []  # parts that were refused for now
        self.refusal: Failure | None = None
        self.not_before = 0.0

    @property
    def refused(self) -> bool:
        return self.refusal is not None

    @property
    def whole(self) -> bool:
        """Whether every part was taken."""
        return len(self.ids) == len(self.pdus)

    @property
    def unclear(self) -> bool:
        return self.failure is not None and self.failure.rule.outcome == UNCLEAR

    def begin(self, within: float) -> bool:
        """Whether the first part may be written: not when others have given the message up, nor after `within`
        seconds, when they may do so at any moment (a process can be stopped for long)."""
        with self._turn:
            now = clock.monotonic()
            if now - self.asked > within:
                self._finish(CLOSED._replace(detail="too late to begin"))
            if self.finished:
                return False
            self.left = now
            return True

    def drop(self, failure: Failure) -> None:
        with self._turn:
            if self.left is None:
                self._finish(failure)

    def give_up(self, failure: Failure) -> None:
        """`failure` holds for a message that has not begun; with one that has anything may have happened."""
        with self._turn:
            self._finish(failure if self.left is None else Failure(UNSURE, "timeout", failure.detail))


class Ping(Waiter):
    """An enquire_link that somebody waits for."""


class Submit(NamedTuple):
    """One part on the wire."""

    job: Job
    part: int
    at: float


class Line:
    """Keeps one bind, for as long as it is not closed. Starts by itself when it is first used.

    per_second: submits, None for as fast as the window allows. meanings: a channel's own map of status codes.
    """

    def __init__(
        self,
        account: Account,
        resolver: Resolver,
        *,
        window: int,
        per_second: float | None,
        meanings: dict[int, Rule],
        timing: Timing,
    ) -> None:
        self._account = account
        self._resolver = resolver
        self._window = window
        self._interval = 1 / per_second if per_second else 0.0
        self._meanings = meanings
        self._timing = timing
        self._receive: Receive | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = self._ended = False
        self._failure: Failure | None = None  # why there is no connection, after a try
        self._began = self._tried = clock.monotonic()  # the line, and its latest try to bind
        self._trying = self._asked_to_try = False
        self._inbox: deque[Waiter] = deque()
        self._bell, self._ear = socket.socketpair()
        for end in (self._bell, self._ear):
            end.setblocking(False)
        # of the line's thread only
        self._waiting: deque[Job] = deque()  # nothing of them has left
        self._begun: deque[Job] = deque()  # parts of them may follow
        self._open: dict[int, Submit] = {}
        self._late: OrderedDict[int, Submit] = OrderedDict()  # nobody waits for their answers any more
        self._pings: list[Ping] = []
        self._enquiries: dict[int, Ping] = {}
        self._next_slot = self._slow_until = self._looked = 0.0
        self._slow = timing.slow[0]
        self._taken_since = True  # since the last "too fast"
        self._intake: queue.SimpleQueue[tuple[Session, Pdu | None, RawCallback] | None] = queue.SimpleQueue()
        self._stored: deque[tuple[Session, Pdu | None, bool]] = deque()
        self._storing = 0
        self._repeats = Repeats()

    # --- for other threads ----------------------------------------------------------------------

    def open(self, receive: Receive | None) -> None:
        """Begin to connect; what comes in goes to `receive` before it is acknowledged."""
        with self._lock:
            if self._closing:
                return
            if receive is not None and self._receive is None:
                self._receive = receive
                threading.Thread(target=self._storing_thread, name="smpp-store", daemon=True).start()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smpp-line", daemon=True)
                self._thread.start()

    def send(self, pdus: list[bytes], leaving: Callable[[float], None], token: str = "") -> list[str]:
        """Hand one message over; the ids of its parts. Raises NotBound with the Failure.

        `leaving` is told when the first part was written, on the monotonic clock. `token` names the message where
        its answer comes too late for this call.
        """
        job = Job(pdus, token)
        self._hand_over(job, self._timing.start + self._timing.answer + MARGIN)
        if job.left is not None:
            leaving(job.left)
        if job.failure is not None:
            raise NotBound(job.failure)
        return [job.ids[part] for part in range(len(pdus))]

    def ping(self) -> None:
        """Ask the SMSC whether it is there. Raises NotBound."""
        ping = Ping()
        self._hand_over(ping, self._timing.start)
        if ping.failure is not None:
            raise NotBound(ping.failure)

    def close(self) -> None:
        """Unbind; what has no answer after that is unclear. Waits about as long as that may take."""
        with self._lock:
            begun, self._closing = self._closing, True
            thread = self._thread
        if thread is not None:
            self._ring()
            thread.join(self._timing.goodbye + 0.5)
        elif not begun:
            self._end()

    def _hand_over(self, waiter: Waiter, limit: float) -> None:
        self.open(None)
        failure = self._failure
        trial = failure is not None and self._is_worth_a_try(failure)
        if self._closing or (failure is not None and not trial):
            waiter.finish(failure or CLOSED)
            return
        self._inbox.append(waiter)
        if trial and not self._trying:
            self._asked_to_try = True
        self._ring()
        if self._ended:
            waiter.finish(CLOSED)
        if failure is not None and not waiter.wait(self._timing.trial):
            waiter.drop(failure)
        if not waiter.wait(limit):
            waiter.give_up(Failure(DOWN, "connect_failed", "no answer"))

    def _is_worth_a_try(self, failure: Failure) -> bool:
        """Whether a refused account may have been put right at the operator since."""
        if failure.rule.outcome != STOP_CHANNEL:
            return False
        return self._trying or clock.monotonic() - self._tried >= self._timing.again

    def _ring(self) -> None:
        with suppress(OSError):  # full: it rings already; closed: nobody listens
            self._bell.send(b"!")

    # --- the line's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        tries, wait = 0, 0.0
        try:
            while not self._pause(wait):
                self._trying, self._asked_to_try = True, False
                try:
                    session = smpp_session.connect(self._account, self._resolver, self._timing)
                except NotBound as error:
                    wait = self._not_bound(error.failure, tries, error.status)
                    tries += 1
                    continue
                except Exception as error:
                    log.exception("the line cannot connect")
                    wait = self._not_bound(Failure(DOWN, "connect_failed", type(error).__name__), tries)
                    tries += 1
                    continue
                self._failure, self._trying = None, False
                log.info("bound to %s", session.smsc or "the SMSC")
                tries = 0 if self._kept(session) else tries
                wait = self._backoff(tries)
                tries += 1
        finally:
            self._end()

    def _backoff(self, tries: int) -> float:
        steps = self._timing.backoff
        return steps[min(tries, len(steps) - 1)]

    def _not_bound(self, failure: Failure, tries: int, status: int = 0) -> float:
        """Everybody who waits learns why; how long until the next try."""
        log.warning("not bound: %s %s", failure.cause, failure.detail)
        self._tried = clock.monotonic()
        wait = self._timing.refused if failure.rule.outcome == STOP_CHANNEL else self._backoff(tries)
        if status in smpp_errors.LINGERING and self._tried - self._began < self._timing.lingering:
            wait = min(self._backoff(tries), self._timing.again)
            failure = failure._replace(rule=smpp_errors.WAITING, retry_after=wait)
        self._failure, self._trying, self._asked_to_try = failure, False, False
        self._give_up(failure)
        return wait

    def _pause(self, seconds: float) -> bool:
        """Wait until the next try; True when the line is to end instead."""
        until = clock.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            while not self._closing and not self._asked_to_try and (left := until - clock.monotonic()) > 0:
                selector.select(min(left, LOOK) if self._waiting or self._begun else left)
                self._collect()
                self._look(clock.monotonic(), None)
        return self._closing

    def _kept(self, session: Session) -> bool:
        """Use a connection until it is lost; whether it was worth having."""
        try:
            self._serve(session)
        except Lost as error:
            log.warning("the line was lost: %s", error)
        except Exception:
            log.exception("the line failed")
        finally:
            session.close()
            self._lost(session)
        return session.proven or clock.monotonic() - session.began >= self._timing.proven

    def _serve(self, session: Session) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            selector.register(session.sock, selectors.EVENT_READ)
            while not self._closing:
                self._turn(session, selector)
            self._goodbye(session, selector)

    def _turn(self, session: Session, selector: selectors.BaseSelector, longest: float = math.inf) -> None:
        """Do what is due, then what has come in within `longest` seconds. Raises Lost."""
        now = clock.monotonic()
        self._collect()
        self._enquire(session, now)
        self._look(now, session)
        self._write(session, now)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.writing else 0)
        if wanted != selector.get_key(session.sock).events:
            selector.modify(session.sock, wanted)
        ready = selector.select(min(self._until_next(session), longest))
        if session.more or any(key.fileobj is session.sock for key, _ in ready):
            for pdu in session.read():
                self._came(session, pdu)
        if clock.monotonic() - session.heard > self._timing.silence:
            raise Lost("silence")
        if self._is_over(session):
            raise Lost("forgotten by the SMSC")

    def _is_over(self, session: Session) -> bool:
        """Whether only a new bind helps; what is on the wire may have its answers first."""
        if session.forgotten is None:
            return False
        return not self._open or clock.monotonic() - session.forgotten > self._timing.goodbye / 2

    def _until_next(self, session: Session) -> float:
        """Seconds until something is due that no socket announces."""
        if session.more:
            return 0.0
        now = clock.monotonic()
        due = [session.enquired + self._timing.enquire, session.heard + self._timing.silence]
        if self._waiting or self._begun or self._open:
            due.append(now + LOOK)
        if not session.writing and session.forgotten is None and len(self._open) < self._window:
            moments = [self._moment(job) for job in self._begun if not job.refused]
            if self._waiting and not self._closing:
                moments.append(max(self._next_slot, self._slow_until))
            due += moments
        return max(min(due) - now, 0.0)

    def _collect(self) -> None:
        """What other threads have left for this one."""
        with suppress(BlockingIOError):
            while self._ear.recv(4096):
                pass
        while self._inbox:
            waiter = self._inbox.popleft()
            if isinstance(waiter, Job):
                self._waiting.append(waiter)
            elif isinstance(waiter, Ping):
                self._pings.append(waiter)
        while self._stored:
            session, pdu, stored = self._stored.popleft()
            self._storing -= 1
            if pdu is not None:
                self._acknowledge(session, pdu, stored)

    def _enquire(self, session: Session, now: float) -> None:
        for ping in self._pings:
            self._enquiries[session.ask(smpp_wire.request("enquire_link"))] = ping
            session.enquired = now
        self._pings.clear()
        if now - session.enquired >= self._timing.enquire:
            session.ask(smpp_wire.request("enquire_link"))
            session.enquired = now
        session.flush()

    # --- submits --------------------------------------------------------------------------------

    def _moment(self, job: Job) -> float:
        """When the next part of a begun message may leave. A pace so slow that the message would not be complete
        in time gives way; whoever comes next waits for what was taken ahead."""
        in_time = job.last + self._timing.answer / 2 / len(job.pdus)
        return max(min(self._next_slot, in_time), self._slow_until, job.not_before)

    def _write(self, session: Session, now: float) -> None:
        """Submit whatever the window and the pace have room for."""
        while len(self._open) < self._window and not session.writing and session.forgotten is None:
            job = self._next_job(now)
            if job is None:
                return
            part = job.todo.pop(0)
            now = job.last = clock.monotonic()
            if self._interval:
                # A submit that is late by less than the system's own unrest keeps its place in the row.
                late = now - self._next_slot
                self._next_slot = (now if late > CATCH_UP else self._next_slot) + self._interval
            job.open += 1
            self._open[session.ask(job.pdus[part])] = Submit(job, part, now)
            session.flush()

    def _next_job(self, now: float) -> Job | None:
        """Begun messages first, then the one that has waited longest."""
        for job in list(self._begun):
            if job.finished:
                self._begun.remove(job)
            elif not job.refused and self._moment(job) <= now:
                if len(job.todo) == 1:
                    self._begun.remove(job)
                return job
        while self._waiting and not self._closing and max(self._next_slot, self._slow_until) <= now:
            job = self._waiting.popleft()
            if job.begin(self._timing.start):
                return job
        return None

    def _answered(self, session: Session, pdu: Pdu) -> None:
        submit = self._open.pop(pdu.sequence, None)
        if submit is None:
            self._answered_late(session, pdu)
            return
        job = submit.job
        job.open -= 1
        if pdu.status == smpp_wire.OK:
            session.proven = self._taken_since = True
            self._taken(job, submit.part, pdu)
        else:
            self._refused(job, submit, pdu.status)
            if pdu.status == smpp_errors.NOT_BOUND and pdu.status not in self._meanings:
                session.forgotten = session.forgotten or clock.monotonic()
        if job.finished:
            self._report(session, job)
        else:
            self._decide(job)

    def _answered_late(self, session: Session, pdu: Pdu) -> None:
        """An answer that comes after its message was called unclear still says that the part was taken."""
        submit = self._late.pop(pdu.sequence, None)
        if submit is not None and pdu.status == smpp_wire.OK:
            session.proven = self._taken_since = True
            self._taken(submit.job, submit.part, pdu)
            self._report(session, submit.job)

    def _report(self, session: Session, job: Job) -> None:
        """Say of an unclear message that it was taken after all, once that is known of its last part."""
        if not (job.unclear and job.whole and job.token) or self._receive is None:
            return
        facts = {"token": job.token, "ids": [job.ids[part] for part in range(len(job.pdus))]}
        marks = {RECEIVED_AT: str(clock.now())}
        self._storing += 1
        self._intake.put((session, None, RawCallback("SMPP", ANSWERED, {}, marks, json.dumps(facts).encode())))

    def _taken(self, job: Job, part: int, pdu: Pdu) -> None:
        try:
            if pdu.command == smpp_wire.NACK:
                raise Unreadable("a refusal without a reason")
            job.ids[part] = smpp_wire.message_id(pdu)
        except Unreadable as error:
            job.finish(Failure(UNSURE, "answer_unreadable", str(error)))

    def _refused(self, job: Job, submit: Submit, status: int) -> None:
        rule = smpp_errors.rule(status, self._meanings)
        if rule.slow_channel:
            self._slow_down(submit.at)
        wait = self._slow if rule.slow_channel else rule.wait
        failure = Failure(rule, smpp_errors.cause(status), smpp_wire.words(status), wait)
        if rule.outcome == LATER:
            job.again.append(submit.part)
        if job.refusal is None or job.refusal.rule.outcome == LATER:
            job.refusal = failure

    def _slow_down(self, written: float) -> None:
        """Too fast: a pause for all, longer when nothing at all was taken since the last one."""
        if written < self._slow_until:
            return  # of the same moment as the one that began the pause
        shortest, longest = self._timing.slow
        self._slow = shortest if self._taken_since else min(self._slow * 2, longest)
        self._taken_since = False
        self._slow_until = clock.monotonic() + self._slow

    def _decide(self, job: Job) -> None:
        """What the answers so far mean for the message as a whole."""
        if job.refusal is None:
            if job.whole:
                job.finish()
            elif job.todo and job not in self._begun:
                self._begun.append(job)
            return
        if job.open:
            return
        if not job.ids:
            job.finish(job.refusal)
        elif job.refusal.rule.outcome == LATER:
            job.todo = sorted(job.todo + job.again)
            job.not_before = clock.monotonic() + self._timing.slow[0]
            job.again, job.refusal = [], None
            if job not in self._begun:
                self._begun.append(job)
        else:
            job.finish(_partly(job, job.refusal.cause))

    def _look(self, now: float, session: Session | None) -> None:
        """End what has waited too long."""
        if now - self._looked < min(LOOK, self._timing.start / 4, self._timing.answer / 4):
            return
        self._looked = now
        while self._waiting and (self._waiting[0].finished or now - self._waiting[0].asked > self._timing.start):
            self._waiting.popleft().finish(self._too_late(now, session))
        for job in [job for job in self._begun if self._over(job, now)]:
            self._begun.remove(job)
            job.finish(_partly(job, "timeout") if job.ids else Failure(UNSURE, "timeout"))
        for sequence in [sequence for sequence, submit in self._open.items() if self._over(submit.job, now)]:
            submit = self._late[sequence] = self._open.pop(sequence)
            submit.job.open -= 1
            submit.job.finish(Failure(UNSURE, "timeout", "no answer to a submit"))
        while len(self._late) > FORGOTTEN:
            self._late.popitem(last=False)

    def _over(self, job: Job, now: float) -> bool:
        return job.finished or (job.left is not None and now - job.left > self._timing.answer)

    def _too_late(self, now: float, session: Session | None) -> Failure:
        """Why a message never came to its turn."""
        wait = max(self._next_slot, self._slow_until) - now
        if session is not None and wait > 0:
            return Failure(TOO_FAST, "smpp_0x58", "the pace of the channel", wait)
        return Failure(DOWN, "connect_failed", "the SMSC does not answer" if session else "the line was lost")

    def _lost(self, session: Session) -> None:
        """What was written has no answer any more; what was not waits for the next connection."""
        unwritten = set(session.unwritten())
        for sequence, submit in self._open.items():
            job = submit.job
            job.open -= 1
            if sequence not in unwritten:
                job.finish(Failure(UNSURE, "connection_lost", "no answer to a submit"))
            elif not job.finished:
                job.todo = sorted([*job.todo, submit.part])
        back = [s.job for sequence, s in self._open.items() if sequence in unwritten and not s.job.finished]
        self._open.clear()
        self._late.clear()
        for job in back:
            if job.ids and job not in self._begun:
                self._begun.append(job)
            elif not job.ids:
                job.left = None
                self._waiting.appendleft(job)
        for ping in self._enquiries.values():
            ping.finish(Failure(DOWN, "connect_failed", "the line was lost"))
        self._enquiries.clear()

    def _give_up(self, failure: Failure) -> None:
        """No connection: nobody waits for one."""
        self._collect()
        for job in self._waiting:
            job.finish(failure)
        for job in self._begun:
            job.finish(_partly(job, "connection_lost"))
        for ping in self._pings:
            ping.finish(failure)
        self._waiting.clear()
        self._begun.clear()
        self._pings.clear()

    # --- what comes in --------------------------------------------------------------------------

    def _came(self, session: Session, pdu: Pdu) -> None:
        if pdu.command == smpp_wire.DELIVER:
            self._deliver(session, pdu)
        elif pdu.command in (smpp_wire.SUBMIT | ANSWER, smpp_wire.NACK):
            self._answered(session, pdu)
        elif pdu.command == smpp_wire.ENQUIRE | ANSWER:
            ping = self._enquiries.pop(pdu.sequence, None)
            if ping is not None:
                ping.finish()
        elif pdu.command == smpp_wire.UNBIND:
            session.answer(smpp_wire.answer(pdu))
            session.flush()
            raise Lost("unbound by the SMSC")
        elif not pdu.command & ANSWER and pdu.command not in (smpp_wire.ALERT, smpp_wire.OUTBIND):
            session.answer(smpp_wire.answer(pdu))

    def _deliver(self, session: Session, pdu: Pdu) -> None:
        if self._receive is None or self._storing >= CROWD:
            session.answer(smpp_wire.answer(pdu, smpp_wire.TRY_AGAIN))
            return
        marks = {IDENTITY: self._repeats.identity(pdu, session), RECEIVED_AT: str(clock.now())}
        self._storing += 1
        self._intake.put((session, pdu, RawCallback("SMPP", "", {}, marks, pdu.octets)))

    def _storing_thread(self) -> None:
        receive = self._receive
        while receive is not None and (first := self._intake.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < TOGETHER and not self._intake.empty():
                item = self._intake.get()
                if item is None:
                    last = True
                    break
                batch.append(item)
            stored = False
            try:
                stored = receive([callback for _session, _pdu, callback in batch])
            except Exception:
                log.exception("what came in could not be stored")
            self._stored.extend((session, pdu, stored) for session, pdu, _callback in batch)
            self._ring()
            if last:
                return

    def _acknowledge(self, session: Session, pdu: Pdu, stored: bool) -> None:
        if session.ended is None:
            session.answer(smpp_wire.answer(pdu, smpp_wire.OK if stored else smpp_wire.TRY_AGAIN))
            self._repeats.answered(pdu, stored)

    # --- the end --------------------------------------------------------------------------------

    def _goodbye(self, session: Session, selector: selectors.BaseSelector) -> None:
        """Complete what has begun and let it have its answers, then unbind."""
        began = clock.monotonic()
        until = began + self._timing.goodbye * 0.75
        self._hurry((until - began) / 2)
        while (self._open or self._begun or self._storing) and (left := until - clock.monotonic()) > 0:
            self._turn(session, selector, left)
        session.bye(began + self._timing.goodbye - clock.monotonic(), lambda pdu: self._came(session, pdu))

    def _hurry(self, seconds: float) -> None:
        """A pace at which all begun messages can be complete within this time: half a message is worse than haste."""
        jobs = {id(job): job for job in (*self._begun, *(submit.job for submit in self._open.values()))}
        parts = sum(len(job.todo) for job in jobs.values() if not job.finished)
        if parts:
            self._interval = min(self._interval, seconds / parts)
            self._next_slot = min(self._next_slot, clock.monotonic() + self._interval)

    def _end(self) -> None:
        with self._lock:
            self._closing = self._ended = True  # as well when the thread ends by a fault of its own
        self._give_up(CLOSED)
        self._intake.put(None)
        self._bell.close()
        self._ear.close()


def _partly(job: Job, why: str) -> Failure:
    return Failure(UNSURE, PARTLY, f"{len(job.ids)} of {len(job.pdus)} parts were taken, then {why}")


class _Seen(NamedTuple):
    identity: str
    session: Session
    sequence: int
    at: float
    answered: float | None = None
    good: bool = False


class Repeats:
    """Tells a deliver_sm that is offered again from a person who says the same twice.

    A deliver_sm has no id of its own, and neither its number nor its bind outlive a reconnection. What the SMSC
    repeats is what it saw no good answer to: so the same content counts as a repeat while its first copy was
    refused, was answered late, or was answered just before the connection ended. Anything else is a new message.
    Kept in memory: after a crash between storing and answering a repeat shows twice, rather than not at all.
    """

    KEPT = 600.0  # seconds
    LATE = 5.0  # seconds after which an SMSC may have stopped waiting for our answer
    ON_THE_WAY = 10.0  # seconds before the end of a connection in which an answer may have been lost
    MOST = 2_000

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()

    def identity(self, pdu: Pdu, session: Session) -> str:
        """An id for what this PDU brings, the same as before for a repeat."""
        key = self._key(pdu)
        now = clock.monotonic()
        before = self._seen.pop(key, None)
        if before is not None and self._is_repeat(before, pdu, session, now):
            identity = before.identity
        else:
            identity = f"{key.hex()[:16]}-{secrets.token_hex(6)}"
        self._seen[key] = _Seen(identity, session, pdu.sequence, now)
        while len(self._seen) > self.MOST:
            self._seen.popitem(last=False)
        return identity

    def answered(self, pdu: Pdu, good: bool) -> None:
        """Our answer is on its way."""
        key = self._key(pdu)
        seen = self._seen.get(key)
        if seen is not None and seen.sequence == pdu.sequence:
            self._seen[key] = seen._replace(answered=clock.monotonic(), good=good)

    def _is_repeat(self, before: _Seen, pdu: Pdu, session: Session, now: float) -> bool:
        if now - before.at > self.KEPT:
            return False
        if before.session is session and before.sequence == pdu.sequence:
            return True
        if before.answered is None or not before.good:
            return before.answered is not None or before.session is not session or now - before.at >= self.LATE
        if before.answered - before.at >= self.LATE:
            return True
        ended = before.session.ended
        return before.session is not session and ended is not None and ended - before.answered < self.ON_THE_WAY

    @staticmethod
    def _key(pdu: Pdu) -> bytes:
        return sha256(pdu.octets[smpp_wire.HEAD :]).digest()
