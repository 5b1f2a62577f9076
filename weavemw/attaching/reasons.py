"""Why more of a container than its interface must be looked at: what was heard of it, and not yet acted upon.

A reason is taken out before the work, and put back if the work fails. So what
is heard of a container while somebody works on it stays, and is worked on next:
taken out afterwards it would go with those that the work knew of.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Reason", "Reasons"]


class Reason(enum.Flag):
    """What may have changed, while its interface is there and up."""

    UNSURE = enum.auto()  #: It runs, and nobody knows whether its names are registered.
    RENAMED = enum.auto()  #: It has another name.
    CONNECTED = enum.auto()  #: To a network, or disconnected from one: it may have other aliases.
    DIED = enum.auto()  #: And for that its names were taken away.
    DAMAGED = enum.auto()  #: Perhaps: its interface is to be compared with what it should be.


class Reasons:
    """The reasons of all containers, by container id. Thread-safe."""

    def __init__(self) -> None:
        self._reasons: dict[str, Reason] = {}
        self._lock = threading.Lock()

    def add(self, container_id: str, reason: Reason) -> None:
        """There is this reason too."""
        with self._lock:
            self._set(container_id, self._of(container_id) | reason)

    def withdraw(self, container_id: str, reason: Reason) -> None:
        """This is no reason any more."""
        with self._lock:
            self._set(container_id, self._of(container_id) & ~reason)

    def of(self, container_id: str) -> Reason:
        """All reasons, which stay."""
        with self._lock:
            return self._of(container_id)

    @contextmanager
    def taken(self, container_id: str) -> Iterator[Reason]:
        """All reasons, which are gone; if the block raises they are reasons again, with those added meanwhile."""
        with self._lock:
            found = self._reasons.pop(container_id, Reason(0))
        try:
            yield found
        except BaseException:
            self.add(container_id, found)
            raise

    def _of(self, container_id: str) -> Reason:
        return self._reasons.get(container_id, Reason(0))

    def _set(self, container_id: str, reason: Reason) -> None:
        if reason:
            self._reasons[container_id] = reason
        else:
            self._reasons.pop(container_id, None)
