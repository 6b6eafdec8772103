"""`python -m tests.bench` runs every bench, `python -m tests.bench p6 p7` these; `--big` with the full numbers.

A bench is a module here named p<number> with `run(big: bool) -> list[Result]`; adding the file is enough.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.common import apart, measure

NAMES = sorted((path.stem for path in Path(__file__).parent.glob("p[0-9]*.py")), key=lambda name: int(name[1:]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="name", help=", ".join(NAMES))
    parser.add_argument("--big", action="store_true", help="a million where the ordinary run takes less")
    options = parser.parse_args()
    print("| | measured | floor | ratio | bar | met | note |\n|---|---|---|---|---|---|---|", flush=True)
    met = True
    for name in options.names or NAMES:
        for result in apart(measure, name, options.big):
            cells = [str(cell) for cell in result._replace(met="yes" if result.met else "**no**")]
            print(f"| {' | '.join(cells)} |", flush=True)
            met = met and result.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
