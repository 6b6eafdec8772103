"""The Chromium of this machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

NEEDED = "Chromium and Playwright: apt-get install chromium, and pip install -e '.[e2e]'"


class NoBrowser(RuntimeError):
    """There is none, or nothing to drive it with."""


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A browser that runs. Raises NoBrowser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        raise NoBrowser(NEEDED)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
