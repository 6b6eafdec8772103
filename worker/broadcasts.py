"""Use cases of a broadcast: create, change, start, stop, resume, clear, restart; and its numbers.

A state changes by one UPDATE that names the states it may begin from; the row count says who won.
Every such change raises the epoch, so a slice that began earlier finds nothing to claim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import phonenumbers
from peewee import SQL, NodeList, fn

from worker import approvals, audit, canary, channels, clock, counters, db, events, files, rendering, sieve
from worker.forecast import forecast
from worker.models import PROBLEM, Broadcast, Channel, MessageTemplate, RecipientFile, Run
from worker.problems import Invalid as Invalid
from worker.problems import Problem as Problem
from worker.settings import Settings
from worker.states import BROADCAST, MESSAGE_STATUSES, PENDING, REPORT_LIFE, allowed, sql_list

NAME_MAX = 200
TEXT_MAX = 2000
RATE_MIN, RATE_MAX = 1, 60_000
MISS_AFTER = 15 * clock.MINUTE
SEND_AT_MAX = 366 * clock.DAY
CANCEL_STEP = 2_000
WHO = ("everyone", "failed", "undelivered", "new")
# Which messages a restart takes up again, by their latest status: those that surely did not arrive.
AGAIN = {"failed": ("failed",), "undelivered": ("failed", "undelivered")}
DIRECT = "direct"  # the kind of a channel's hidden broadcast that carries its single messages
TEXT = ("text", "template_name", "template_language")
CONTENT = frozenset({"channel", *TEXT, "variables", "region", "ignore_duplicates"})
COOLDOWN_MAX = 365  # days


class NotAllowed(RuntimeError):
    """The action is not possible in this state, or somebody else was faster."""

    def __init__(self, action: str, broadcast: Broadcast) -> None:
        super().__init__(f"{action} is not allowed from {broadcast.state}")
        self.action = action
        self.state = broadcast.state
        self.allowed = allowed(broadcast.state)


# --- values -----------------------------------------------------------------------------------------


def create(
    settings: Settings,
    values: Mapping[str, Any],
    actor: str,
    *,
    complete: bool = True,
    form_token: str | None = None,
) -> Broadcast:
    """Make a draft. `complete=False` lets a form save what there is so far.

    The same `form_token` twice gives the same broadcast. Raises Invalid.
    """
    if form_token:
        known = Broadcast.get_or_none(Broadcast.form_token == form_token)
        if known is not None:
            return known
    columns = _cleaned(settings, values, None, complete)
    now = clock.now()
    with db.write():
        broadcast = Broadcast.create(
            **columns, created_by=actor, changed_by=actor, created_at=now, updated_at=now, form_token=form_token
        )
        audit.record(actor, "broadcast.create", str(broadcast.id))
    return Broadcast.get_by_id(broadcast.id)


def update(
    settings: Settings, broadcast: Broadcast, values: Mapping[str, Any], actor: str, *, complete: bool = True
) -> tuple[Broadcast, bool]:
    """Change what is given in `values`; the broadcast and whether its files must be checked again.

    The content may change in a draft only; the start time until it runs; all else at any time. Those
    whom other quiet hours held are looked at anew. Raises Invalid.
    """
    columns = _cleaned(settings, values, broadcast, complete)
    changed = {name for name, value in columns.items() if getattr(broadcast, name) != value}
    content = changed & CONTENT
    if content and broadcast.state != "draft":
        raise Invalid({_field_of(name): Problem("only_in_draft", {"state": broadcast.state}) for name in content})
    # Messages know with which text they left.
    newer = {"text_version": broadcast.text_version + 1} if content & set(TEXT) else {}
    if changed & {"send_at", "timezone"} and broadcast.state not in ("draft", "scheduled", "stopped"):
        raise Invalid({"send_at": Problem("already_started")})
    with db.write():
        if changed:
            same_state = Broadcast.update(
                **{name: columns[name] for name in changed}, **newer, updated_at=clock.now()
            ).where((Broadcast.id == broadcast.id) & (Broadcast.state == broadcast.state))
            if same_state.execute() != 1:
                raise NotAllowed("update", Broadcast.get_by_id(broadcast.id))
            if content:
                approvals.withdraw(broadcast.id, actor)
            audit.record(actor, "broadcast.update", str(broadcast.id), fields=sorted(changed))
    if changed & {"quiet_from", "quiet_to", "timezone"}:
        sieve.wake(broadcast.id, broadcast.run)
    return Broadcast.get_by_id(broadcast.id), bool(content)


def _field_of(column: str) -> str:
    return {"channel": "channel_id", "template_name": "template", "template_language": "template"}.get(column, column)


def _cleaned(settings: Settings, values: Mapping[str, Any], known: Broadcast | None, complete: bool) -> dict[str, Any]:
    """Columns for the given values, with defaults for a new broadcast. Raises Invalid with every problem."""
    cleaner = _Cleaner(settings, values, known, complete)
    columns = cleaner.run()
    if cleaner.problems:
        raise Invalid(cleaner.problems)
    return columns


def check_template(
    settings: Settings, channel: Channel, template: tuple[str, str], variables: Mapping[str, Any]
) -> None:
    """Whether a message of this template, by name and language, can be sent with these variables. Raises Invalid."""
    chosen = dict(zip(("name", "language"), template, strict=True))
    cleaner = _Cleaner(settings, {"template": chosen}, None, True)
    if channel.kind == "waba":
        cleaner._template(channel, variables)
    else:
        cleaner._bad("template", "template_needs_waba")
    if cleaner.problems:
        raise Invalid(cleaner.problems)


class _Cleaner:
    """Checks one set of values, collecting a Problem per field."""

    def __init__(self, settings: Settings, values: Mapping[str, Any], known: Broadcast | None, complete: bool) -> None:
        self.settings = settings
        self.values = values
        self.known = known
        self.complete = complete
        self.problems: dict[str, Problem] = {}
        self.columns: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        for name in (
            *("name", "region", "ignore_duplicates", "on_file_delete", "rate_per_minute", "send_at"),
            *("timezone", "quiet_hours", "cooldown_days"),
        ):
            if name in self.values or self.known is None:
                getattr(self, "_" + name)(self.values.get(name))
        if self.known is None or any(name in self.values for name in ("channel_id", "text", "template", "variables")):
            self._content()
        return self.columns

    def _bad(self, name: str, code: str, /, **facts: Any) -> None:
        self.problems.setdefault(name, Problem(code, facts))

    def _name(self, value: Any) -> None:
        name = " ".join(value.split()) if isinstance(value, str) else ""
        if "\0" in name:
            self._bad("name", "name_invalid")
        elif not name and self.complete:
            self._bad("name", "name_required")
        elif len(name) > NAME_MAX:
            self._bad("name", "name_too_long", max=NAME_MAX)
        self.columns["name"] = name

    def _region(self, value: Any) -> None:
        region = value or self.settings.region
        if not isinstance(region, str) or region not in phonenumbers.SUPPORTED_REGIONS:
            self._bad("region", "region_unknown")
        self.columns["region"] = region

    def _ignore_duplicates(self, value: Any) -> None:
        value = True if value is None else value
        if not isinstance(value, bool):
            self._bad("ignore_duplicates", "not_a_boolean")
        self.columns["ignore_duplicates"] = value

    def _on_file_delete(self, value: Any) -> None:
        value = value or "keep"
        if value not in ("keep", "remove"):
            self._bad("on_file_delete", "not_a_choice", choices=["keep", "remove"])
        self.columns["on_file_delete"] = value

    def _rate_per_minute(self, value: Any) -> None:
        rate = _whole(value)
        if rate is None and value in (None, "") and not self.complete:
            rate = 60
        if rate is None or not RATE_MIN <= rate <= RATE_MAX:
            self._bad("rate_per_minute", "rate_range", min=RATE_MIN, max=RATE_MAX)
        self.columns["rate_per_minute"] = rate

    def _timezone(self, value: Any) -> None:
        zone = value or (self.known.timezone if self.known else self.settings.timezone)
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError, TypeError):
            self._bad("timezone", "timezone_unknown")
            return
        self.columns["timezone"] = zone

    def _send_at(self, value: Any) -> None:
        self._timezone(self.values.get("timezone"))
        zone = self.columns.get("timezone")
        if zone is None:
            return
        self.columns["send_at"] = None
        if value in (None, ""):
            return
        try:
            moment = instant(value, zone)
        except (ValueError, OverflowError, TypeError):
            self._bad("send_at", "send_at_invalid")
            return
        unchanged = self.known is not None and self.known.send_at == moment
        if moment <= clock.now() and not unchanged:
            self._bad("send_at", "send_at_past")
        elif moment > clock.now() + SEND_AT_MAX:
            self._bad("send_at", "send_at_far")
        self.columns["send_at"] = moment

    def _quiet_hours(self, value: Any) -> None:
        self.columns.update(quiet_from=None, quiet_to=None)
        if value in (None, ""):
            return
        times = [minutes(value.get(name)) for name in ("from", "to")] if isinstance(value, Mapping) else [None]
        if None in times:
            self._bad("quiet_hours", "quiet_hours_invalid")
        elif times[0] == times[1]:
            self._bad("quiet_hours", "quiet_hours_same")
        else:
            self.columns.update(quiet_from=times[0], quiet_to=times[1])

    def _cooldown_days(self, value: Any) -> None:
        days = _whole(value)
        if value not in (None, "") and (days is None or not 1 <= days <= COOLDOWN_MAX):
            self._bad("cooldown_days", "number_range", min=1, max=COOLDOWN_MAX)
        self.columns["cooldown_days"] = days

    def _given(self, name: str, column: str) -> Any:
        if name in self.values or self.known is None:
            return self.values.get(name)
        return getattr(self.known, column)

    def _content(self) -> None:
        """Channel, text or template, and variables belong together and are checked together."""
        channel = self._channel()
        variables = self._given("variables", "variables") or {}
        if not isinstance(variables, Mapping):
            self._bad("variables", "variables_invalid")
            variables = {}
        self.columns.update(
            channel=channel.id if channel else None,
            text=None,
            template_name=None,
            template_language=None,
            variables=dict(variables),
        )
        if channel is None:
            # A draft without a channel keeps what was typed.
            self._keep_text()
        elif channel.kind == "sms":
            self._text()
        else:
            self._template(channel, variables)

    def _channel(self) -> Channel | None:
        value = self._given("channel_id", "channel_id")
        number = _whole(value)
        if value in (None, ""):
            if self.complete:
                self._bad("channel_id", "channel_required")
            return None
        channel = channels.living().where(Channel.id == number).first() if number is not None else None
        if channel is None:
            self._bad("channel_id", "channel_unknown")
        return channel

    def _keep_text(self) -> None:
        text = self._given("text", "text")
        if isinstance(text, str):
            self.columns["text"] = text.replace("\0", "")[:TEXT_MAX] or None

    def _text(self) -> None:
        text = self._given("text", "text")
        text = text.replace("\r\n", "\n").strip() if isinstance(text, str) else ""
        self.columns["text"] = text or None
        if self.values.get("template"):
            self._bad("template", "template_needs_waba")
        if not text:
            if self.complete:
                self._bad("text", "text_required")
            return
        if len(text) > TEXT_MAX:
            self._bad("text", "text_too_long", max=TEXT_MAX)
            return
        if "\0" in text:
            self._bad("text", "text_invalid")
            return
        try:
            rendering.parse_text(text)
        except rendering.TextError as error:
            self._bad("text", error.code, **_facts(error.detail))

    def _template(self, channel: Channel, variables: Mapping[str, Any]) -> None:
        chosen = self._chosen_template()
        if chosen is None:
            if self.complete:
                self._bad("template", "template_required")
            return
        name, language = chosen
        found = channels.template(channel.id, name, language)
        self.columns.update(template_name=name, template_language=language)
        if found is None:
            self._bad("template", "template_unknown", name=name, language=language)
            return
        if found.status != "APPROVED":
            self._bad("template", "template_not_approved", name=name, status=found.status)
            return
        missing = rendering.unsupported(found.components)
        if missing:
            self._bad("template", "template_unsupported", parts=missing)
            return
        self._bindings(rendering.slots(found.components, found.parameter_format), variables)

    def _chosen_template(self) -> tuple[str, str] | None:
        if "template" in self.values or self.known is None:
            value = self.values.get("template")
            if not isinstance(value, Mapping):
                return None
            name, language = value.get("name"), value.get("language")
        else:
            name, language = self.known.template_name, self.known.template_language
        return (str(name), str(language)) if name and language else None

    def _bindings(self, slots: list[rendering.Slot], variables: Mapping[str, Any]) -> None:
        clean: dict[str, dict[str, str]] = {}
        for slot in slots:
            binding = variables.get(slot.id)
            if not isinstance(binding, Mapping) or not (binding.get("column") or binding.get("value")):
                if self.complete and slot.required:
                    self._bad("variables", "slot_unbound", slot=slot.id)
                continue
            keep = ("column", "fallback") if binding.get("column") else ("value",)
            clean[slot.id] = {k: str(binding[k]) for k in keep if binding.get(k) not in (None, "")}
            fixed = clean[slot.id].get("value") or clean[slot.id].get("fallback")
            if self.complete and fixed and (wrong := rendering.fixed_problem(slot, fixed)) is not None:
                self._bad("variables", "slot_invalid", slot=slot.id, code=wrong.code, **wrong.detail)
        unknown = sorted(set(variables) - {slot.id for slot in slots})
        if unknown and self.complete:
            self._bad("variables", "slot_unknown", slot=unknown[0])
        self.columns["variables"] = clean


def _facts(detail: Any) -> dict[str, Any]:
    return dict(detail) if isinstance(detail, Mapping) else {"detail": detail}


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**62 else None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 12:
        return int(value)
    return None


def minutes(text: Any) -> int | None:
    """A time of day such as "21:00" in minutes after midnight; None when it is none."""
    found = (
        re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::00)?", text.strip(), re.ASCII) if isinstance(text, str) else None
    )
    return int(found[1]) * 60 + int(found[2]) if found else None


def quiet_hours(broadcast: Broadcast) -> dict[str, str] | None:
    """The quiet hours as they are given to `update`: {"from": "21:00", "to": "09:00"}; None where there are none."""
    found = {"from": broadcast.quiet_from, "to": broadcast.quiet_to}
    return {name: f"{at // 60:02d}:{at % 60:02d}" for name, at in found.items() if at is not None} or None


def instant(value: int | str, zone: str) -> int:
    """A point in time as ms since the epoch: ISO 8601 with an offset, or local time in `zone`.

    A local time in a spring gap means the first valid instant after it; a doubled hour its first pass.
    Raises ValueError.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    moment = datetime.fromisoformat(str(value).strip())
    if moment.tzinfo is not None:
        return int(moment.timestamp() * 1000)
    return clock.of_local(moment, ZoneInfo(zone))


def people_changed(broadcast_id: int, actor: str) -> None:
    """A file came, went or is read anew, inside the caller's transaction: an approval is void.

    Where the team wants two persons, a running broadcast stops with it: the rows of a file would leave at once.
    """
    approvals.withdraw(broadcast_id, actor)
    if approvals.above() is not None:
        stop_by_itself(broadcast_id, "approval")


def of_run(broadcast: Broadcast) -> int:
    """How many people the current run is for."""
    numbers = count(broadcast, broadcast.run)
    return numbers["total"] - numbers["cancelled"]


class Approval(NamedTuple):
    """Whether a second person has to approve what Start, Resume or Restart would send, and to how many."""

    waits: bool
    people: int
    above: int


def approval(broadcast: Broadcast) -> Approval | None:
    """None while the team wants no second person, and while there is nothing to start."""
    limit = approvals.above()
    if limit is None or broadcast.state == "running":
        return None
    ready = [file.accepted for file in live_files(broadcast) if file.state == "ready"]
    people = sum(ready) if broadcast.state == "finished" else of_run(broadcast)
    return Approval(approvals.is_missing(broadcast, people), people, limit)


# --- content ----------------------------------------------------------------------------------------


def content(broadcast: Broadcast) -> rendering.Content | None:
    """What will be sent, or None while the draft is not complete enough to render."""
    channel = broadcast.channel
    if channel is None:
        return None
    if broadcast.kind == DIRECT:
        return rendering.ready_made()
    if channel.kind == "sms":
        try:
            return rendering.sms_content(broadcast.text) if broadcast.text else None
        except rendering.TextError:
            return None
    found = template_of(broadcast)
    if found is None:
        return None
    wanted = {slot.id for slot in rendering.slots(found.components, found.parameter_format) if slot.required}
    if not wanted <= set(broadcast.variables):
        return None
    return rendering.waba_content(
        found.name, found.language, found.components, found.parameter_format, broadcast.variables, found.category
    )


def template_of(broadcast: Broadcast) -> MessageTemplate | None:
    """The chosen template as it was last fetched; None where there is none."""
    if broadcast.channel is None or not broadcast.template_name:
        return None
    return channels.template(broadcast.channel.id, broadcast.template_name, broadcast.template_language or "")


def is_marketing(broadcast: Broadcast) -> bool:
    """Whether it advertises, as the provider sees it: such messages do not reach who stopped marketing there."""
    found = template_of(broadcast)
    return found is not None and found.category == "MARKETING"


def mobile_only(broadcast: Broadcast) -> bool:
    """Whether fixed-line numbers are refused: an SMS cannot reach them, WhatsApp can."""
    return broadcast.channel is not None and broadcast.channel.kind == "sms"


def problems(broadcast: Broadcast) -> list[Problem]:
    """What forbids the start: an incomplete draft, a file still being checked, nobody to send to."""
    found = []
    if not broadcast.name:
        found.append(Problem("name_required"))
    if broadcast.channel is None:
        found.append(Problem("channel_required"))
    elif broadcast.channel.state == channels.DELETED:
        found.append(Problem("channel_deleted"))
    elif content(broadcast) is None:
        code = "text_required" if broadcast.channel.kind == "sms" else "template_required"
        found.append(Problem(code))
    elif broadcast.channel.kind == "waba":
        found += _template_problems(broadcast)
    live = live_files(broadcast)
    if any(file.state == "checking" for file in live):
        found.append(Problem("file_checking"))
    elif count(broadcast, broadcast.run)["queued"] == 0:
        found.append(Problem("no_recipients"))
    return found


def _template_problems(broadcast: Broadcast) -> list[Problem]:
    found = template_of(broadcast)
    if found is not None and found.status != "APPROVED":
        return [Problem("template_not_approved", {"name": found.name, "status": found.status})]
    if found is not None and (parts := rendering.unsupported(found.components)):
        return [Problem("template_unsupported", {"parts": parts})]
    return []


def live_files(broadcast: Broadcast) -> list[RecipientFile]:
    """The files that were not removed, oldest first."""
    return list(
        RecipientFile.select()
        .where((RecipientFile.broadcast == broadcast.id) & RecipientFile.removed_at.is_null())
        .order_by(RecipientFile.id)
    )


def is_checking(broadcast: Broadcast) -> bool:
    """Whether a file of it is still being checked."""
    return any(file.state == "checking" for file in live_files(broadcast))


# --- numbers ----------------------------------------------------------------------------------------


def count(broadcast: Broadcast, run: int | None) -> dict[str, int]:
    """Messages by status and their total, in one run (None: in all), from the counters, never from the rows."""
    where, parameters = ("AND run = ?", [broadcast.id, run]) if run is not None else ("AND run > 0", [broadcast.id])
    found = dict(
        db.rows(f"SELECT status, SUM(n) FROM counter WHERE broadcast_id = ? {where} GROUP BY status", parameters)  # noqa: S608
    )
    numbers = {status: int(found.get(status, 0)) for status in MESSAGE_STATUSES}
    return {"total": sum(numbers.values()), **numbers}


def nothing() -> dict[str, int]:
    """What `count` finds where there is no message."""
    return dict.fromkeys(("total", *MESSAGE_STATUSES), 0)


def count_each(found: Sequence[Broadcast]) -> dict[int, dict[str, int]]:
    """As `count`, for the current run of each of these broadcasts at once."""
    numbers = {broadcast.id: nothing() for broadcast in found}
    marks = ",".join("?" * len(numbers))
    for id_, status, n in db.rows(
        "SELECT c.broadcast_id, c.status, SUM(c.n) FROM counter c"  # noqa: S608
        " JOIN broadcast b ON b.id = c.broadcast_id AND b.run = c.run"
        f" WHERE c.broadcast_id IN ({marks}) GROUP BY c.broadcast_id, c.status",
        list(numbers),
    ):
        numbers[id_][status] = int(n)
        numbers[id_]["total"] += int(n)
    return numbers


def finished_at_each(found: Sequence[Broadcast]) -> dict[int, int | None]:
    """When the current run of each of these broadcasts ended."""
    ids = [broadcast.id for broadcast in found]
    if not ids:
        return {}
    marks = ",".join("?" * len(ids))
    ended = db.rows(
        "SELECT r.broadcast_id, r.finished_at FROM run r"  # noqa: S608
        f" JOIN broadcast b ON b.id = r.broadcast_id AND b.run = r.number WHERE b.id IN ({marks})",
        ids,
    )
    return dict.fromkeys(ids) | dict(ended)


def left(numbers: Mapping[str, int]) -> int:
    """How many still have to go out."""
    return sum(numbers[status] for status in PENDING)


def eta(broadcast: Broadcast, numbers: Mapping[str, int]) -> int | None:
    """When the last message would leave, in ms since the epoch; None when nothing is left to send.

    Of a canary, the last one of it. Quiet hours count as if everybody lived in the broadcast's time zone.
    """
    remaining = left(numbers)
    if broadcast.canary and not canary_through(broadcast):
        remaining = min(remaining, broadcast.canary - (numbers["total"] - remaining))
    if remaining <= 0 or broadcast.state == "finished":
        return None
    start, stop = broadcast.quiet_from, broadcast.quiet_to
    quiet = (start, stop) if start is not None and stop is not None else None
    rate = effective_rate(broadcast)
    return forecast(begins_at(broadcast), {broadcast.timezone: remaining}, rate, quiet).end


def begins_at(broadcast: Broadcast) -> int:
    """When what is queued begins to leave, ms: at the start time while that lies ahead, else now."""
    waits = broadcast.send_at if broadcast.state in ("draft", "scheduled") else None
    return max(clock.now(), waits or 0)


def canary_through(broadcast: Broadcast) -> bool:
    """Whether it stands still because its canary has been sent: what is left is the rest of the list."""
    return bool(broadcast.state == "stopped" and broadcast.stop_reason == canary.THROUGH)


def effective_rate(broadcast: Broadcast) -> float:
    """Messages per minute after the channel's own pace is taken into account."""
    pace = broadcast.channel.per_second if broadcast.channel is not None else None
    return min(broadcast.rate_per_minute, pace * 60) if pace else broadcast.rate_per_minute


def is_completed(broadcast: Broadcast, numbers: Mapping[str, int], finished_at: int | None) -> bool:
    """A finished broadcast is completed when no report can still change it, after 72 hours at most."""
    if broadcast.state != "finished":
        return False
    expired = finished_at is not None and clock.now() - finished_at > REPORT_LIFE
    return expired or numbers["sent"] + numbers["held"] == 0


def find(name: str = "", state: str = "", before: int | None = None, limit: int = 50) -> list[Broadcast]:
    """Broadcasts newest first, by a part of their name and their state; `before` is the last id seen."""
    query = Broadcast.select().where(Broadcast.kind != DIRECT).order_by(Broadcast.id.desc()).limit(limit)
    if name:
        query = query.where(_folded(Broadcast.name, like(name)))
    if state:
        query = query.where(Broadcast.state == state)
    if before is not None:
        query = query.where(Broadcast.id < before)
    return list(query)


def like(name: str) -> str:
    r"""The pattern that finds a part of a name in casefold(name) LIKE … ESCAPE '\'."""
    return "%" + name.casefold().replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"


@db.sqlite_function("casefold")
def _casefold(value: str | None) -> str | None:
    # SQLite's own lower() and LIKE fold ASCII letters only; names are often Russian.
    return value.casefold() if value is not None else None


def _folded(column: Any, pattern: str) -> Any:
    return NodeList((fn.casefold(column), SQL("LIKE"), pattern, SQL("ESCAPE '\\'")))


# --- actions ----------------------------------------------------------------------------------------


def advance(broadcast_id: int, action: str, **columns: Any) -> bool:
    """Take one step of the state table, inside the caller's transaction; False when it was not possible."""
    step = BROADCAST[action]
    changed = (
        Broadcast.update(state=step.target, epoch=Broadcast.epoch + 1, updated_at=clock.now(), waiting=None, **columns)
        .where((Broadcast.id == broadcast_id) & Broadcast.state.in_(sorted(step.source)))
        .execute()
    )
    if changed == 1:
        events.broadcast(broadcast_id, action)
    return bool(changed == 1)


NO_STOP = {"stop_reason": None, "stop_detail": None, "stopped_at": None}


def start(
    settings: Settings, broadcast: Broadcast, actor: str, first: int | None = None, pick: str = canary.FIRST
) -> Broadcast:
    """Start now, or schedule when the start time lies ahead.

    With `first`, a canary: so many people get their message, then the broadcast stops by itself. `pick` says
    how they are chosen, 0 means none, None leaves what was said when it was scheduled.
    Raises Invalid when something forbids the start and NotAllowed when the state does.
    """
    action = "schedule" if lies_ahead(broadcast) else "start"
    if broadcast.state not in BROADCAST[action].source:
        raise NotAllowed("start", broadcast)
    found = problems(broadcast)
    if found:
        raise Invalid(
            {p.code if p.code in ("no_recipients", "file_checking") else p.code.split("_")[0]: p for p in found}
        )
    chosen = {} if first is None else {"canary": min(first, canary.MAX + 1) or None}
    with db.write():
        _require_approval(broadcast)
        _take(broadcast, action, actor, **(_going_on(broadcast.id) | chosen))
        if first is not None:
            canary.choose(broadcast.id, broadcast.run, first, pick)
        if action == "start":
            _begin(broadcast.id)
    return Broadcast.get_by_id(broadcast.id)


def _require_approval(broadcast: Broadcast) -> None:
    """Raise Invalid, inside the transaction that lets the current run go, while a second person has to approve it."""
    if approvals.above() is None:
        return
    fresh = Broadcast.get_by_id(broadcast.id)
    if is_checking(fresh):
        raise Invalid({"file_checking": Problem("file_checking")})
    approvals.require(fresh, of_run(fresh), fresh.run)


def _going_on(broadcast_id: int) -> dict[str, Any]:
    """The columns of a broadcast that goes on: a canary that is through is over, one that is not goes on as well."""
    through = db.value("SELECT stop_reason FROM broadcast WHERE id = ?", [broadcast_id]) == canary.THROUGH
    return {**NO_STOP, "canary": None} if through else NO_STOP


def _begin(broadcast_id: int) -> None:
    """The start itself, inside the caller's transaction."""
    broadcast = Broadcast.get_by_id(broadcast_id)
    begin_run(broadcast.id, broadcast.run)
    if broadcast.canary:
        canary.top_up(broadcast.id, broadcast.run, broadcast.canary)


def lies_ahead(broadcast: Broadcast) -> bool:
    """Whether Start means: at the start time. Pressed on a scheduled broadcast it means: now."""
    return broadcast.state != "scheduled" and broadcast.send_at is not None and broadcast.send_at > clock.now()


def _take(broadcast: Broadcast, action: str, actor: str, **columns: Any) -> None:
    if not advance(broadcast.id, action, **columns):
        raise NotAllowed(action, Broadcast.get_by_id(broadcast.id))
    audit.record(actor, f"broadcast.{action}", str(broadcast.id))
    if action in ("start", "resume", "restart") and broadcast.channel_id is not None:
        # A person's decision to go on includes the channel that stopped because of its account.
        channels.trust(broadcast.channel_id)


def begin_run(
    broadcast_id: int, number: int, who: str = "everyone", copied: bool = True, cause: str | None = None
) -> None:
    """Note that a run has begun, inside the caller's transaction; a run that already began keeps its time."""
    known = Run.get_or_none((Run.broadcast == broadcast_id) & (Run.number == number))
    now = clock.now()
    if known is None:
        Run.create(broadcast=broadcast_id, number=number, who=who, started_at=now, copied=copied, cause=cause)
    elif known.started_at is None:
        Run.update(started_at=now).where(Run.id == known.id).execute()


def stop(broadcast: Broadcast, actor: str) -> Broadcast:
    """Stop now: after this returns nothing leaves but what is in flight. Raises NotAllowed."""
    with db.write():
        _take(
            broadcast,
            "stop",
            actor,
            stop_reason="person",
            stop_detail={"by": actor},
            stopped_at=clock.now(),
        )
    return Broadcast.get_by_id(broadcast.id)


def stop_by_itself(broadcast_id: int, reason: str, **detail: Any) -> bool:
    """Stop with a cause, inside the caller's transaction; False when it was not running."""
    return advance(broadcast_id, "stop", stop_reason=reason, stop_detail=detail or None, stopped_at=clock.now())


def stop_all(channel_id: int, cause: str, detail: str = "") -> None:
    """Stop the running broadcasts of a channel that is out of use, inside the caller's transaction."""
    for (broadcast_id,) in db.rows("SELECT id FROM broadcast WHERE channel_id = ? AND state = 'running'", [channel_id]):
        stop_by_itself(broadcast_id, "channel", cause=cause, text=detail)


def resume(broadcast: Broadcast, actor: str) -> Broadcast:
    """Go on with what is queued; nothing is repeated. After a canary these are all the others. Raises NotAllowed."""
    with db.write():
        _require_approval(broadcast)
        _take(broadcast, "resume", actor, **_going_on(broadcast.id))
        begin_run(broadcast.id, broadcast.run)
    return Broadcast.get_by_id(broadcast.id)


def clear(broadcast: Broadcast, actor: str) -> Broadcast:
    """Remove the files and every message not yet sent; sent ones stay in the report. Raises NotAllowed.

    One commit makes the broadcast a draft and takes its files out of the queue; the rows follow in
    short transactions, and the sweeper finishes them should this process die in between.
    """
    with db.write():
        _take(broadcast, "clear", actor, send_at=None, canary=None, **NO_STOP)
        approvals.withdraw(broadcast.id, actor)
        RecipientFile.update(removed_at=clock.now(), removed_how="clear").where(
            (RecipientFile.broadcast == broadcast.id)
            & (RecipientFile.removed_at.is_null() | (RecipientFile.removed_how == "keep"))
        ).execute()
    sweep_removed(broadcast.id)
    return Broadcast.get_by_id(broadcast.id)


def sweep_removed(broadcast_id: int | None = None) -> int:
    """Cancel what is still queued of files that were removed with their queue; the number cancelled.

    Safe to run at any time and from several places: each step names the status it begins from.
    """
    which = "AND f.broadcast_id = ?" if broadcast_id is not None else ""
    found = db.rows(
        "SELECT DISTINCT c.broadcast_id, c.run, c.file_id FROM counter c"  # noqa: S608
        " JOIN recipient_file f ON f.id = c.file_id"
        f" WHERE c.status = 'queued' AND c.n > 0 AND f.removed_how IN ('remove', 'clear') {which}",
        [broadcast_id] if broadcast_id is not None else [],
    )
    return sum(cancel_queued(*which_file) for which_file in found)


def cancel_queued(broadcast_id: int, run: int, file_id: int) -> int:
    """queued → cancelled for one file in one run, in short transactions; the number changed."""
    cancelled = 0
    while True:
        with db.write():
            changed = db.execute(
                "UPDATE message SET status = 'cancelled', cause = NULLIF(cause, ?) WHERE id IN (SELECT id FROM message"
                " WHERE file_id = ? AND run = ? AND status = 'queued' LIMIT ?)",
                [sieve.HELD, file_id, run, CANCEL_STEP],
            ).rowcount
            if changed:
                key = (broadcast_id, run, file_id)
                counters.add({(*key, "queued"): -changed, (*key, "cancelled"): changed})
        cancelled += int(changed)
        if changed < CANCEL_STEP:
            return cancelled


def restart(broadcast: Broadcast, who: str, actor: str, cause: str | None = None) -> Broadcast:
    """Send again as a new run; its rows are copied by `copy_run`, which can be repeated.

    `cause`: only those of them who did not get it because of this; `who` is failed or undelivered then.
    Raises Invalid when the choice would send to nobody and NotAllowed when the state forbids it.
    """
    if who not in WHO:
        raise Invalid({"who": Problem("not_a_choice", {"choices": list(WHO)})})
    if cause is not None and who not in AGAIN:
        raise Invalid({"cause": Problem("cause_needs_who")})
    if broadcast.state not in BROADCAST["restart"].source:
        raise NotAllowed("restart", broadcast)
    if broadcast.channel is not None and broadcast.channel.state == channels.DELETED:
        raise Invalid({"channel_id": Problem("channel_deleted")})
    if is_checking(broadcast):
        raise Invalid({"file_checking": Problem("file_checking")})
    people = restart_numbers(broadcast, cause)[who]
    if people == 0:
        raise Invalid({"who": Problem("no_recipients")})
    if broadcast.texts_gone_at is not None:
        raise Invalid({"broadcast": Problem("texts_gone")})
    number = broadcast.run + 1
    with db.write():
        approvals.require(Broadcast.get_by_id(broadcast.id), people, number)
        _take(broadcast, "restart", actor, run=number, send_at=None, canary=None, **NO_STOP)
        begin_run(broadcast.id, number, who, copied=False, cause=cause)
    return Broadcast.get_by_id(broadcast.id)


def restart_numbers(broadcast: Broadcast, cause: str | None = None) -> dict[str, int]:
    """How many each choice of a restart would reach; of failed and undelivered those with `cause` alone, if given."""
    live = [file for file in live_files(broadcast) if file.state == "ready"]
    fresh = sum(file.accepted for file in live if file.run == 0)
    numbers = {"everyone": sum(file.accepted for file in live), "new": fresh}
    for who, statuses in AGAIN.items():
        numbers[who] = sum(latest_count(broadcast, file, statuses, cause) for file in live if file.run)
    return numbers


_A_NUMBER = " AND m.phone NOT LIKE '#%'"  # not the hash of somebody who was erased


def latest_count(broadcast: Broadcast, file: RecipientFile, statuses: tuple[str, ...], cause: str | None = None) -> int:
    """How many rows of `latest` there are."""
    sql, parameters = latest(broadcast, file, statuses, cause)
    return int(db.value(f"SELECT COUNT(*) {sql}", parameters))


def latest(
    broadcast: Broadcast, file: RecipientFile, statuses: tuple[str, ...], cause: str | None = None
) -> tuple[str, list[Any]]:
    """FROM and WHERE for the rows `m` of one file whose latest message has one of these statuses, and `cause` if given.

    Those who were reached by a later run are not among them.
    """
    runs = range(max(file.run, 1), broadcast.run + 1)
    later = " OR ".join(
        f"(m.run < {run} AND EXISTS (SELECT 1 FROM message n WHERE n.file_id = m.file_id"  # noqa: S608
        f" AND n.run = {run} AND n.line = m.line))"
        for run in runs[1:]
    )
    sql = (
        f"FROM message m WHERE m.broadcast_id = ? AND m.run IN ({', '.join(map(str, runs)) or 0})"
        f" AND m.{PROBLEM} AND m.status IN {sql_list(statuses)} AND m.file_id = ?{_A_NUMBER}"
    )
    sql += f" AND NOT ({later})" if later else ""
    sql += " AND m.cause = ?" if cause else ""
    return sql, [broadcast.id, file.id, *([cause] if cause else [])]


def copy_run(broadcast_id: int, step: int = 2_000) -> None:
    """Make the rows of a restarted run, in short transactions; harmless to repeat after a crash.

    Stops at once when the broadcast was cleared in between.
    """
    broadcast = Broadcast.get_by_id(broadcast_id)
    run = Run.get_or_none((Run.broadcast == broadcast_id) & (Run.number == broadcast.run))
    if run is None or run.copied:
        return
    for file in live_files(broadcast):
        if file.state != "ready":
            continue
        if file.run == 0:
            if run.who in ("everyone", "new"):
                _adopt(broadcast, file, step)
        elif run.who != "new":
            _copy_file(broadcast, file, run.who, run.cause, step)
    with db.write():
        Run.update(copied=True).where(Run.id == run.id).execute()


def _gone(broadcast: Broadcast, file: RecipientFile) -> bool:
    return bool(
        db.value(
            "SELECT 1 FROM recipient_file f JOIN broadcast b ON b.id = f.broadcast_id"
            " WHERE f.id = ? AND (f.removed_at IS NOT NULL OR b.run <> ?)",
            [file.id, broadcast.run],
        )
    )


def _adopt(broadcast: Broadcast, file: RecipientFile, step: int) -> None:
    """Move rows that waited for the next run (run 0) into it."""
    while True:
        with db.write():
            if _gone(broadcast, file):
                return
            changed = db.execute(
                "UPDATE message SET run = ? WHERE id IN (SELECT id FROM message WHERE file_id = ? AND run = 0 LIMIT ?)",
                [broadcast.run, file.id, step],
            ).rowcount
            if changed:
                counters.add(
                    {
                        (broadcast.id, 0, file.id, "queued"): -changed,
                        (broadcast.id, broadcast.run, file.id, "queued"): changed,
                    }
                )
            if changed < step:
                RecipientFile.update(run=broadcast.run).where(RecipientFile.id == file.id).execute()
                return


def _copy_file(broadcast: Broadcast, file: RecipientFile, who: str, cause: str | None, step: int) -> None:
    """Copy one file's rows into the current run as queued, in the order of their lines."""
    if who == "everyone":
        source, parameters = f"FROM message m WHERE m.file_id = ? AND m.run = ?{_A_NUMBER}", [file.id, file.run]
    else:
        before = Broadcast(id=broadcast.id, run=broadcast.run - 1)  # without the current run, which is being made
        source, parameters = latest(before, file, AGAIN[who], cause)
    line = -1
    while True:
        with db.write():
            if _gone(broadcast, file):
                return
            lines = db.rows(
                f"SELECT m.line {source} AND m.line > ? ORDER BY m.line LIMIT ?",
                [*parameters, line, step],
            )
            if not lines:
                return
            last = lines[-1][0]
            made = db.execute(
                "INSERT INTO message (broadcast_id, run, file_id, line, phone, row, status, not_before, tries)"
                f" SELECT m.broadcast_id, ?, m.file_id, m.line, m.phone, m.row, 'queued', 0, 0 {source}"
                " AND m.line > ? AND m.line <= ? ORDER BY m.line"
                " ON CONFLICT (file_id, run, line) DO NOTHING",
                [broadcast.run, *parameters, line, last],
            ).rowcount
            counters.add({(broadcast.id, broadcast.run, file.id, "queued"): made})
            line = last


def start_due() -> list[int]:
    """Start what is due and miss what was due too long ago; the ids of the started ones."""
    now = clock.now()
    due = list(Broadcast.select().where((Broadcast.state == "scheduled") & (Broadcast.send_at <= now)).limit(100))
    started = []
    for broadcast in due:
        late = now - (broadcast.send_at or now)
        with db.write():
            if (Broadcast.get_by_id(broadcast.id).send_at or now) > now:
                continue  # somebody has put it off at this very moment
            if late > MISS_AFTER:
                advance(
                    broadcast.id,
                    "miss",
                    stop_reason="missed",
                    stop_detail={"at": broadcast.send_at},
                    stopped_at=now,
                )
            elif approvals.is_missing(Broadcast.get_by_id(broadcast.id), of_run(broadcast), broadcast.run):
                advance(broadcast.id, "miss", stop_reason="approval", stopped_at=now)
            elif advance(broadcast.id, "start", **NO_STOP):
                _begin(broadcast.id)
                channels.renew(broadcast.channel_id)
                audit.record("schedule", "broadcast.start", str(broadcast.id), late_ms=late)
                started.append(broadcast.id)
    return started


_UPLOADED = "SELECT path FROM recipient_file WHERE broadcast_id = ? AND path <> ''"
_DELETE_MESSAGES = (
    "DELETE FROM message WHERE id IN"
    " (SELECT m.id FROM message m JOIN recipient_file f ON f.id = m.file_id WHERE f.broadcast_id = ? LIMIT ?)"
)


def delete(broadcast: Broadcast, actor: str) -> None:
    """Forget a broadcast that never sent anything; others are kept for their report.

    Raises NotAllowed while it is scheduled or running, and Invalid when it has sent messages.
    """
    if broadcast.state in ("running", "scheduled"):
        raise NotAllowed("delete", broadcast)
    if any(n for status, n in count(broadcast, None).items() if status not in ("total", "queued", "cancelled")):
        raise Invalid({"broadcast": Problem("has_report")})
    with db.write():
        RecipientFile.update(removed_at=clock.now(), removed_how="clear").where(
            RecipientFile.broadcast == broadcast.id
        ).execute()
    sweep_removed(broadcast.id)
    gone: list[str] = []
    for _gone in db.in_steps(_DELETE_MESSAGES, [broadcast.id], CANCEL_STEP):
        pass
    with db.write():
        if (
            Broadcast.select()
            .where((Broadcast.id == broadcast.id) & Broadcast.state.in_(["draft", "stopped", "finished"]))
            .exists()
        ):
            db.execute("DELETE FROM counter WHERE broadcast_id = ?", [broadcast.id])
            db.execute("DELETE FROM snapshot WHERE broadcast_id = ?", [broadcast.id])
            db.execute("DELETE FROM overlap WHERE broadcast_id = ?", [broadcast.id])
            # The next broadcast may get its number.
            db.execute("UPDATE direct SET about_id = NULL WHERE about_id = ?", [broadcast.id])
            db.execute(
                "DELETE FROM rejected_row WHERE file_id IN (SELECT id FROM recipient_file WHERE broadcast_id = ?)",
                [broadcast.id],
            )
            gone = [path for (path,) in db.rows(_UPLOADED, [broadcast.id])]
            Broadcast.delete().where(Broadcast.id == broadcast.id).execute()
            audit.record(actor, "broadcast.delete", str(broadcast.id), name=broadcast.name)
    for path in gone:
        files.drop(db.folder() / "uploads" / path)
