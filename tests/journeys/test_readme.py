"""The examples of the README, run as they stand there against a running server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import Caller
from tests.product import Product, wait
from tests.readme import block

pytestmark = pytest.mark.journey


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """A new installation, as the examples take it to be."""
    found = Product(tmp_path / "data")
    found.start()
    yield found
    assert found.stop() == 0


def run(command: list[str], product: Product, folder: Path) -> str:
    token = Caller(product).session.headers["Authorization"].removeprefix("Bearer ")
    environment = {**os.environ, "MOLVA": product.url, "TOKEN": token, "NO_PROXY": "*"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_for_curl(product: Product, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
            pytest.fail("needs curl: apt-get install curl")
        pytest.skip("needs curl: apt-get install curl")
    (tmp_path / "list.csv").write_text("phone,name\n+79001234501,Anna\n+79001234502,Boris\n")
    printed = run(["bash", "-euo", "pipefail", "-c", block("curl")], product, tmp_path)
    assert '"state":"running"' in printed
    wait(lambda: len(product.accepted()) == 2, 20)
    assert "+79001234501" in (tmp_path / "report.csv").read_text(encoding="utf-8-sig")


def test_the_example_in_python(product: Product, tmp_path: Path) -> None:
    printed = run([sys.executable, "-c", block("python")], product, tmp_path)
    assert "2 of 2 rows, refused: {}" in printed
    lines = {line.split()[0]: line for line in printed.splitlines() if line.startswith("+")}
    assert set(lines) == {"+79001234501", "+79000001001"}
    assert " failed " in lines["+79000001001"] and len(lines["+79000001001"].split()) > 3  # with its cause in words
