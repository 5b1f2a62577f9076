"""Who has how much of what there is only so much of: the flood of one client never takes what others need. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Shares"]

T = TypeVar("T", bound=Hashable)


class Shares(Generic[T]):
    """At most ``limit`` things, each of a client. Keeping to the limit is its user's: see :attr:`full`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._things: dict[str, dict[T, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether one thing has to go before another one comes."""
        return self._count >= self.limit

    def of(self, client: str) -> tuple[T, ...]:
        """What a client has, the oldest thing first."""
        return tuple(self._things.get(client, ()))

    def add(self, client: str, thing: T) -> None:
        """Let the client have one more thing."""
        self._things.setdefault(client, {})[thing] = None
        self._count += 1

    def remove(self, client: str, thing: T) -> None:
        """The thing is gone; no error if it was before."""
        things = self._things.get(client, {})
        if thing in things:
            del things[thing]
            self._count -= 1
            if not things:
                del self._things[client]

    def richest(self, client: str) -> str:
        """Who would have most with one more thing of this client; if it is not alone in that, the client itself."""
        def count(holder: str) -> int:
            return len(self._things[holder])

        has = len(self._things.get(client, ()))
        richest = max(self._things, key=count, default=client)
        return richest if not has or count(richest) > has + 1 else client
