"""All threads of a process share a few heaps, where the C library knows how."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from tests.product import wait
from worker import memory

HEAPS = """
import ctypes, threading
from worker import memory
libc = ctypes.CDLL(None)
memory.share_arenas(libc)
libc.malloc.restype = ctypes.c_void_p
done, begun = threading.Event(), threading.Barrier(9)
def hold():
    libc.malloc(10_000)
    begun.wait()
    done.wait()
for _ in range(8):
    threading.Thread(target=hold).start()
begun.wait()
done.set()
out = ctypes.c_void_p.in_dll(libc, "stdout")
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has heaps for threads")
def test_threads_share_two_heaps() -> None:
    said = subprocess.run([sys.executable, "-c", HEAPS], capture_output=True, text=True, check=True, timeout=30).stdout
    assert 1 <= said.count("<heap nr=") <= 2


def test_what_was_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Mock()
    monkeypatch.setattr(memory, "GIVE_BACK_AFTER", 0.0)
    monkeypatch.setattr(memory, "GIVE_BACK_EVERY", 0.05)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    memory.be_modest()
    wait(lambda: library.malloc_trim.call_count >= 2, 10)
    library.mallopt.assert_called_once_with(-8, memory.ARENAS)


def windows(name: object) -> object:
    raise TypeError("argument of type 'NoneType' is not iterable")


@pytest.mark.parametrize("library", [lambda _name: object(), windows])
def test_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch, library: Callable[[object], object]) -> None:
    before = threading.active_count()
    monkeypatch.setattr(ctypes, "CDLL", library)
    memory.be_modest()
    assert threading.active_count() == before
