"""What a browser shows while it cannot reach the server: a page that it keeps, and the script that keeps it.

The script answers for nothing else and stores nothing else; browsers run it over HTTPS and on the own machine.
"""

from __future__ import annotations

import zlib

from flask import Blueprint, Response, make_response, render_template, url_for
from flask_babel import get_locale

from webapp.assets import asset_url
from webapp.auth import public

offline = Blueprint("offline", __name__)


@offline.get("/offline")
@public
def page() -> str:
    """The page itself, in the language of whoever asks, without a word about anybody."""
    return render_template("errors/offline.html")


@offline.get("/offline.js")
@public
def script() -> Response:
    """The service worker. A new text, style or language makes it another one, and the browser keeps that."""
    parts = [url_for("offline.page"), *(asset_url(name) for name in ("app.css", "app.js", "icons.svg", "favicon.svg"))]
    mark = f"{zlib.crc32((page() + ''.join(parts)).encode()):08x}"
    kept = f"molva-{get_locale()}-{mark}"
    answer = make_response(render_template("errors/offline.js", kept=kept, parts=parts))
    answer.headers["Content-Type"] = "text/javascript; charset=utf-8"
    answer.headers["Cache-Control"] = "no-cache"
    return answer
