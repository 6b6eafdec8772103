"""A running installation and a caller of its API, as a program of a customer would be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.product import Product, wait


class Caller:
    """The API with a token that `molva token create` printed."""

    def __init__(self, product: Product, language: str = "en", role: str = "sender") -> None:
        command = [sys.executable, "-m", "webapp", "token", "create", "journey", "--role", role]
        command += ["--data", str(product.settings.data)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MOLVA_")}
        printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        self.product = product
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {printed.strip().splitlines()[-1]}"
        self.session.headers["Accept-Language"] = language

    def call(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        answer = self.session.request(method, f"{self.product.url}/api/v1{path}", timeout=20, **more)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.headers.get("Content-Type", "").startswith("application/json") else answer

    def channel(self, provider: str) -> int:
        found = self.call("GET", "/channels")["items"]
        return int(next(c["id"] for c in found if c["provider"] == provider))

    def draft(self, provider: str, **values: Any) -> int:
        given = {"name": "Journey", "channel_id": self.channel(provider), "rate_per_minute": 60_000}
        if provider == "sandbox_sms":
            given["text"] = "Hi {{ name }}"
        return int(self.call("POST", "/broadcasts", 201, json={**given, **values})["id"])

    def upload(self, number: int, data: bytes, **options: str) -> dict[str, Any]:
        """Upload a file and wait until it is checked."""
        given = self.call("POST", f"/broadcasts/{number}/files", 202, files={"file": ("list.csv", data)}, data=options)
        url = f"/broadcasts/{number}/files/{given['id']}"
        wait(lambda: self.call("GET", url)["state"] != "checking", 60)
        found: dict[str, Any] = self.call("GET", url)
        return found

    def numbers(self, number: int, run: str = "") -> dict[str, int]:
        """The counters; they always add up."""
        shown = self.call("GET", f"/broadcasts/{number}", params={"run": run} if run else {})
        found: dict[str, int] = shown["counters"]
        assert found["total"] == sum(n for status, n in found.items() if status != "total"), found
        return found

    def press(self, number: int, action: str, **values: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.call("POST", f"/broadcasts/{number}/{action}", json=values or None)
        return found

    def finished(self, number: int, seconds: float, completed: bool = False) -> None:
        """Wait for the end (or for the last delivery report), looking at the sum of the parts all the while."""
        deadline = time.monotonic() + seconds
        while True:
            self.numbers(number)
            shown = self.call("GET", f"/broadcasts/{number}")
            if shown["completed"] if completed else shown["state"] == "finished":
                return
            assert time.monotonic() < deadline, shown
            time.sleep(0.2)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    found = Product(tmp_path_factory.mktemp("journey") / "data")
    found.start()
    yield found
    if found.process is not None:
        assert found.stop() == 0


@pytest.fixture(scope="module")
def caller(product: Product) -> Caller:
    return Caller(product)
