"""What is stored and for how long, the timers, and one person's data: found, downloaded, erased. For administrators."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import filters, htmx, lookup, sentences, words
from webapp.auth import me, role, step_up
from webapp.limits import limited
from worker import audit, phone, retention, vault
from worker import privacy as use

privacy = Blueprint("privacy", __name__, url_prefix="/privacy")


@privacy.get("")
@role("admin")
def index() -> Response:
    return _page()


def _page(status: int = 200, problems: dict[str, str] | None = None, given: dict[str, str] | None = None) -> Response:
    days = retention.days()
    facts = {
        "stored": [(one, words.STORED[one.table], _kept(one, days)) for one in use.STORED],
        "timers": [(name, given.get(name, "") if given else days[name], retention.TIMERS[name]) for name in days],
        "offered": retention.OFFERED,
        "callback_days": retention.CALLBACK_DAYS,
        "problems": problems or {},
        "removals": [(one, removed(one.body)) for one in retention.removals()],
        "copies": use.copies(lookup.settings()),
        "waits": retention.vacuum_waits(),
    }
    return make_response(render_template("privacy/page.html", **facts), status)


def _kept(one: use.Stored, days: dict[str, int | None]) -> int | None:
    """For how many days a table keeps its rows; None where nothing limits it."""
    return retention.callback_days() if one.timer == "callbacks" else days.get(one.timer) or one.days or None


def removed(body: dict[str, int]) -> list[tuple[str, int]]:
    """What was removed, in words, with how many."""
    return [(str(words.REMOVED.get(name, name)), n) for name, n in body.items()]


@privacy.post("/timers")
@role("admin")
@step_up
def timers() -> Response:
    """After how many days what is removed; an empty field: never."""
    given = {name: "".join(request.form.get(name, "").split()) for name in retention.TIMERS}
    chosen: dict[str, int | None] = {}
    problems = {}
    for name, text in given.items():
        least = retention.TIMERS[name]
        if not text:
            chosen[name] = None
        elif text.isascii() and text.isdigit() and least <= int(text[:9]) <= retention.DAYS_MAX:
            chosen[name] = int(text)
        else:
            span = {"min": filters.number(least), "max": filters.number(retention.DAYS_MAX)}
            problems[name] = _("From %(min)s to %(max)s", **span)
    if problems:
        return _page(422, problems, given)
    retention.set_days(chosen, me().name)
    return htmx.redirect(url_for("privacy.index"), toast=_("Saved"))


# --- one person -------------------------------------------------------------------------------------


def _asked() -> tuple[str, str]:
    """The number of the form as E.164, and what was typed; "" when it is no number."""
    typed = request.values.get("phone", "")[:100]
    return phone.parse(typed, lookup.settings().region).e164 or "", typed


def _person_page(status: int = 200, **facts: Any) -> Response:
    blank = {"phone": "", "typed": "", "found": None, "report": None, "problem": ""}
    return make_response(render_template("privacy/person.html", **{**blank, **facts}), status)


@privacy.get("/person")
@role("admin")
@step_up
def person() -> Response:
    return _person_page()


@privacy.post("/person")
@role("admin")
@step_up
@limited("export")
def find() -> Response:
    """Everything about one number, table by table. A POST, so that the number stands in no address and no log."""
    number, typed = _asked()
    if not number:
        return _person_page(422, typed=typed, problem=_("This is not a phone number"))
    found = use.find(lookup.settings(), number)
    audit.note(me().name, "privacy.find", number)
    return _person_page(phone=number, typed=number, found=[(words.STORED[t], len(rows)) for t, rows in found.items()])


@privacy.post("/person.json")
@role("admin")
@step_up
@limited("export")
def download() -> Response:
    """The same as a file, for the person who asks what is kept about them."""
    number, typed = _asked()
    if not number:
        return _person_page(422, typed=typed, problem=_("This is not a phone number"))
    found = use.find(lookup.settings(), number)
    audit.note(me().name, "privacy.export", number)
    body = json.dumps({"phone": number, **found}, ensure_ascii=False, indent=1)
    headers = {"Content-Disposition": "attachment; filename=person.json"}
    return Response(body, mimetype="application/json", headers=headers)


@privacy.post("/person/erase")
@role("admin")
@step_up
def erase() -> Response:
    """Erase one person; what was removed is said table by table. The number is typed again to confirm."""
    number, typed = _asked()
    again = phone.parse(request.form.get("again", "")[:100], lookup.settings().region).e164
    if not number or again != number:
        problem = _("Type the same number again to confirm")
        return _person_page(422, phone=number, typed=number or typed, found=[], problem=problem)
    if use.is_being_checked():
        return _person_page(409, typed=number, problem=_("A file is still being checked"))
    try:
        report = use.erase(lookup.settings(), number, me().name)
    except vault.VaultError:
        return _person_page(409, typed=number, problem=sentences.finding("credentials_locked", ""))
    return _person_page(report=removed(report), copies=use.copies(lookup.settings()))
