"""A queue of tasks that are due at some time, each worked on by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Schedule"]

K = TypeVar("K", bound=Hashable)


class Schedule(Generic[K]):
    """Tasks wait here until they are due; one put twice waits once, and one that is worked on is not taken again.

    Tasks are the same if they are equal. ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[K, float] = {}
        self._taken: set[K] = set()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, task: K, delay: float = 0.0) -> None:
        """Let the task be due in ``delay`` seconds, or earlier if it was due earlier."""
        due = self._clock() + delay
        with self._changed:
            self._due[task] = min(due, self._due.get(task, due))
            self._changed.notify()

    def take(self) -> K | None:
        """Wait for a task that is due, and take it; ``None`` once the schedule is closed."""
        with self._changed:
            while not self._closed:
                task = self._next()
                wait = None if task is None else self._due[task] - self._clock()
                if task is not None and wait is not None and wait <= 0:
                    del self._due[task]
                    self._taken.add(task)
                    self._changed.notify()  # somebody else has to wait for the next one
                    return task
                self._changed.wait(wait)
        return None

    def done(self, task: K) -> None:
        """The task that was taken may be taken again."""
        with self._changed:
            self._taken.discard(task)
            self._changed.notify()

    def close(self) -> None:
        """Let every :meth:`take` end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def tasks(self) -> set[K]:
        """All that wait, or are worked on."""
        with self._changed:
            return {*self._due, *self._taken}

    def __len__(self) -> int:
        with self._changed:
            return len(self._due) + len(self._taken)

    def _next(self) -> K | None:
        """The first that nobody works on."""
        return min((task for task in self._due if task not in self._taken), key=self._due.__getitem__, default=None)
