"""Where the sandbox emulator listens: a small file in the data folder, written when it starts."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

FILE = "sandbox.json"

# path → (what the file looked like, its address); one stat per call notices a restarted emulator
_seen: dict[Path, tuple[tuple[int, int, int], str | None]] = {}


def read(data: Path) -> str | None:
    """The emulator's address, such as http://127.0.0.1:40123, or None when it is not running."""
    path = data / FILE
    try:
        found = path.stat()
    except OSError:
        return None
    mark = (found.st_mtime_ns, found.st_ino, found.st_size)
    kept = _seen.get(path)
    if kept is None or kept[0] != mark:
        kept = _seen[path] = (mark, _address(path))
    return kept[1]


def _address(path: Path) -> str | None:
    try:
        url = json.loads(path.read_text(encoding="utf-8"))["url"]
        parts = urlsplit(url)
        port = parts.port
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1") or not port:
        return None
    return str(url).rstrip("/")


def publish(data: Path, url: str) -> None:
    """Write the address so that nobody ever reads half of it; only this account may read it."""
    handle, name = tempfile.mkstemp(prefix=".sandbox-", dir=data)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"url": url}, file)
    Path(name).replace(data / FILE)


def withdraw(data: Path, url: str) -> None:
    """Take the address away again, unless another emulator has published its own meanwhile."""
    if _address(data / FILE) == url.rstrip("/"):
        (data / FILE).unlink(missing_ok=True)
