"""The Chromium of this machine."""

from __future__ import annotations

import base64
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


def drop(page: Any, name: str, data: bytes, zone: str = "[data-drop]") -> None:
    """Drop a file onto a zone, as the mouse does."""
    transfer = page.evaluate_handle(
        """([text, name]) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "text/csv" }));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name],
    )
    page.dispatch_event(zone, "drop", {"dataTransfer": transfer})


def reload_until(page: Any, selector: str) -> None:
    """Look again until it is there: what comes back from people comes when it comes."""
    for _again in range(120):
        if page.query_selector(selector):
            return
        page.wait_for_timeout(250)
        page.reload()
    raise AssertionError(f"{selector} did not appear")
