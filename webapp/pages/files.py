"""Recipient files of a broadcast: upload, what the check found, another way of reading, removal."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request, url_for
from flask_babel import gettext as _

from webapp import drafts, exports, htmx, live, lookup, sentences
from webapp.auth import me, role, step_up
from webapp.limits import limited
from worker import recipients, tasks, undo
from worker.models import Broadcast, RecipientFile

files = Blueprint("files", __name__, url_prefix="/broadcasts/<int:number>/files")


def _section(number: int, problem: str = "") -> dict[str, Any]:
    row: Broadcast = lookup.broadcast(number)
    return {
        "row": row,
        **live.lists(row),
        "upload_url": url_for("files.upload", number=number),
        "in_form": "in_form" in request.values,
        "problem": problem,
    }


def _page(number: int) -> str:
    return url_for("broadcasts.show", number=number) + "#files"


def _answer(number: int, problem: str = "", toast: str = "", level: str = "ok") -> Response:
    """The files as they are now; the numbers of the page change with them."""
    if htmx.asked():
        answer = htmx.partial("files/_section.html", status=422 if problem else 200, **_section(number, problem))
        if toast:
            htmx.with_toast(answer, toast, level)
        return htmx.tell(answer, "numbers-changed")
    return htmx.redirect(_page(number), toast=problem or toast, level="error" if problem else level)


@files.get("")
@role("viewer")
def section(number: int) -> Response:
    """All files of the broadcast."""
    return htmx.partial("files/_section.html", **_section(number))


@files.post("")
@role("sender")
def upload(number: int) -> Response:
    row = lookup.broadcast(number)
    try:
        drafts.receive(lookup.settings(), row, request, me().name)
    except recipients.FileRefused as refused:
        return _answer(number, sentences.file_code(refused.code, refused.detail))
    return _answer(number)


@files.get("/<int:file_id>")
@role("viewer")
def one(number: int, file_id: int) -> Response:
    """One file; it asks again each second while it is being checked."""
    file = lookup.file(number, file_id)
    facts: dict[str, Any] = {
        "row": lookup.broadcast(number),
        "one": live.file(file),
        "in_form": "in_form" in request.args,
    }
    answer = htmx.partial("files/_file.html", **facts)
    return answer if file.state == "checking" else htmx.tell(answer, "numbers-changed")


@files.route("/<int:file_id>/check", methods=["GET", "POST"])
@role("sender")
def check(number: int, file_id: int) -> Response:
    """Read the file again with another encoding, delimiter or phone column."""
    file = lookup.file(number, file_id)
    facts: dict[str, Any] = {
        "row": lookup.broadcast(number),
        "file": file,
        "problem": live.file(file).refusal,
        "in_form": "in_form" in request.values,
    }
    if request.method == "GET":
        return htmx.question("files/_check.html", **facts)
    try:
        again = recipients.recheck(file, request.form.to_dict(), me().name)
    except recipients.FileRefused as refused:
        problem = sentences.file_code(refused.code, refused.detail)
        return htmx.question("files/_check.html", status=422, **facts | {"problem": problem})
    if not again:
        return _answer(number, toast=_("Some of its messages have left: the file cannot be read another way now"))
    tasks.read_file(file.id)
    return _answer(number)


@files.route("/<int:file_id>/delete", methods=["GET", "POST"])
@role("sender")
def delete(number: int, file_id: int) -> Response:
    """Remove a file, after showing what that means for its recipients."""
    file = lookup.file(number, file_id)
    if request.method == "GET":
        return htmx.question("files/_delete.html", **_removal(number, file))
    how = request.form.get("how", "")
    if how not in ("keep", "remove"):
        return htmx.question("files/_delete.html", status=422, **_removal(number, file))
    done = recipients.remove(file, how, me().name)
    tasks.wake(number)
    return _answer(number, toast=_("Deleted: %(name)s", name=file.name) if done else "")


@files.post("/<int:file_id>/undo")
@role("sender")
def bring_back(number: int, file_id: int) -> Response:
    """Take back the deletion of a file, while that is offered."""
    file = lookup.file(number, file_id)
    if not undo.file(file, me().name):
        return _answer(number, toast=_("Too late: the file stays deleted. Upload it again"), level="info")
    if RecipientFile.get_by_id(file_id).state == "checking":
        tasks.read_file(file_id)
    tasks.wake(number)
    return _answer(number, toast=_("Brought back: %(name)s", name=file.name))


def _removal(number: int, file: RecipientFile) -> dict[str, Any]:
    row = lookup.broadcast(number)
    return {"row": row, "one": live.file(file), "how": row.on_file_delete, "in_form": "in_form" in request.values}


@files.get("/<int:file_id>/errors.csv")
@role("sender")
@step_up
@limited("export")
def errors(number: int, file_id: int) -> Response:
    """Every row that gets no message, with its reason."""
    return exports.errors_csv(lookup.file(number, file_id), lookup.language())
