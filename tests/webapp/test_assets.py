"""Static files: found in a checkout and a wheel, kept for ever, and known down to the last byte."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import make
from tests.people import Browser
from webapp import assets

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "static" / "vendor"


def address(app: Flask, name: str) -> str:
    with app.test_request_context():
        return assets.asset_url(name)


def test_a_file_asked_for_by_its_hash_is_kept_for_ever(app: Flask, client: FlaskClient) -> None:
    answer = client.get(address(app, "app.css"))
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.mimetype == "text/css"
    assert answer.data == (ROOT / "static" / "app.css").read_bytes()
    assert "Set-Cookie" not in answer.headers


def test_a_file_without_its_hash_is_asked_for_again(client: FlaskClient) -> None:
    answer = client.get("/static/app.css")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = client.get("/static/app.css", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_files_travel_packed(app: Flask, client: FlaskClient) -> None:
    answer = client.get(address(app, "app.css"), headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.data) == (ROOT / "static" / "app.css").read_bytes()
    assert len(answer.data) < 10_000


def test_pages_travel_packed(sender: Browser) -> None:
    plain = sender.get("/settings")
    packed = sender.get("/settings", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert "<h1>" in gzip.decompress(packed.data).decode()
    assert len(packed.data) < len(plain.data) / 2
    assert {"Accept-Encoding", "Cookie"} <= set(packed.vary) and {"Accept-Encoding"} <= set(plain.vary)


def test_the_length_of_a_packed_page_tells_nothing(sender: Browser) -> None:
    lengths = {len(sender.get("/no-such-page", headers={"Accept-Encoding": "gzip"}).data) for _again in range(20)}
    assert len(lengths) > 5


def test_what_is_answered_without_flask_is_said_to_be_plain(sender: Browser, clock: object) -> None:
    row = make.broadcast(state="running")
    sender.page(f"/broadcasts/{row.id}")
    ask = {"headers": {"Accept-Encoding": "gzip", "HX-Request": "true"}}
    first, again = (sender.get(f"/broadcasts/{row.id}/live", **ask) for _time in range(2))
    assert b'id="live"' in gzip.decompress(first.data)
    assert "Content-Encoding" not in again.headers and 'id="live"' in again.text


@pytest.mark.parametrize(
    "path", ["../pyproject.toml", "%2e%2e/wsgi.py", "..%5cwsgi.py", "/etc/passwd", "vendor", "", "app.css%00", "x.css"]
)
def test_nothing_outside_is_served(client: FlaskClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code in (404, 308)


def test_the_folders_are_found_inside_the_package_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "webapp" / "static").mkdir(parents=True)
    monkeypatch.setattr(assets, "HERE", tmp_path / "webapp")
    assert assets.folder("static") == tmp_path / "webapp" / "static"
    assert assets.folder("templates") == tmp_path / "templates"


@pytest.mark.parametrize("folder", [VENDOR, ROOT / "tests" / "vendor"])
def test_vendored_files_are_the_ones_in_the_manifest(folder: Path) -> None:
    listed = json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8"))
    for part in listed:
        body = (folder / part["file"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == part["sha256"], part["file"]
        assert part["version"] in part["file"]
        assert part["licence"] and (folder / part["licence_file"]).is_file()
    known = {part[key] for part in listed for key in ("file", "licence_file", "notice_file") if key in part}
    assert {path.name for path in folder.iterdir()} == known | {"MANIFEST.json"}


def test_every_icon_that_is_named_is_drawn() -> None:
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', (ROOT / "static" / "icons.svg").read_text(encoding="utf-8")))
    sources = [*(ROOT / "templates").rglob("*.html"), ROOT / "static" / "app.js"]
    named = set()
    for path in sources:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'\bicon\("([\w-]+)"', text)) | set(re.findall(r'icon="([\w-]+)"', text))
    from webapp import words

    tables = (words.BROADCAST_STATES, words.MESSAGE_STATUSES)
    named |= {word.icon for table in tables for word in table.values()} | {item.icon for item in words.MENU}
    assert named <= drawn


def test_states_have_words_for_every_code() -> None:
    from webapp import words
    from worker import people, states

    assert set(states.MESSAGE_STATUSES) == set(words.MESSAGE_STATUSES)
    assert set(states.BROADCAST_STATES) <= set(words.BROADCAST_STATES)
    assert set(people.ROLES) == set(words.ROLES)


def test_our_own_files_stay_small_and_know_no_other_server() -> None:
    for name in ("app.css", "app.js", "icons.svg"):
        text = (ROOT / "static" / name).read_text(encoding="utf-8")
        assert len(text) < 42_000
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
        assert "eval(" not in text and "innerHTML" not in text


def test_the_colours_of_text_can_be_read() -> None:
    """WCAG AA, 4.5 to 1, for every tone on its ground, light and dark."""
    css = (ROOT / "static" / "app.css").read_text(encoding="utf-8")
    tokens = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", css))
    colours = {name: value.split(", ") for name, value in tokens.items()}

    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((light(one), light(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    pairs = [(ink, ground, 4.5) for ink in ("ink", "soft", "accent") for ground in ("paper", "surface", "sunk")]
    pairs += [(tone, f"{tone}-wash", 4.5) for tone in ("good", "bad", "warn", "info", "accent")]
    pairs += [("soft", "quiet-wash", 4.5), ("bad", "surface", 4.5), ("on-accent", "accent", 4.5)]
    pairs += [("edge", ground, 3.0) for ground in ("surface", "paper")]
    for ink, ground, least in pairs:
        for scheme in (0, 1):
            found = contrast(colours[ink][scheme], colours[ground][scheme])
            assert found >= least, f"{ink} on {ground}: {found:.2f}"
