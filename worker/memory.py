"""How the C library hands out memory, and takes it back."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable
from typing import Any

ARENAS = 2
GIVE_BACK_AFTER, GIVE_BACK_EVERY = 3.0, 60.0  # seconds
_M_ARENA_MAX = -8  # malloc.h of glibc


def be_modest() -> None:
    """Hold less of the machine's memory in this process, where the C library is glibc; nothing changes elsewhere."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # musl, macOS, Windows
        share_arenas(ctypes.CDLL(None))
        threading.Thread(target=_keep_giving_back, args=(ctypes.CDLL(None).malloc_trim,), daemon=True).start()


def share_arenas(library: ctypes.CDLL) -> None:
    """Let all threads share two heaps.

    glibc makes one for each thread, up to eight for each core, and what is freed in one helps no other. Python lets
    one thread work at a time, so there is nobody to wait for.
    """
    library.mallopt(_M_ARENA_MAX, ARENAS)


def _keep_giving_back(trim: Callable[[int], Any]) -> None:
    """Return what was freed: after the start, and after a large list or report, it would stay with us for good."""
    pause = threading.Event()
    pause.wait(GIVE_BACK_AFTER)
    while True:
        trim(0)
        pause.wait(GIVE_BACK_EVERY)
