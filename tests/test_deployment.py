"""What the README says about running Molva for real: the service file is understood, the image is made of what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.readme import ROOT, block

DOCKERFILE = ROOT / ".docker" / "Dockerfile"


def test_systemd_understands_the_service(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
            pytest.fail("needs systemd-analyze: apt-get install systemd")
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    unit = tmp_path / "molva.service"
    unit.write_text(block("systemd").replace("/opt/molva/.venv/bin/molva", "/bin/true"))
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    own = [line for line in done.stderr.splitlines() if str(unit) in line or "molva" in line]
    assert own == []


def test_the_service_leaves_time_to_store_what_is_in_flight() -> None:
    lines = dict(line.split("=", 1) for line in block("systemd").splitlines() if "=" in line)
    assert int(lines["TimeoutStopSec"]) >= 45 and lines["KillMode"] == "mixed"


def test_the_image_is_not_root_and_holds_what_the_package_needs() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["molva"] and not any("SECRET" in line or "PASSWORD" in line for line in lines)
    copied = {
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    }
    for name in copied:
        assert (ROOT / name).exists(), name
    sent = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sent[0] == "*" and {line[1:] for line in sent if line.startswith("!")} == copied
    needed = re.findall(
        r'^"?([\w.]+)"? = "', (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("force-include]")[1], re.M
    )
    assert {"templates", "static", "wsgi.py"} <= copied and set(needed[:3]) <= copied
