"""The three replies to a browser: a partial, a redirect (for both kinds of client), a toast.

HX headers choose the layout of an answer, never what somebody may do.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from flask import Response, flash, make_response, render_template
from flask import redirect as flask_redirect
from htmx_flask import Htmx, request

STOP_POLLING = 286
LEVELS = ("ok", "info", "error")

htmx = Htmx()


def asked() -> bool:
    """Whether htmx made this request and will swap the answer into a page."""
    return bool(request.htmx) and not request.htmx.boosted and not request.htmx.history_restore_request


def current_path() -> str:
    """Path and query of the page that the browser shows, as htmx tells it; "/" when unknown."""
    parts = urlsplit(request.htmx.current_url or "")
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def partial(template: str, *, status: int = 200, toast: str = "", level: str = "ok", **context: Any) -> Response:
    """The fragment `template`, with an optional toast."""
    response = make_response(render_template(template, **context), status)
    return with_toast(response, toast, level) if toast else response


def with_toast(response: Response, text: str, level: str = "ok") -> Response:
    """Let the browser show `text`. `level`: ok and info fade, error stays until it is closed."""
    if level not in LEVELS:
        raise ValueError(f"no toast level {level}")
    # A dict is JSON-escaped; a plain string would put Russian letters raw into a header.
    return tell(response, "toast", {"level": level, "text": text})


def tell(response: Response, event: str, detail: Any = None) -> Response:
    """Let the page know that something happened; parts that listen for it load themselves anew."""
    told = json.loads(response.headers.get("HX-Trigger", "{}"))
    response.headers["HX-Trigger"] = json.dumps({**told, event: detail})
    return response


def question(template: str, *, status: int = 200, **context: Any) -> Response:
    """A question before a deed: what stands in the dialog of the page, or a page of its own."""
    if asked():
        answer = partial(template, status=status, **context)
        answer.headers["HX-Retarget"] = "#dialog"
        answer.headers["HX-Reswap"] = "innerHTML"
        return answer
    return make_response(render_template("shared/question.html", body=template, **context), status)


def redirect(url: str, *, toast: str = "", level: str = "ok") -> Response:
    """Send the browser to the page `url`: 303 to a plain form, HX-Redirect to htmx; the toast shows there."""
    if toast:
        flash(toast, level)
    if asked():
        response = make_response("", 200)
        response.headers["HX-Redirect"] = url
        return response
    return make_response(flask_redirect(url, 303))


def reply(template: str, url: str, *, toast: str = "", level: str = "ok", **context: Any) -> Response:
    """The answer to a deed: its partial for htmx, a 303 to the page `url` for a plain form."""
    if asked():
        return partial(template, toast=toast, level=level, **context)
    return redirect(url, toast=toast, level=level)
