"""`python -m tests.screens` draws every page, in both languages and schemes, at three widths, into .artifacts/screens/.

`--only TEXT` draws the pages whose address has that in it; `--readme` draws the pictures of the README instead.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e import browser, places
from tests.e2e import house as houses
from tests.e2e.house import House
from tests.e2e.places import Place
from worker.models import Broadcast, RecipientFile

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / ".artifacts" / "screens"
README = ROOT / ".assets"
LANGUAGES, SCHEMES, WIDTHS = ("ru", "en"), ("light", "dark"), (360, 768, 1440)
OF_THE_README = {"running": "/broadcasts/{running}"}


def window(chromium: Any, house: House, who: str, language: str, scheme: str) -> Any:
    """A page of a browser whose person has chosen this language and scheme."""
    context = chromium.new_context(locale=language, color_scheme=scheme, reduced_motion="reduce")
    cookies = [{"name": "molva_language", "value": language, "url": house.url}]
    context.add_cookies(cookies if who == "stranger" else [*cookies, house.cookie(who)])
    return context.new_page()


def draw(page: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # caret: hiding it would put a style into the page, which its policy forbids
    page.screenshot(path=file, full_page=True, caret="initial")


def everything(chromium: Any, house: House, only: str) -> Iterator[Path]:
    """Draw all of an installation, one folder for each way of looking; yields the files."""
    found = [place for place in places.of(house) if only in place.path]
    for language, scheme in itertools.product(LANGUAGES, SCHEMES):
        for who in sorted({place.who for place in found}):
            page = window(chromium, house, who, language, scheme)
            for width, place in itertools.product(WIDTHS, [place for place in found if place.who == who]):
                # before it loads: a page that became narrow later is not what a narrow screen shows
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(house.url + place.path)
                file = PICTURES / f"{language}-{scheme}-{width}" / f"{_name(place, house)}.png"
                draw(page, file)
                yield file
            page.context.close()


def _name(place: Place, house: House) -> str:
    return place.name if house.numbers else f"empty-{place.name}"


def of_the_readme(chromium: Any, house: House) -> None:
    """In English, and no more than fits on a screen."""
    running = house.numbers["running"]
    text = "{{ name }}, 20 % off everything this weekend. Reply STOP to hear no more."
    Broadcast.update(name="Weekend discount", text=text).where(Broadcast.id == running).execute()
    RecipientFile.update(name="November customers.csv").where(RecipientFile.broadcast == running).execute()
    page = window(chromium, house, "admin", "en", "light")
    page.set_viewport_size({"width": 1180, "height": 660})
    for name, path in OF_THE_README.items():
        page.goto(house.url + path.format(**house.numbers))
        page.screenshot(path=README / f"{name}.png", caret="initial")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.screens", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="pages whose address has this in it")
    parser.add_argument("--readme", action="store_true", help="the pictures of the README, into .assets/")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # one of the pages is that of a fault
    began, drawn = time.monotonic(), 0
    if not options.readme and not options.only:
        shutil.rmtree(PICTURES, ignore_errors=True)
    with tempfile.TemporaryDirectory() as data, browser.launched() as chromium:
        with houses.standing(Path(data) / "full", houses.everything) as house:
            if options.readme:
                of_the_readme(chromium, house)
                return 0
            drawn += sum(1 for _file in everything(chromium, house, options.only))
        with houses.standing(Path(data) / "empty", houses.first_day) as house:
            drawn += sum(1 for _file in everything(chromium, house, options.only))
    print(f"{drawn} pictures in {PICTURES.relative_to(ROOT)}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
