"""The files with the recipients of a broadcast."""

from __future__ import annotations

from typing import BinaryIO, cast

from flask import Response, abort, jsonify, request
from flask_babel import gettext as _

from webapp import exports, lookup, shapes
from webapp.api.base import ApiError, api
from webapp.auth import me, role
from webapp.limits import limited
from worker import broadcasts, recipients, tasks


@api.post("/broadcasts/<int:number>/files")
@role("sender")
@limited("upload")
def file_upload(number: int) -> tuple[Response, int]:
    row = lookup.broadcast(number)
    if (request.content_length or 0) > recipients.MAX_BYTES + 64 * 1024:
        raise recipients.FileRefused("file_too_large", size=request.content_length)
    given = request.files.get("file")
    if given is None:
        sentence = _("Choose a file")
        raise ApiError(422, "file_missing", sentence, fields={"file": sentence})
    file = recipients.receive(
        row,
        cast(BinaryIO, given.stream),
        given.filename or "",
        lookup.settings().uploads,
        request.form.to_dict(),
        me().name,
    )
    tasks.read_file(file.id)
    return jsonify(shapes.file(file)), 202


@api.get("/broadcasts/<int:number>/files")
@role("viewer")
def file_list(number: int) -> Response:
    rows = broadcasts.live_files(lookup.broadcast(number))
    return jsonify({"items": [shapes.file(row, False) for row in rows], "next": None})


@api.get("/broadcasts/<int:number>/files/<int:file_id>")
@role("viewer")
def file_one(number: int, file_id: int) -> Response:
    return jsonify(shapes.file(lookup.file(number, file_id)))


@api.get("/broadcasts/<int:number>/files/<int:file_id>/errors.csv")
@role("sender")
@limited("export")
def file_errors(number: int, file_id: int) -> Response:
    return exports.errors_csv(lookup.file(number, file_id), lookup.language())


@api.delete("/broadcasts/<int:number>/files/<int:file_id>")
@role("sender")
def file_delete(number: int, file_id: int) -> Response:
    row = lookup.broadcast(number)
    how = request.args.get("on_delete") or row.on_file_delete
    if how not in ("keep", "remove"):
        raise broadcasts.Invalid({"on_delete": broadcasts.Problem("not_a_choice")})
    if not recipients.remove(lookup.file(number, file_id), how, me().name):
        abort(404)
    tasks.wake(row.id)
    return jsonify(shapes.broadcast(lookup.broadcast(number)))
