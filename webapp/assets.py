"""Finds templates/ and static/ in a checkout or a wheel, and serves the static files."""

from __future__ import annotations

import functools
import gzip
import hashlib
import mimetypes
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Response, abort, request, url_for

from webapp.auth import public

HERE = Path(__file__).resolve().parent
FOREVER = "public, max-age=31536000, immutable"
GZIP_FROM = 1_000  # bytes; below, the header costs more than it saves

# The standard table depends on the machine's registry; these do not.
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".json": "application/json",
}

assets = Blueprint("assets", __name__)


class Asset(NamedTuple):
    body: bytes
    packed: bytes | None  # gzip, where it helps
    version: str
    mimetype: str


def folder(name: str) -> Path:
    """The folder `name`: inside the package in a wheel, beside it in a checkout."""
    inside = HERE / name
    return inside if inside.is_dir() else HERE.parent / name


@functools.cache
def _names() -> frozenset[str]:
    root = folder("static")
    return frozenset(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def load(name: str) -> Asset | None:
    """One static file, or None. Only names that were there at the start are ever opened."""
    if name not in _names():
        return None
    path = folder("static") / name
    return _read(name, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(name: str, _changed: int) -> Asset:
    body = (folder("static") / name).read_bytes()
    suffix = Path(name).suffix
    mimetype = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = gzip.compress(body, 9, mtime=0) if suffix in TYPES and len(body) >= GZIP_FROM else None
    return Asset(body, packed, hashlib.sha256(body).hexdigest()[:12], mimetype)


def asset_url(name: str) -> str:
    """The address of a static file with its content hash, so that it may be kept for ever."""
    found = load(name)
    if found is None:
        raise LookupError(f"no static file {name}")
    return url_for("assets.static", name=name, v=found.version)


@assets.get("/static/<path:name>")
@public
def static(name: str) -> Response:
    """A static file; immutable when asked for by its hash, revalidated otherwise."""
    found = load(name)
    if found is None:
        abort(404)
    response = Response(found.body, mimetype=found.mimetype)
    response.set_etag(found.version)
    known = request.args.get("v") == found.version
    response.headers["Cache-Control"] = FOREVER if known else "no-cache"
    if found.packed is not None:
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"] > 0:
            response.set_data(found.packed)
            response.headers["Content-Encoding"] = "gzip"
            response.set_etag(f"{found.version}-gz")
    response.make_conditional(request)
    return response


@assets.get("/favicon.ico")
@public
def favicon() -> Response:
    """Browsers ask for it unasked; answered with the drawn one."""
    return static("favicon.svg")
