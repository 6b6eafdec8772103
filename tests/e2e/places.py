"""Every page there is, taken from the routes, so that a new one cannot be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from werkzeug.routing import Rule

from tests import people
from tests.e2e.house import STATES, STATUSES, House
from webapp import auth, limits
from worker.models import User

DOWNLOADS = ("inbox.attachment",)  # with parameters, and no page whatever they are
MACHINES = ("api", "assets", "health")  # blueprints that answer programs
# What a page looks like with these in its address as well.
QUERIES = {
    "broadcasts.index": ("?name=zzz", "?state=running"),
    "channels.new": ("?provider=whatsapp_cloud", "?provider=http", "?provider=smpp"),
    "reports.report": ("?status=failed", "?phone=%2B7999"),
}


class Place(NamedTuple):
    """One page as one kind of person sees it."""

    path: str
    who: str = "admin"  # or viewer, or stranger: without an account

    @property
    def name(self) -> str:
        """For the file of a picture."""
        letters = "".join(c if c.isalnum() else "-" for c in self.path).strip("-") or "home"
        return letters if self.who == "admin" else f"{letters}-{self.who}"


def values(numbers: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """What stands for the parameters of an address: by endpoint, else by blueprint. "?": what follows it."""
    at = numbers.__getitem__
    return {
        "broadcasts": [{"number": at("ready")}],
        "broadcasts.show": [{"number": at(state)} for state in (*STATES, "files")],
        "broadcasts.edit": [{"number": at(state)} for state in ("empty", "ready", "files", "template", "running")],
        "broadcasts.question": [
            {"number": at("ready"), "action": "start"},
            {"number": at("stopped"), "action": "resume"},
            {"number": at("stopped"), "action": "clear"},
            {"number": at("done"), "action": "restart"},
        ],
        "broadcasts.delete": [{"number": at("empty")}],
        "files": [{"number": at("files"), "file_id": at(file)} for file in ("checked", "refused")],
        "reports": [{"number": at("done"), "message_id": at("failed")}],
        "reports.report": [{"number": at(state)} for state in ("empty", "running", "uncertain", "done")],
        "reports.message": [
            {"number": at("done"), "message_id": at("failed")},
            {"number": at("uncertain"), "message_id": at("undecided")},
        ],
        "reports.deed": [
            {"number": at("lost"), "deed": "again", "?": "cause=131049"},
            {"number": at("lost"), "deed": "sms", "?": "cause=131026"},
            {"number": at("running"), "deed": "stop", "?": "cause=sms_unknown_subscriber"},
        ],
        "inbox": [{"number": at("conversation_open")}],
        "inbox.show": [{"number": at("conversation_open")}, {"number": at("conversation_closed")}],
        "optouts": [{"number": at("optout"), "phone": "+79005550010"}],
        "people": [{"number": 1}, {"number": 2}],
        "channels": [{"number": at(channel)} for channel in ("sms", "waba", "cloud")],
        "tokens": [{"number": at("token")}],
        "webhooks": [{"number": at(webhook)} for webhook in ("webhook_on", "webhook_failing", "webhook_off")],
    }


def of(house: House) -> list[Place]:
    """Every page of this installation, and the pages of the errors."""
    found = [Place(path) for path in _paths(house)]
    found += [Place("/login", "stranger")]
    if house.numbers:
        found += [Place(f"/answers/{status}") for status in STATUSES]
        found += [Place("/no-such-page"), Place("/no-such-page", "stranger"), Place("/channels/new", "viewer")]
        found += [Place("/broadcasts", "viewer"), Place(f"/broadcasts/{house.numbers['running']}", "viewer")]
    return found


def _paths(house: House) -> Iterator[str]:
    """Addresses that answer with a whole page; parts of pages and downloads are passed over."""
    browser = people.signed_in(house.app, User.get(User.role == "admin"))
    house.app.extensions["molva.limits"] = limits.Limits()  # no person downloads everything again and again
    for rule in sorted(house.app.url_map.iter_rules(), key=lambda rule: rule.rule):
        blueprint = rule.endpoint.partition(".")[0]
        with house.app.app_context():
            guests = auth.declared(rule.endpoint) == "guest"
        if (
            "GET" not in (rule.methods or ())
            or blueprint in (*MACHINES, "answers")
            or guests
            or rule.endpoint in DOWNLOADS
        ):
            continue
        for path in addresses(house, rule):
            answer = browser.get(path, headers={"Accept-Language": "en"})
            assert answer.status_code in (200, 302, 303) or rule.endpoint == "setup.setup", f"{path}: {answer.status}"
            whole = answer.data.lstrip().startswith(b"<!doctype html>")  # read to its end, downloads too
            if answer.status_code == 200 and whole:
                yield path


def addresses(house: House, rule: Rule) -> Iterator[str]:
    """Where a rule leads, with everything that can stand for its parameters."""
    given: list[dict[str, Any]] = [{}]
    if rule.arguments:
        if not house.numbers:
            return
        known = values(house.numbers)
        given = known.get(rule.endpoint) or known.get(rule.endpoint.partition(".")[0], [])
        wanted = {*rule.arguments, "?"}
        given = [{k: v for k, v in one.items() if k in wanted} for one in given if rule.arguments <= one.keys()]
        given = list({tuple(one.items()): one for one in given}.values())
        assert given, f"{rule}: say in tests/e2e/places.py what stands for {sorted(rule.arguments)}"
    adapter = house.app.url_map.bind("127.0.0.1")
    for one in given:
        query = one.pop("?", "")
        path = adapter.build(rule.endpoint, one) + (f"?{query}" if query else "")
        yield path
        for query in QUERIES.get(rule.endpoint, ()) if house.numbers else ():
            yield path + query
