"""The one file of a release: built as the README says, started by a bare Python outside of any checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.product import Product, wait

pytestmark = pytest.mark.journey
ROOT = Path(__file__).parents[2]
HERE = Path(sys.executable).parent
# The interpreter without the packages of the tests.
BARE = Path(sys.base_prefix) / "bin" / "python3"
NEEDED = "shiv (pip install -e '.[release]') and a package index"


def missing(why: str) -> None:
    text = f"needs {NEEDED}: {why}"
    if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """molva.pyz, by the last command between the marks in the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"<!-- release -->\n```\n(.*?)\n```", readme, re.DOTALL)
    command = lines[0].splitlines()[-1].rpartition("&&")[2].strip()
    assert command.startswith(".venv/bin/shiv ") and " -o molva.pyz " in command, command
    if not (HERE / "shiv").exists() or not BARE.exists():
        missing("not there")
    file = tmp_path_factory.mktemp("release") / "molva.pyz"
    command = command.replace(".venv/bin/shiv", str(HERE / "shiv")).replace("molva.pyz", str(file))
    made = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=400)
    if made.returncode:
        missing(made.stderr[-300:])
    return file


class Released(Product):
    """The same commands out of the one file, in a folder that has nothing else."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.parent / "data", SHIV_ROOT=str(file.parent / "unpacked"))
        self.file = file

    def run(self, *words: str) -> str:
        command = [str(BARE), str(self.file), *words, "--data", str(self.settings.data)]
        given: dict[str, Any] = {"env": self.bare(), "cwd": self.file.parent, "text": True, "timeout": 120}
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, **given).stdout

    def bare(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOLVA_", "PYTHON", "VIRTUAL_ENV"))}
        return kept | self.environment

    def part(self, name: str) -> subprocess.Popen[str]:
        with self.log.open("ab") as errors:
            return subprocess.Popen(
                [str(BARE), str(self.file), name, "--data", str(self.settings.data), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=self.bare(),
                cwd=self.file.parent,
            )


def test_one_file_is_the_whole_product(artefact: Path) -> None:
    product = Released(artefact)
    product.start()
    try:
        assert product.code, "no one-time code"
        ask = requests.Session()
        # The worker is a child of its own: it comes out of the same file.
        wait(lambda: ask.get(f"{product.url}/healthz", timeout=10).status_code == 200, 60)
        page = ask.get(f"{product.url}/setup", headers={"Accept-Language": "ru"}, timeout=10).text
        assert "Создать администратора" in page
        found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
        assert found and all(ask.get(product.url + path, timeout=10).status_code == 200 for path in found)
        token = product.run("token", "create", "release", "--role", "sender").split()[-1]
        ask.headers["Authorization"] = f"Bearer {token}"
        channels = ask.get(f"{product.url}/api/v1/channels", timeout=10).json()["items"]
        number = next(one["id"] for one in channels if one["provider"] == "sandbox_sms")
        given = {"name": "Released", "channel_id": number, "text": "Hi", "rate_per_minute": 6000}
        row = ask.post(f"{product.url}/api/v1/broadcasts", json=given, timeout=10).json()
        url = f"{product.url}/api/v1/broadcasts/{row['id']}"
        ask.post(f"{url}/files", files={"file": ("a.csv", b"phone\n+79010000001\n")}, timeout=10)
        wait(lambda: ask.post(f"{url}/start", timeout=10).status_code == 200, 30)
        wait(lambda: [one["phone"] for one in product.accepted()] == ["+79010000001"], 30)
    finally:
        assert product.stop() == 0
