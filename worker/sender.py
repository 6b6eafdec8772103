"""The sender of one worker process: claim, commit, send, store.

One thread owns the turns. Each turn is one durable transaction that stores every result received so
far and claims rows for the connections now free, as many as the throttle gives; only after the commit
do requests leave, from a pool of sender threads. Nothing waits for the slowest request. A row is
`sending` in the database before its first byte leaves, so a crash can make it uncertain, never twice.
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from worker import (
    breaker,
    broadcasts,
    canary,
    causes,
    channel_health,
    channels,
    clock,
    counters,
    db,
    delivery,
    lines,
    optouts,
    rendering,
    sieve,
    throttle,
)
from worker.latency import Latency
from worker.models import Broadcast, Channel, RecipientFile
from worker.providers import base
from worker.settings import Settings
from worker.states import move

log = logging.getLogger("molva.sender")

LEASE = 60 * clock.SECOND
STALE = 5.0  # seconds from claim to first byte after which a request is not started any more
STALE_PROBE = 45.0  # the same for a probe, before which the provider was asked whether it answers
TOKEN = 10  # random bytes of an attempt token
TRIES = 5  # postponements that count, for one message
TOO_OLD = clock.DAY  # a message that could not be handed over for so long has failed
IN_A_ROW = 10  # the same message-level refusal for so many people stops the broadcast
KEPT = 4  # a channel keeps the others from this part of its even share of the connections
CAUTIOUS = 10  # requests in flight until the run's first acceptance
# Seconds between two commits at the least, so that batches grow with the load: longer while there are free
# connections, when nothing is slowed by it.
TURN_GAP, TURN_GAP_AT_EASE = 0.005, 0.015
CATEGORY_AGE = 5.0  # seconds between two looks at a template's category
PAUSE = 0.2  # seconds between two looks at what may change at any moment
NOTE_EVERY = 0.5  # seconds between two notes of a broadcast's speed while it sends
IDLE = 0.5  # seconds between two looks when nothing is due
DRAIN = 40.0  # seconds; what is in flight has an answer or a timeout by then
LONGEST_PAUSE = 5.0  # seconds between two tries to store while the database cannot be written
# Seconds: the window that the typed rate speaks of, and what two messages may differ in on their way to the
# provider, where it is measured. Slots are as wide apart, so it costs nothing.
MINUTE = 60.0 + 0.25
JUMP = clock.MINUTE  # a clock that went back by more was set, not adjusted
# How much is looked at in one turn for those who may get their message now: others want to write, too.
LOOKED, LOOK = 2_000, 0.012  # rows of a broadcast, seconds for all of them
LOOK_STEP = 250  # rows looked at at once where some have to be passed over
BREATH = 0.02  # seconds until it looks on
# First those that were put off and whose time has come: a long list must not make them wait for its end.
_NEXT = (
    "SELECT * FROM (SELECT m.id, m.phone, m.row, m.tries,"
    " (SELECT o.id FROM opt_out o WHERE o.phone = m.phone AND o.scope IN (?, ?) LIMIT 1) FROM message m"
    " WHERE m.file_id = ? AND m.run = ? AND m.status = 'queued' AND {which} ORDER BY m.not_before, m.id LIMIT ?) AS due"
)
CLAIM, CLAIM_CANARY = (
    " UNION ALL ".join(
        (_NEXT.format(which="m.not_before BETWEEN 1 AND ?"), _NEXT.format(which=f"m.not_before {fresh} 0") + " LIMIT ?")
    )
    for fresh in ("<=", "<")  # those chosen for a canary stand below zero
)
BACKOFF = (5, 10, 20, 40, 80, 160, 300)


@dataclass(slots=True)
class Job:
    """One claimed message on its way."""

    id: int
    token: str
    run: int
    file_id: int
    phone: str
    cells: str | None
    tries: int
    lane: Lane
    renderer: Any
    provider: base.Provider
    epoch: int
    minute: int  # in which it counts for the channel's daily limit
    paced: bool  # whether its channel has a pace of its own
    departure: throttle.Departure = field(default_factory=throttle.Departure)
    probe: bool = False  # whether it leaves to see if the provider answers again
    claimed: float = field(default_factory=lambda: clock.monotonic())  # looked up when it is asked


@dataclass(slots=True)
class Result:
    """What became of a job. `action` is one of accept, hold, postpone, reject, lose."""

    job: Job
    action: str
    provider_id: str | None = None
    error: base.SendError | None = None
    parts: tuple[str, ...] = ()

    def alone(self) -> base.SendError:
        """What stops a broadcast, for a message that belongs to none."""
        assert self.error is not None, "only of a message that was refused"
        return base.SendError(
            base.REFUSED, self.error.cause, self.error.detail, http_status=self.error.http_status, about_message=True
        )


@dataclass(slots=True)
class Lane:
    """What a process remembers of one running broadcast; everything that must last is in the tables."""

    broadcast_id: int
    channel_id: int
    window: throttle.Window
    channel_window: throttle.Window
    epoch: int = -1
    run: int = 0
    text_version: int = 1
    content: rendering.Content | None = None
    stopped_by: tuple[str, str] = (optouts.ALL, optouts.ALL)  # the kinds of opt-out that keep its messages back
    direct: bool = False  # carries single messages, each of which stands alone
    renderers: dict[int, Any] = field(default_factory=dict)
    zone_columns: dict[int, int | None] = field(default_factory=dict)  # file → the column of its people's time zones
    in_flight: int = 0
    categorised: float = 0.0  # when its template's category was last looked at
    noted: float = 0.0  # when its speed was last written
    watched: float = 0.0  # when the slots were last looked at
    rest_until: float = 0.0  # nothing to claim before that
    confirmed: bool = False  # this run has had its first acceptance here
    same_cause: str | None = None
    same_count: int = 0
    departures: deque[float] = field(default_factory=deque)

    @property
    def memory(self) -> tuple[bool, str | None, int]:
        """What storing a result changes here besides the tables; set again where the transaction failed."""
        return self.confirmed, self.same_cause, self.same_count

    @memory.setter
    def memory(self, kept: tuple[bool, str | None, int]) -> None:
        self.confirmed, self.same_cause, self.same_count = kept


class Plan(NamedTuple):
    """One running broadcast as the transaction sees it."""

    id: int
    channel_id: int
    run: int
    epoch: int
    rate: int
    next_slot: int
    text_version: int
    waiting: str | None
    timezone: str
    quiet_from: int | None
    quiet_to: int | None
    cooldown_days: int | None
    canary: int | None

    @property
    def rules(self) -> sieve.Rules:
        return sieve.Rules(self.timezone, self.quiet_from, self.quiet_to, self.cooldown_days)


class ChannelPlan(NamedTuple):
    """One channel as the transaction sees it."""

    id: int
    per_second: float | None
    per_day: int | None
    next_slot: int
    slow_until: int
    state: str
    stop_reason: str | None
    recent: str
    opened_at: int | None
    probe_at: int
    settings: str
    secrets: bytes | None
    provider: str
    account: str
    vendor_limit: int | None

    @property
    def breaker(self) -> breaker.Breaker:
        return breaker.Breaker(self.recent, self.opened_at, self.probe_at)


class Gate(NamedTuple):
    """How many messages a channel takes now; else why not, and until when (ms)."""

    budget: int
    code: str = ""
    until: int = 0
    probe: bool = False


class Sender:
    """Sends for every running broadcast of the installation, from one process.

    `owner` is the id of this process in the worker table; it stands in every row that is claimed.
    """

    def __init__(self, settings: Settings, owner: int) -> None:
        self.settings = settings
        self.owner = owner
        self.providers = channels.Providers(settings)
        self.lines = lines.Lines(settings, self.providers)
        self.latency = Latency()
        self._inbox: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lanes: dict[int, Lane] = {}
        self._in_flight: dict[str, Job] = {}  # by token: a message that is sent again can be in flight twice
        self._unsure: list[Result] = []  # claims whose commit failed: surely not sent
        self._busy: Counter[int] = Counter()  # channel → connections in use
        self._windows: dict[tuple[str, int], throttle.Window] = {}  # of broadcasts and channels
        self._known: dict[
            int, tuple[tuple[str, bytes | None, float | None], base.Provider]
        ] = {}  # channel → by what, its Provider
        self._deltas: counters.Deltas = {}  # of the turn under way, written before they are read
        self._watched: dict[int, float] = {}  # channel → when its slots were last looked at
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._turns = 0
        self._dealt: dict[int, int] = {}  # channel → messages claimed here so far
        self._next_due = 0.0
        self._look_until = 0.0  # monotonic seconds, of the turn under way
        self._ahead = _wall_ahead()
        self._pace = throttle.ALONE if settings.senders == 1 else throttle.SHARED

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look at the tables at once. Any thread may call this."""
        self._inbox.put(None)

    def stop(self) -> None:
        """Claim nothing more, wait for what is in flight, store it."""
        self._stopping.set()
        self.wake()
        self._thread.join(DRAIN + 2)
        for _ in self._threads:
            self._jobs.put(None)
        self.lines.close()

    @property
    def alive(self) -> bool:
        """Whether the turns go on; they end only by `stop`."""
        return self._thread.is_alive()

    def owned(self) -> set[int]:
        """The ids of the messages that are in flight here."""
        return {job.id for job in list(self._in_flight.values())}

    def _run(self) -> None:
        results: list[Result] = []
        deadline = 0.0
        failures = 0
        again = 0.0
        with db.connection():
            while True:
                results += self._collect(self._pause(results, again))
                if self._stopping.is_set():
                    deadline = deadline or clock.monotonic() + DRAIN
                    if (not self._in_flight and not results) or clock.monotonic() > deadline:
                        return
                began = clock.monotonic()
                if began < again:
                    continue  # results come in meanwhile; storing them is tried when its time has come
                try:
                    self._heed_the_clock()
                    jobs = self._turn(results)
                except Exception as error:
                    # Locked or full: keep the results, look again soon. A fault of our own must not end it either.
                    failures += 1
                    again = clock.monotonic() + min(0.2 * 2 ** min(failures, 10), LONGEST_PAUSE)
                    known = isinstance(error, db.FAILURES)
                    log.error("storing failed (%s), try %d", type(error).__name__, failures, exc_info=not known)
                    if not known:
                        results = self._store_apart(results)
                    continue
                failures = 0
                results = []
                for job in jobs:
                    self._dispatch(job)
                at_ease = self._busy.total() < self.settings.concurrency * 0.8
                left = (TURN_GAP_AT_EASE if at_ease else TURN_GAP) - (clock.monotonic() - began)
                if left > 0 and jobs:
                    clock.sleep(left)

    def _heed_the_clock(self) -> None:
        """See whether somebody has set the clock back; one process of several moves what waits."""
        ahead = _wall_ahead()
        by = self._ahead - ahead
        if abs(by) > JUMP and delivery.take_jump(ahead):
            log.warning("the clock was set by %+d s", -by // 1000)
            if by > 0:
                delivery.clock_set_back(by)
        self._ahead = ahead

    def _pause(self, results: Sequence[Result], again: float) -> float:
        """Seconds for which nothing but a result needs a look; `again` is when a failed turn is tried anew."""
        now = clock.monotonic()
        if now < again:
            return again - now
        return 0.0 if results else max(0.0, min(self._next_due - now, IDLE))

    def _collect(self, wait: float) -> list[Result]:
        """Every result there is; waits up to `wait` seconds for the first one or a wake-up."""
        found: list[Result] = []
        try:
            first = self._inbox.get(timeout=wait) if wait > 0 else self._inbox.get_nowait()
            while True:
                if first is None:
                    for lane in self._lanes.values():
                        lane.rest_until = 0.0
                else:
                    found.append(first)
                first = self._inbox.get_nowait()
        except queue.Empty:
            return found

    # --- one turn -------------------------------------------------------------------------------

    def _turn(self, results: Sequence[Result]) -> list[Job]:
        """One transaction: store `results`, claim what is due. The claimed jobs may leave once it returns."""
        self._next_due = clock.monotonic() + IDLE
        if not results and not self._unsure and not self._wants():
            return []
        self._unsure = self._claimed_after_all(self._unsure)
        stored = [*results, *self._unsure]
        mine = [result.job for result in results if result.job.token in self._in_flight]
        memories = [(lane, lane.memory) for lane in self._lanes.values()]
        jobs: list[Job] = []
        self._take_connections(mine, -1)  # they are free for what is claimed in the same turn
        try:
            with db.write():
                self._deltas = {}
                self._store(stored)
                if not self._stopping.is_set():
                    jobs = self._claim()
                self._write_deltas()
        except BaseException:
            # The outcome of the commit is unknown: what was claimed here must not leave.
            self._take_connections(mine, 1)
            for lane, memory in memories:
                lane.memory = memory
            for job in jobs:
                job.departure.void = True
                self._unsure.append(Result(job, "postpone"))
            raise
        self._unsure = []
        now = clock.monotonic()
        self.latency.add((job.lane.channel_id, now - job.claimed) for job in mine)
        for job in mine:
            del self._in_flight[job.token]
        for job in jobs:
            self._in_flight[job.token] = job
            job.lane.window.add(job.departure)
            if job.paced:
                job.lane.channel_window.add(job.departure)
        self._take_connections(jobs, 1)
        return jobs

    def _store_apart(self, results: Sequence[Result]) -> list[Result]:
        """Store each result by itself, after something in them could not be stored; those that wait for a disk.

        Nobody else must wait for the one at fault. It becomes uncertain, and if even that cannot be written,
        its row is left to the recovery, which makes it so.
        """
        left = []
        for result in results:
            lost = Result(result.job, "lose", error=base.SendError(base.UNCLEAR, "internal"))
            memory = result.job.lane.memory
            for tried in (result, lost, None):
                try:
                    with db.write():
                        self._deltas = {}
                        if tried is not None:
                            self._store([tried])
                        self._write_deltas()
                except Exception as error:
                    result.job.lane.memory = memory
                    if isinstance(error, db.FAILURES):
                        left.append(result)
                        break
                    log.exception("the result of message %d cannot be stored", result.job.id)
                    continue
                if self._in_flight.pop(result.job.token, None) is not None:
                    self._take_connections([result.job], -1)
                break
            else:
                left.append(result)  # not even nothing could be written, so it is the storage
        return left

    def _claimed_after_all(self, unsure: list[Result]) -> list[Result]:
        """Those of the claims whose commit failed that stand in the table nevertheless."""
        found = []
        for result in unsure:
            token = db.value("SELECT token FROM message WHERE id = ? AND status = 'sending'", [result.job.id])
            if token == result.job.token:
                found.append(result)
        return found

    def _count(self, key: tuple[int, int, int], before: str, after: str, n: int = 1) -> None:
        """Note that `n` messages went from one status to another; the counters learn it before the commit."""
        counters.move(self._deltas, key, before, after, n)

    def _write_deltas(self) -> None:
        deltas, self._deltas = self._deltas, {}
        counters.add(deltas)

    def _take_connections(self, jobs: Sequence[Job], change: int) -> None:
        """Count the connections in use: 1 takes those of `jobs`, -1 gives them back."""
        for job in jobs:
            job.lane.in_flight += change
            self._busy[job.lane.channel_id] += change

    def _window(self, noun: str, id_: int) -> throttle.Window:
        return self._windows.setdefault((noun, id_), throttle.Window())

    def _wants(self) -> bool:
        """Whether a transaction is worth opening: some running broadcast has a slot due, or needs a look."""
        if self._stopping.is_set():
            return False
        now, now_us, wanted = clock.monotonic(), clock.now_us(), False
        for plan in self._plans():
            lane = self._lanes.get(plan.id)
            if lane is None or lane.epoch != plan.epoch:
                return True
            if lane.rest_until > now:
                self._next_due = min(self._next_due, lane.rest_until)
                continue
            step = self._pace.interval(plan.rate)
            ahead = (plan.next_slot - now_us) / 1e6
            if ahead > 0 and ahead * 1e6 <= step + throttle.JUMP:
                self._next_due = min(self._next_due, now + ahead)
                continue
            wanted = True
        return wanted and self._busy.total() < self.settings.concurrency

    def _plans(self) -> list[Plan]:
        return [
            Plan(*row)
            for row in db.rows(
                "SELECT id, channel_id, run, epoch, rate_per_minute, next_slot, text_version, waiting, timezone,"
                " quiet_from, quiet_to, cooldown_days, canary"
                " FROM broadcast WHERE state = 'running' AND channel_id IS NOT NULL ORDER BY id"
            )
        ]

    def _claim(self) -> list[Job]:
        """Claim for every running broadcast, channel by channel, inside the transaction."""
        self._look_until = clock.monotonic() + LOOK
        plans = self._plans()
        for gone in set(self._lanes) - {plan.id for plan in plans}:
            if self._lanes[gone].in_flight == 0:
                del self._lanes[gone]
        if self._turns % 10_000 == 0:
            self._forget_windows()
        by_channel: dict[int, list[Plan]] = {}
        for plan in plans:
            by_channel.setdefault(plan.channel_id, []).append(plan)
        self._turns += 1
        kept = max(1, self.settings.concurrency // (KEPT * len(by_channel))) if by_channel else 0
        jobs: list[Job] = []
        for channel_id, members in by_channel.items():
            # Every channel may take what is free, but for a few connections that another one can count on:
            # a provider that does not answer must not hold them all.
            cap = self.settings.concurrency - (len(by_channel) - 1) * kept
            free = min(max(1, cap) - self._busy[channel_id], self.settings.concurrency - self._busy.total() - len(jobs))
            jobs += self._claim_channel(channel_id, members, max(0, free))
        return jobs

    def _forget_windows(self) -> None:
        now = clock.monotonic()
        for key, window in list(self._windows.items()):
            window.free(0, 3_600, now)
            used = any(window in (lane.window, lane.channel_window) for lane in self._lanes.values())
            if not len(window) and not used:
                del self._windows[key]

    def _claim_channel(self, channel_id: int, plans: list[Plan], free: int) -> list[Job]:
        channel = _channel(channel_id)
        lanes = [self._lane(plan) for plan in plans]
        if not self.lines.may_send(channel_id, channel.provider):
            for lane in lanes:
                self._rest(lane, PAUSE)  # the process that keeps the line sends
            return []
        now_ms, now_us = clock.now(), clock.now_us()
        gate = self._gate(channel, lanes, free, now_ms)
        if gate.code:
            for plan, lane in zip(plans, lanes, strict=True):
                if not self._ends(plan):
                    self._rest(lane, max(PAUSE, (gate.until - now_ms) / 1000))
                    self._say(plan, {"code": gate.code, "until": gate.until})
            return []
        provider = self._provider(channel, lanes) if gate.budget else None
        if provider is None:
            return []
        budget = gate.budget
        if (most := provider.most()) is not None:
            budget = max(0, min(budget, most - self._busy[channel_id]))
        channel_slot = channel_step = 0
        if channel.per_second:
            channel_step = self._pace.interval(channel.per_second * 60)
            channel_slot = self._channel_slot(channel, channel_step, now_us)
            budget = min(budget, self._due(channel_slot, channel_step, now_us))
            seconds = max(1.0, 1 / channel.per_second)
            window = self._window("channel", channel_id)
            budget = min(budget, self._free(window, max(1, int(channel.per_second * seconds)), seconds))
        slots = [self._slot(plan, lane, now_us) for plan, lane in zip(plans, lanes, strict=True)]
        demands = [
            0 if lane.rest_until > clock.monotonic() else self._demand(plan, lane, slot, now_us)
            for plan, lane, slot in zip(plans, lanes, slots, strict=True)
        ]
        # Who begins goes round with what was dealt: a count of turns beats in time with the answers.
        dealt = self._dealt.get(channel_id, 0)
        jobs: list[Job] = []
        reserved: list[tuple[int, int]] = []
        for plan, lane, slot, n in zip(plans, lanes, slots, throttle.share(demands, budget, dealt), strict=True):
            if n == 0:
                continue
            taken = self._claim_rows(plan, lane, provider, bool(channel_step), n, now_ms)
            if taken:
                if plan.waiting is not None and not gate.probe:
                    self._say(plan, None)  # one message to see whether they may leave is no end of waiting
                following = slot + self._pace.interval(plan.rate) * len(taken)
                reserved.append((following, plan.id))
                self._look_at(following, now_us)
            jobs += taken
        db.many("UPDATE broadcast SET next_slot = ? WHERE id = ?", reserved)
        self._dealt[channel_id] = dealt + len(jobs)
        if jobs:
            following = channel_slot + channel_step * len(jobs)
            if channel_step:
                self._look_at(following, now_us)
            self._left(channel, gate, jobs, following if channel_step else None, now_ms)
        return jobs

    def _provider(self, channel: ChannelPlan, lanes: Sequence[Lane]) -> base.Provider | None:
        """The Provider of a channel; a channel whose settings cannot be used stops with its broadcasts."""
        mark = (channel.settings, channel.secrets, channel.per_second)
        known = self._known.get(channel.id)
        # Another thread may have made a new one meanwhile, and closed this.
        if known is not None and known[0] == mark and self.providers.holds(channel.id, known[1]):
            return known[1]
        try:
            provider = self.providers.get(Channel.get_by_id(channel.id))
            self._known[channel.id] = (mark, provider)
            return provider
        except db.FAILURES:
            raise
        except Exception as error:
            log.exception("channel %d cannot be used", channel.id)
            self._halt(lanes[0], base.SendError(base.STOP_CHANNEL, "settings_invalid", type(error).__name__))
            return None

    def _look_at(self, slot: int, now_us: int) -> None:
        """Take the next turn when this slot (µs) comes, if nothing else happens before."""
        self._next_due = min(self._next_due, clock.monotonic() + (slot - now_us) / 1e6)

    def _due(self, slot: int, step: int, now_us: int) -> int:
        """How many slots have come; the next turn is taken when the first one comes if none has."""
        n = throttle.due(slot, step, now_us)
        if n == 0:
            self._look_at(slot, now_us)
        return n

    def _free(self, window: throttle.Window, limit: int, seconds: float) -> int:
        """How many may leave by what really left; the next turn is taken when that changes if none may."""
        now = clock.monotonic()
        n = window.free(limit, seconds, now)
        if n == 0:
            self._next_due = min(self._next_due, max(window.frees_at(seconds, now), now + TURN_GAP))
        return n

    def _gate(self, channel: ChannelPlan, lanes: Sequence[Lane], free: int, now: int) -> Gate:
        """What the channel as a whole allows: its state, its provider's wish, the circuit breaker, the daily limit."""
        if channel.state != "on":
            # A start that was set for later, or a message sent again, finds it as it was left.
            broadcasts.stop_all(channel.id, channel.stop_reason or "")
            return Gate(0)
        if channel.slow_until > now:
            return Gate(0, "provider_asked", channel.slow_until)
        open_ = channel.breaker
        busy = self._busy[channel.id] > 0
        if open_.is_hopeless(now) and not busy:
            # Half an hour of probes that all failed: from here on only a person can know.
            cause = "timeout" if open_.recent.endswith(breaker.UNCLEAR) else "connect_failed"
            self._halt(lanes[0], base.SendError(base.STOP_CHANNEL, cause))
            return Gate(0)
        if open_.is_open:
            if busy or not open_.is_due(now):
                return Gate(0, "breaker", open_.probe_at)
            return Gate(min(free, 1), probe=True)
        for room in channel_health.rooms(
            channel.id, channel.provider, channel.account, channel.per_day, channel.vendor_limit, now
        ):
            if not room.left:
                return Gate(0, "daily_limit", room.frees_at)
            free = min(free, room.left)
        return Gate(free)

    def _left(self, channel: ChannelPlan, gate: Gate, jobs: Sequence[Job], slot: int | None, now: int) -> None:
        """Note what leaves on a channel: its next slot, the day's number, the time of the next probe."""
        db.execute(
            "INSERT INTO departure (channel_id, minute, n) VALUES (?, ?, ?)"
            " ON CONFLICT (channel_id, minute) DO UPDATE SET n = departure.n + excluded.n",
            [channel.id, now // clock.MINUTE, len(jobs)],
        )
        if self._turns % 1_000 == 0:
            db.execute("DELETE FROM departure WHERE minute < ?", [now // clock.MINUTE - channel_health.DAY])
        if slot is not None:
            db.execute("UPDATE channel SET next_slot = ? WHERE id = ?", [slot, channel.id])
        if gate.probe:
            for job in jobs:
                job.probe = True
            db.execute(
                "UPDATE channel SET probe_at = ? WHERE id = ?", [channel.breaker.probed(now).probe_at, channel.id]
            )

    def _slot(self, plan: Plan, lane: Lane, now_us: int) -> int:
        """The broadcast's next slot; a little of the past counts only while this process kept watching."""
        now = clock.monotonic()
        credit = self._pace.credit_since(lane.watched, now)
        lane.watched = now
        slot = throttle.anchor(plan.next_slot, self._pace.interval(plan.rate), now_us, credit)
        if slot < plan.next_slot:
            # The clock was set back. Kept, or the slot would stay one step ahead of every look at it.
            db.execute("UPDATE broadcast SET next_slot = ? WHERE id = ?", [slot, plan.id])
        return slot

    def _channel_slot(self, channel: ChannelPlan, step: int, now_us: int) -> int:
        """The channel's next slot, by the same rules."""
        now = clock.monotonic()
        credit = self._pace.credit_since(self._watched.get(channel.id, 0.0), now)
        self._watched[channel.id] = now
        slot = throttle.anchor(channel.next_slot, step, now_us, credit)
        if slot < channel.next_slot:
            db.execute("UPDATE channel SET next_slot = ? WHERE id = ?", [slot, channel.id])
        return slot

    def _demand(self, plan: Plan, lane: Lane, slot: int, now_us: int) -> int:
        step = self._pace.interval(plan.rate)
        n = self._due(slot, step, now_us)
        if n == 0 and step > 5_000_000:
            self._say(plan, {"code": "rate", "until": slot // 1000})
        if n:
            n = min(n, self._free(lane.window, plan.rate, MINUTE))
        if not lane.confirmed:
            n = min(n, CAUTIOUS - lane.in_flight)
        return max(0, n)

    def _lane(self, plan: Plan) -> Lane:
        lane = self._lanes.get(plan.id)
        if lane is None or lane.channel_id != plan.channel_id:
            # What is in flight by another channel keeps the lane that it left by.
            windows = self._window("broadcast", plan.id), self._window("channel", plan.channel_id)
            lane = self._lanes[plan.id] = Lane(plan.id, plan.channel_id, *windows)
        if lane.epoch != plan.epoch or lane.text_version != plan.text_version:
            broadcast = Broadcast.get_by_id(plan.id)
            lane.content = broadcasts.content(broadcast)
            lane.direct = broadcast.kind == broadcasts.DIRECT
            lane.categorised = 0.0
            lane.renderers, lane.zone_columns = {}, {}
            lane.epoch, lane.run, lane.text_version = plan.epoch, plan.run, plan.text_version
            lane.rest_until, lane.same_count = 0.0, 0
            lane.confirmed = False
        if clock.monotonic() - lane.categorised > CATEGORY_AGE:
            # The vendor may call a template marketing while its broadcast runs.
            marketing = broadcasts.is_marketing(Broadcast.get_by_id(plan.id))
            lane.stopped_by = optouts.ALL, optouts.MARKETING if marketing else optouts.ALL
            if lane.direct:  # a person has decided about each
                lane.stopped_by = "", ""
            lane.categorised = clock.monotonic()
        return lane

    def _rest(self, lane: Lane, seconds: float) -> None:
        lane.rest_until = clock.monotonic() + min(seconds, 1.0)
        self._next_due = min(self._next_due, lane.rest_until)

    def _say(self, plan: Plan, waiting: dict[str, Any] | None) -> None:
        """Keep why the broadcast waits, for the page; written only when it changes."""
        text = json.dumps(waiting, separators=(",", ":")) if waiting else None
        if text != plan.waiting:
            db.execute("UPDATE broadcast SET waiting = ? WHERE id = ?", [text, plan.id])

    def _claim_rows(self, plan: Plan, lane: Lane, provider: base.Provider, paced: bool, n: int, now: int) -> list[Job]:
        """queued → sending for up to `n` rows of the files that may send, passing over whom nothing may be sent to."""
        jobs: list[Job] = []
        if lane.content is None:
            broadcasts.stop_by_itself(plan.id, "content_missing")
            return jobs
        claim = CLAIM if plan.canary is None else CLAIM_CANARY
        looked = 0
        sifting = sieve.Sieve(
            plan.rules,
            now,
            lane.zone_columns,
            lambda file_id, skipped: self._count((plan.id, plan.run, file_id), "queued", "skipped", skipped),
        )
        for (file_id,) in db.rows(
            f"SELECT id FROM recipient_file f WHERE broadcast_id = ? AND {sieve.SENDABLE} ORDER BY id",  # noqa: S608
            [plan.id],
        ):
            renderer = self._renderer(lane, file_id)
            if renderer is None:
                # Nothing of this list can be written; the other broadcasts must not wait for somebody to see it.
                broadcasts.stop_by_itself(plan.id, "content_missing")
                return jobs
            while len(jobs) < n:
                if sifting.passed and (looked >= LOOKED or clock.monotonic() > self._look_until):
                    self._rest(lane, BREATH)
                    return jobs
                wanted = n - len(jobs)
                step = max(wanted, LOOK_STEP) if sifting.passed else wanted
                of_file = [*lane.stopped_by, file_id, plan.run]
                found = [sieve.Queued(*row) for row in db.rows(claim, [*of_file, now, step, *of_file, step, step])]
                rows = sifting.sift(file_id, found)[:wanted]
                looked += len(found)
                jobs += self._take(plan, lane, renderer, provider, paced, file_id, rows, now)
                if len(found) < step:
                    break
        if not jobs:
            self._nothing(plan, lane, now)
        return jobs

    def _take(
        self,
        plan: Plan,
        lane: Lane,
        renderer: Any,
        provider: base.Provider,
        paced: bool,
        file_id: int,
        rows: Sequence[sieve.Queued],
        now: int,
    ) -> list[Job]:
        if not rows:
            return []
        minute = now // clock.MINUTE
        chance = secrets.token_hex(TOKEN * len(rows))
        jobs = [
            Job(
                id_,
                f"{id_}.{chance[n * 2 * TOKEN : (n + 1) * 2 * TOKEN]}",
                plan.run,
                file_id,
                phone,
                cells,
                tries,
                lane,
                renderer,
                provider,
                plan.epoch,
                minute,
                paced,
            )
            for n, (id_, phone, cells, tries, _opt_out) in enumerate(rows)
        ]
        db.many(
            "UPDATE message SET status = 'sending', token = ?, owner = ?, lease_until = ?, sending_at = ?,"
            " text_version = ?, cause = NULL, cause_text = NULL WHERE id = ? AND status = 'queued'",
            [(job.token, self.owner, now + LEASE, now, plan.text_version, job.id) for job in jobs],
        )
        self._count((plan.id, plan.run, file_id), "queued", "sending", len(jobs))
        return jobs

    def _renderer(self, lane: Lane, file_id: int) -> Any:
        renderer = lane.renderers.get(file_id)
        if renderer is None and lane.content is not None:
            columns = RecipientFile.get_by_id(file_id).columns
            try:
                renderer = lane.renderers[file_id] = lane.content.bind(columns)
            except Exception:
                log.exception("file %d does not fit its broadcast", file_id)
        return renderer

    def _nothing(self, plan: Plan, lane: Lane, now: int) -> None:
        """Nothing can be claimed: ended, or waiting for something that can be named."""
        if self._ends(plan):
            return
        lane.watched = 0.0  # slots that pass with nobody to send to are no credit
        later = sieve.put_off(plan.id, plan.run, now)
        if later is not None:
            self._say(plan, {"code": later.code, "until": later.until})
            self._rest(lane, (later.until - now) / 1000)
            return
        checking = db.value(
            "SELECT 1 FROM recipient_file WHERE broadcast_id = ? AND state = 'checking' AND removed_at IS NULL",
            [plan.id],
        )
        self._say(plan, {"code": "file_checking"} if checking else None)
        self._rest(lane, 0.2)

    def _ends(self, plan: Plan) -> bool:
        """Whether the broadcast has finished, or stopped because its canary is through."""
        return self._finish(plan) or (plan.canary is not None and self._stop_canary(plan, plan.canary))

    def _stop_canary(self, plan: Plan, n: int) -> bool:
        """running → stopped when nobody of the canary is queued or sending any more."""
        sending = broadcasts.count(Broadcast(id=plan.id), plan.run)["sending"]
        if sending or not canary.is_through(plan.id, plan.run):
            return False
        return broadcasts.stop_by_itself(plan.id, canary.THROUGH, n=n)

    def _finish(self, plan: Plan) -> bool:
        """running → finished when no row is queued or sending, no file is being checked, no copy under way."""
        self._write_deltas()
        numbers = broadcasts.count(Broadcast(id=plan.id), plan.run)
        if broadcasts.left(numbers):
            return False
        busy = db.value(
            "SELECT 1 FROM run WHERE broadcast_id = ? AND number = ? AND NOT copied"
            " UNION ALL SELECT 1 FROM recipient_file WHERE broadcast_id = ? AND state = 'checking'"
            " AND removed_at IS NULL LIMIT 1",
            [plan.id, plan.run, plan.id],
        )
        if busy or not broadcasts.advance(plan.id, "finish", canary=None):
            return False
        db.execute(
            "UPDATE run SET finished_at = ? WHERE broadcast_id = ? AND number = ?", [clock.now(), plan.id, plan.run]
        )
        return True

    # --- results --------------------------------------------------------------------------------

    def _store(self, results: Sequence[Result]) -> None:
        """Write what became of the jobs, matched by id and token, with the counters, inside the transaction."""
        if not results:
            return
        known: dict[int, tuple[str, str, int | None]] = {}
        ids = [result.job.id for result in results]
        for at in range(0, len(ids), 500):
            these, values = db.among("id", ids[at : at + 500])
            for id_, status, token, postponed in db.rows(
                f"SELECT id, status, token, postponed_at FROM message WHERE {these}",  # noqa: S608
                values,
            ):
                known[id_] = (status, token, postponed)
        writer = _Writer(clock.now(), self._count)
        for result in results:
            found = known.get(result.job.id)
            if found is not None:
                self._judge(writer, result, *found)
        writer.flush()
        self._give_back(results)
        self._feel(results, writer.now)
        self._departed(writer.sent, writer.now)

    def _give_back(self, results: Sequence[Result]) -> None:
        """What was surely not sent counts neither for the channel's day nor, if nothing left at all, for the rate."""
        unsent: Counter[tuple[int, int]] = Counter()
        for result in results:
            job = result.job
            if result.action == "postpone":
                unsent[job.lane.channel_id, job.minute] += 1
            if job.departure.at is None and not job.departure.void:
                job.lane.window.drop(job.departure)
                if job.paced:
                    job.lane.channel_window.drop(job.departure)
        for (channel_id, minute), n in unsent.items():
            db.execute(
                "UPDATE departure SET n = MAX(0, n - ?) WHERE channel_id = ? AND minute = ?", [n, channel_id, minute]
            )

    def _feel(self, results: Sequence[Result], now: int) -> None:
        """Tell the circuit breakers how the channels answer."""
        felt: dict[int, list[tuple[str, bool]]] = {}
        for result in results:
            if (mark := _mark(result)) is not None:
                felt.setdefault(result.job.lane.channel_id, []).append((mark, result.job.probe))
        for channel_id, marks in felt.items():
            before = _channel(channel_id).breaker
            after = before.after(marks, now)
            if after == before:
                continue
            db.execute(
                "UPDATE channel SET recent = ?, opened_at = ?, probe_at = ? WHERE id = ?",
                [after.recent, after.opened_at, after.probe_at, channel_id],
            )
            if after.is_open != before.is_open:
                log.warning("channel %d: circuit breaker %s", channel_id, "open" if after.is_open else "closed")
                self.wake()

    def _judge(self, writer: _Writer, result: Result, status: str, token: str, postponed: int | None) -> None:
        """Decide what one result changes."""
        job, error, action = result.job, result.error, result.action
        if token != job.token:
            writer.attempt(job, "late", error)  # the row has a newer try; this one stays on record
            return
        lane = job.lane
        if lane.direct and error is not None and error.outcome == base.STOP_BROADCAST:
            # There is nobody else whom it would spare.
            action, error = "reject", result.alone()
        if error is not None and error.outcome in (base.STOP_BROADCAST, base.STOP_CHANNEL) and self._is_current(job):
            self._halt(lane, error)
        not_before = 0
        if action == "postpone" and error is not None and error.outcome == base.LATER:
            action = self._within_budget(job, error, writer.now, postponed)
            not_before = writer.now + self._pause_after(job, error)
            if error.slow_channel:
                db.execute(
                    "UPDATE channel SET slow_until = MAX(slow_until, ?) WHERE id = ?", [not_before, lane.channel_id]
                )
        if action == "reject" and error is not None and error.cause in causes.OPTS_OUT:
            optouts.record(job.phone, "provider", error.cause, lane.channel_id, causes.OPTS_OUT[error.cause])
        self._count_row(lane, action, error)
        if action == "stop" and lane.direct:
            action = "reject"
        if action == "stop":
            self._halt(
                lane, base.SendError(base.STOP_BROADCAST, error.cause if error else "", error.detail if error else "")
            )
            action = "postpone"
        writer.result(job, action, status, result.provider_id, error, not_before)
        if len(result.parts) > 1 and action in ("accept", "hold"):
            writer.parts(job, result.parts)

    def _is_current(self, job: Job) -> bool:
        """Whether nobody has stopped, mended and resumed the broadcast since this message was claimed."""
        return bool(db.value("SELECT epoch FROM broadcast WHERE id = ?", [job.lane.broadcast_id]) == job.epoch)

    def _within_budget(self, job: Job, error: base.SendError, now: int, postponed: int | None) -> str:
        """postpone while tries and time are left, else what the failure then means."""
        if postponed is not None and now - postponed > TOO_OLD:
            return "reject"
        budget = TRIES if error.budget is None else error.budget
        if _counts(job, error) and job.tries >= budget:
            return "stop" if error.then == base.STOP_BROADCAST else "reject"
        return "postpone"

    def _pause_after(self, job: Job, error: base.SendError) -> int:
        """Milliseconds until a message that was surely not sent is tried again: longer each time."""
        wait = error.retry_after
        if wait is None:
            before = int(db.value("SELECT COUNT(*) FROM attempt WHERE message_id = ?", [job.id]))
            wait = BACKOFF[min(before, len(BACKOFF) - 1)] * (0.8 + secrets.randbelow(400) / 1000)
        return int(wait * 1000)

    def _count_row(self, lane: Lane, action: str, error: base.SendError | None) -> None:
        """The ten-in-a-row rule: the same refusal of the message for ten people stops the broadcast."""
        if action in ("accept", "hold"):
            lane.confirmed, lane.same_count = True, 0
        elif action == "reject" and error is not None:
            lane.confirmed = lane.confirmed or not error.about_message
            if not error.about_message:
                return
            lane.same_count = lane.same_count + 1 if lane.same_cause == error.cause else 1
            lane.same_cause = error.cause
            if lane.same_count >= IN_A_ROW and not lane.direct:
                broadcasts.stop_by_itself(lane.broadcast_id, "same_error", cause=error.cause, n=IN_A_ROW)
        elif action == "lose":
            lane.confirmed = True

    def _halt(self, lane: Lane, error: base.SendError) -> None:
        """Stop the broadcast, or the channel with all its running broadcasts, with the cause."""
        if error.outcome == base.STOP_BROADCAST:
            broadcasts.stop_by_itself(lane.broadcast_id, "refused", cause=error.cause, text=error.detail)
            return
        channels.stop(lane.channel_id, error.cause, error.detail)
        broadcasts.stop_all(lane.channel_id, error.cause, error.detail)

    def _departed(self, sent: Mapping[int, int], now: int) -> None:
        """Keep the time of the last message and the number that left in the last minute."""
        notes = []
        for broadcast_id, n in sent.items():
            lane = self._lanes.get(broadcast_id)
            if lane is None:
                notes.append((now, n, broadcast_id))
                continue
            at = clock.monotonic()
            lane.departures.extend([at] * n)
            while lane.departures and lane.departures[0] < at - 60:
                lane.departures.popleft()
            if at - lane.noted < NOTE_EVERY and lane.in_flight:
                continue
            lane.noted = at
            span = max(at - lane.departures[0], 1.0) if len(lane.departures) > 1 else 60.0
            notes.append((now, round(len(lane.departures) * 60 / span), broadcast_id))
        db.many("UPDATE broadcast SET last_sent_at = ?, speed = ? WHERE id = ?", notes)

    # --- sender threads -------------------------------------------------------------------------

    def _dispatch(self, job: Job) -> None:
        if len(self._threads) < min(len(self._in_flight), self.settings.concurrency):
            thread = threading.Thread(target=self._work, name=f"send-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._inbox.put(self._send(job))

    def _send(self, job: Job) -> Result:
        """Hand one message to its provider. Whatever happens, one Result comes back."""
        base.left_at()
        try:
            result = self._handed_over(job)
        except Exception:
            # A fault of our own. Before the provider was called it is known that nothing has left.
            log.exception("a message cannot be sent")
            result = Result(job, "reject", error=base.SendError(base.REFUSED, "internal", about_message=True))
        # Where a transport does not say when a message left, the end of the call counts.
        at = base.left_at()
        if at is None and result.action != "postpone":
            at = clock.monotonic()
        job.departure.at = at
        return result

    def _handed_over(self, job: Job) -> Result:
        if job.probe:
            try:
                job.provider.ping()
            except base.SendError as error:
                return Result(job, "postpone", error=_not_risked(error))
        if clock.monotonic() - job.claimed > (STALE_PROBE if job.probe else STALE):
            # The process was stopped or the machine slept: an operator may already have decided.
            return Result(job, "postpone")
        try:
            out = outgoing(job.renderer, job.phone, job.cells, job.token)
        except rendering.RowError as error:
            return Result(job, "reject", error=base.SendError(base.REFUSED, error.code, about_message=True))
        try:
            accepted = job.provider.send(out)
        except base.SendError as error:
            return Result(job, _ACTIONS[error.outcome], error=error)
        except Exception:
            log.exception("provider failed")
            return Result(job, "lose", error=base.SendError(base.UNCLEAR, "internal"))
        identity = None if accepted.provider_id is None else base.clean(accepted.provider_id)
        parts = tuple(map(base.clean, accepted.parts))
        return Result(job, "hold" if accepted.held else "accept", identity, parts=parts)


def _wall_ahead() -> int:
    """Milliseconds by which the clock on the wall is ahead of the one that never jumps."""
    return clock.now() - round(clock.monotonic() * 1000)


def _counts(job: Job, error: base.SendError) -> bool:
    """Whether a try uses up the message's budget: not while it is the provider that is in trouble."""
    return error.counts and not (job.probe and error.breaker)


def _not_risked(error: base.SendError) -> base.SendError:
    """What a ping found, for a message that was not sent because of it."""
    if error.outcome in (base.STOP_CHANNEL, base.STOP_BROADCAST) or error.slow_channel:
        return error
    return base.SendError(base.LATER, error.cause, error.detail, counts=False, breaker=True)


_ACTIONS = {
    base.REFUSED: "reject",
    base.LATER: "postpone",
    base.UNCLEAR: "lose",
    base.STOP_BROADCAST: "postpone",
    base.STOP_CHANNEL: "postpone",
}


def _channel(channel_id: int) -> ChannelPlan:
    return ChannelPlan(
        *db.rows(
            "SELECT id, per_second, per_day, next_slot, slow_until, state, stop_reason, recent, opened_at, probe_at,"
            " settings, secrets, provider, account, vendor_limit FROM channel WHERE id = ?",
            [channel_id],
        )[0]
    )


def _mark(result: Result) -> str | None:
    """What a result says about the line and the provider; None for one that never left this machine."""
    error = result.error
    if error is None:
        return breaker.GOOD if result.action in ("accept", "hold") else None
    if error.breaker:
        return breaker.UNCLEAR if error.outcome == base.UNCLEAR else breaker.LINE
    return None if error.http_status is None else breaker.GOOD


def outgoing(renderer: Any, phone: str, cells: str | None, token: str) -> base.Outgoing:
    """The message for one row, rendered. Raises rendering.RowError."""
    rendered = renderer.render(json.loads(cells) if cells else [phone])
    if rendered.template is not None:
        return base.Outgoing(phone, token, template=rendered.template)
    return base.Outgoing(phone, token, text=rendered.text)


class _Writer:
    """Collects the changes of one turn and writes each kind with one statement."""

    def __init__(self, now: int, count: Callable[[tuple[int, int, int], str, str], None]) -> None:
        self.now = now
        self._count = count
        self.sent: dict[int, int] = {}
        self._taken: list[tuple[Any, ...]] = []
        self._back: list[tuple[Any, ...]] = []
        self._ended: list[tuple[Any, ...]] = []
        self._attempts: list[tuple[Any, ...]] = []
        self._parts: list[tuple[int, str, int]] = []

    def result(
        self, job: Job, action: str, status: str, provider_id: str | None, error: base.SendError | None, later: int
    ) -> None:
        target = move(action, status)
        if action in ("accept", "hold"):
            # A report may have overtaken the answer: then only the id and the time are new.
            self._taken.append((target or status, provider_id, self.now, job.id))
            broadcast = job.lane.broadcast_id
            self.sent[broadcast] = self.sent.get(broadcast, 0) + 1
        elif target is not None:
            cause = error.cause if error else None
            detail = (error.detail or None) if error else None
            if target == "queued":
                counted = 1 if error is not None and _counts(job, error) and error.outcome == base.LATER else 0
                first = self.now if error is not None and error.outcome == base.LATER else None
                # Never 0, which is for those that have not been taken up yet.
                self._back.append((max(1, later), counted, first, cause, detail, job.id))
            else:
                self._ended.append((target, cause, detail, job.id))
            if error is not None:
                self.attempt(job, {"queued": "postponed", "failed": "rejected"}.get(target, "lost"), error)
        if target is not None and target != status:
            self._count((job.lane.broadcast_id, job.run, job.file_id), status, target)

    def parts(self, job: Job, ids: Sequence[str]) -> None:
        self._parts += [(job.lane.channel_id, identity, job.id) for identity in ids]

    def attempt(self, job: Job, outcome: str, error: base.SendError | None) -> None:
        self._attempts.append(
            (
                job.id,
                job.token,
                self.now,
                outcome,
                error.http_status if error else None,
                error.cause if error else None,
                error.detail if error else None,
            )
        )

    def flush(self) -> None:
        if self._taken:
            db.many(
                "UPDATE message SET status = ?, provider_id = ?, sent_at = COALESCE(sent_at, ?), owner = NULL,"
                " lease_until = NULL WHERE id = ?",
                self._taken,
            )
        if self._back:
            db.many(
                "UPDATE message SET status = 'queued', not_before = ?, tries = tries + ?,"
                " postponed_at = COALESCE(postponed_at, ?), cause = ?, cause_text = ?, owner = NULL,"
                " lease_until = NULL, sending_at = NULL WHERE id = ?",
                self._back,
            )
        if self._ended:
            db.many(
                "UPDATE message SET status = ?, cause = ?, cause_text = ?, owner = NULL, lease_until = NULL"
                " WHERE id = ?",
                self._ended,
            )
        if self._parts:
            db.many(
                "INSERT INTO part (channel_id, provider_id, message_id, status) VALUES (?, ?, ?, 'sent')"
                " ON CONFLICT (channel_id, provider_id)"
                " DO UPDATE SET message_id = excluded.message_id, status = 'sent'",
                self._parts,
            )
        if self._attempts:
            db.many(
                "INSERT INTO attempt (message_id, token, at, outcome, http_status, code, detail)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                self._attempts,
            )
