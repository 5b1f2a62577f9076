"""A queue of keys that are due at some time, each worked on by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Schedule"]


class Schedule:
    """Keys wait here until they are due; a key put twice waits once, and one that is worked on is not taken again.

    ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._taken: set[str] = set()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, key: str, delay: float = 0.0) -> None:
        """Let the key be due in ``delay`` seconds, or earlier if it was due earlier."""
        due = self._clock() + delay
        with self._changed:
            self._due[key] = min(due, self._due.get(key, due))
            self._changed.notify_all()

    def take(self) -> str | None:
        """Wait for a key that is due, and take it; ``None`` once the schedule is closed."""
        with self._changed:
            while not self._closed:
                key, wait = self._next()
                if key is not None and wait <= 0:
                    del self._due[key]
                    self._taken.add(key)
                    return key
                self._changed.wait(None if key is None else wait)
        return None

    def done(self, key: str) -> None:
        """The key that was taken may be taken again."""
        with self._changed:
            self._taken.discard(key)
            self._changed.notify_all()

    def close(self) -> None:
        """Let every :meth:`take` end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._due) + len(self._taken)

    def _next(self) -> tuple[str | None, float]:
        free = [(due, key) for key, due in self._due.items() if key not in self._taken]
        due, key = min(free, default=(0.0, None))
        return key, due - self._clock()
