"""Pages travel packed, where the browser can unpack them."""

from __future__ import annotations

import gzip
import io
import secrets

from flask import Response, request

LEVEL = 4  # the next ones take twice the time for a few per cent
PACK_FROM = 1_000  # bytes
NOISE_MAX = 64


def pack(response: Response) -> Response:
    """Pack an HTML answer.

    A page holds secrets (a form's token, phones) beside what a foreign link can put into it (a search), so the
    length of the packed page must not tell what repeats: a name of random length in gzip's head blurs it.
    """
    if response.mimetype != "text/html" or response.is_streamed or "Content-Encoding" in response.headers:
        return response
    response.vary.add("Accept-Encoding")
    body = response.get_data()
    if len(body) < PACK_FROM or not request.accept_encodings["gzip"]:
        return response
    packed = io.BytesIO()
    noise = "n" * secrets.randbelow(NOISE_MAX)
    with gzip.GzipFile(noise, "wb", LEVEL, packed, mtime=0) as file:
        file.write(body)
    response.set_data(packed.getvalue())
    response.headers["Content-Encoding"] = "gzip"
    return response
