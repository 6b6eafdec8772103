"""A settings form becomes a stored broadcast: whole, or as much of it as can be used so far."""

from __future__ import annotations

import threading
from typing import BinaryIO, cast

from flask import Request
from werkzeug.datastructures import FileStorage

from webapp import limits
from webapp.forms.broadcast import BroadcastForm
from worker import broadcasts, recipients, tasks
from worker.broadcasts import Invalid
from worker.models import Broadcast
from worker.settings import Settings

TOKEN_MAX = 64
# One form at a time: what is saved by itself must not overtake the press on Save of the same form.
_turn = threading.RLock()


class Incomplete(Exception):
    """The form cannot be stored as it is; its fields say why."""


def known(request: Request) -> Broadcast | None:
    """The broadcast that a part of the form belongs to, by its id or by the token of a form not saved yet."""
    number, token = request.values.get("id", ""), request.values.get("form_token", "")
    if number.isascii() and number.isdigit() and len(number) < 16:
        return Broadcast.get_or_none(Broadcast.id == int(number))
    return by_token(token)


def by_token(token: str) -> Broadcast | None:
    return Broadcast.get_or_none(Broadcast.form_token == token[:TOKEN_MAX]) if token else None


def save(settings: Settings, form: BroadcastForm, actor: str, *, complete: bool) -> Broadcast:
    """Store the form; its files are checked again where the content changed.

    Raises Incomplete, with the reasons beside the fields, and NotAllowed when somebody was faster.
    """
    wrong = form.own_problems() if complete else False
    values = form.values()
    try:
        broadcast = _store(settings, form, values, actor, complete)
    except Invalid as error:
        form.refuse(error.problems)
        raise Incomplete from None
    if wrong:
        raise Incomplete
    return broadcast


def save_what_fits(settings: Settings, form: BroadcastForm, actor: str) -> Broadcast:
    """Store a draft with every value that can be used; the others stay typed, with the reason beside them.

    Raises NotAllowed when somebody was faster.
    """
    values = form.values()
    for _again in range(len(values) + 1):
        try:
            return _store(settings, form, values, actor, complete=False)
        except Invalid as error:
            form.refuse(error.problems)
            values = {name: value for name, value in values.items() if name not in error.problems}
    raise Incomplete


def save_by_itself(settings: Settings, form: BroadcastForm, seen: str, actor: str) -> bool:
    """Store what fits of a draft while a person types. False when it is no draft any more, or has changed
    since this form saw it (`seen`: its updated_at, empty for none): a press on Save, or another window, was later."""
    with _turn:
        row = _now(form)
        if row is not None and (row.state != "draft" or str(row.updated_at) != seen):
            return False
        save_what_fits(settings, form, actor)
        return True


def _now(form: BroadcastForm) -> Broadcast | None:
    """The broadcast of a form as it is now: another request may have changed it since this one began."""
    if form.broadcast is not None:
        return Broadcast.get_or_none(Broadcast.id == form.broadcast.id)
    return by_token((form.form_token.data or "")[:TOKEN_MAX])


def _store(settings: Settings, form: BroadcastForm, values: dict[str, object], actor: str, complete: bool) -> Broadcast:
    with _turn:
        return _store_now(settings, form, values, actor, complete)


def _store_now(
    settings: Settings, form: BroadcastForm, values: dict[str, object], actor: str, complete: bool
) -> Broadcast:
    token = (form.form_token.data or "")[:TOKEN_MAX] or None
    broadcast = _now(form) or form.broadcast
    if broadcast is None:
        made = broadcasts.create(settings, values, actor, complete=complete, form_token=token)
        form.broadcast = made
        return made
    broadcast, content_changed = broadcasts.update(settings, broadcast, values, actor, complete=complete)
    form.broadcast = broadcast
    if content_changed:
        check_again(broadcast)
    return broadcast


def receive(settings: Settings, broadcast: Broadcast, request: Request, actor: str) -> None:
    """Store the one file that was dropped; the worker checks it. Raises FileRefused when there is none."""
    if receive_all(settings, broadcast, request, actor) == 0:
        raise recipients.FileRefused("file_missing")


def receive_all(settings: Settings, broadcast: Broadcast, request: Request, actor: str) -> int:
    """Store every file that came with a form; how many there were. Raises FileRefused."""
    found = [given for name in ("file", "more") for given in request.files.getlist(name) if given.filename]
    for given in found:
        _receive(settings, broadcast, given, actor)
    return len(found)


def _receive(settings: Settings, broadcast: Broadcast, given: FileStorage, actor: str) -> None:
    limits.take("upload")
    stream = cast(BinaryIO, given.stream)
    file = recipients.receive(broadcast, stream, given.filename or "", settings.uploads, {}, actor)
    tasks.read_file(file.id)


def check_again(broadcast: Broadcast) -> None:
    """Have every file of a draft checked against the content it has now."""
    for file in broadcasts.live_files(broadcast):
        if recipients.recheck(file, None):
            tasks.read_file(file.id)
