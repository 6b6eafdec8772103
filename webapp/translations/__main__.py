"""Collect the texts, update the Russian catalogue, compile it; ends with 1 while a translation is missing."""

from __future__ import annotations

import sys

from webapp.translations import CATALOGUE, refresh


def main() -> int:
    left = refresh()
    for text in left:
        print(f"not translated: {text}")
    print(f"{CATALOGUE}: {len(left)} left to translate" if left else f"{CATALOGUE}: complete")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
