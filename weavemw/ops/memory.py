"""Memory that many short lives used, given back to the system: the C library keeps it, in case they come again."""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["Ended"]

_MANY, _SOME = 512, 64


class Ended:
    """Counts lives that used much memory outside of Python's own; for one thread."""

    def __init__(self) -> None:
        self._count = 0

    def one(self, left: int) -> None:
        """One has ended, and so many go on: after many, or some of which none is left, the memory is given back."""
        self._count += 1
        if self._count >= (_SOME if not left else _MANY):
            self._count = 0
            _trim()


def _trim() -> None:
    with contextlib.suppress(AttributeError, OSError):  # musl has no malloc_trim(3), and keeps less
        ctypes.CDLL(None).malloc_trim(0)
