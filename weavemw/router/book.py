"""The local book of blocks: which parts of shared ranges are this host's, kept beside its leases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from weavemw.cluster.blocks import BITS, LARGEST, Block, at
from weavemw.router.allocator import Allocator
from weavemw.router.client import Interface
from weavemw.router.store import Database, blob, number

__all__ = ["BlockTable", "LocalBook", "MemoryBlocks", "SqliteBlocks"]

_REST = 600.0  # seconds that a block is empty before others may have it


class BlockTable(Protocol):
    """Which blocks are kept as ours."""

    def all(self) -> frozenset[Block]:
        """All of them."""

    def put(self, block: Block) -> None:
        """Keep one."""

    def drop(self, block: Block) -> None:
        """Forget one."""


class MemoryBlocks:
    """:class:`BlockTable` that forgets."""

    def __init__(self) -> None:
        self._blocks: set[Block] = set()

    def all(self) -> frozenset[Block]:
        return frozenset(self._blocks)

    def put(self, block: Block) -> None:
        self._blocks.add(block)

    def drop(self, block: Block) -> None:
        self._blocks.discard(block)


class SqliteBlocks:
    """:class:`BlockTable` in the router's database; the table is made where a store is first given."""

    def __init__(self, database: Database) -> None:
        self._execute = database.execute
        self._execute("CREATE TABLE IF NOT EXISTS block (low BLOB NOT NULL, length INTEGER NOT NULL, "
                      "PRIMARY KEY (low, length)) STRICT, WITHOUT ROWID")

    def all(self) -> frozenset[Block]:
        return frozenset(Block(number(low), length) for low, length in self._execute("SELECT low, length FROM block"))

    def put(self, block: Block) -> None:
        self._execute("INSERT OR IGNORE INTO block (low, length) VALUES (?, ?)", blob(block.low), block.length)

    def drop(self, block: Block) -> None:
        self._execute("DELETE FROM block WHERE low = ? AND length = ?", blob(block.low), block.length)


class LocalBook:
    """:class:`~weavemw.cluster.keeping.Book` over a table of blocks and the allocator of their addresses.

    ``clock`` is in seconds. Changes belong into a transaction; after one was lost, :meth:`load`.
    """

    def __init__(self, table: BlockTable, clock: Callable[[], float], *, rest: float = _REST) -> None:
        self._table = table
        self._clock = clock
        self._rest = rest
        self._empty_since: dict[Block, float] = {}
        self.allocator: Allocator | None = None
        self.load()

    def load(self) -> None:
        """Read all blocks anew."""
        self._blocks = set(self._table.all())

    def attach(self, allocator: Allocator) -> None:
        """Give from these blocks by this allocator; within a transaction."""
        self.allocator = allocator
        allocator.fit([(block.low, block.high) for block in sorted(self._blocks)])

    def is_ours(self, key: int) -> bool:
        """Whether an address lies in one of the blocks."""
        return any(at(key, length) in self._blocks for length in range(LARGEST, BITS + 1))

    def blocks(self) -> frozenset[Block]:
        return frozenset(self._blocks)

    def add(self, block: Block) -> None:
        self._table.put(block)
        self._blocks.add(block)
        self._gives.admit(block.low, block.high)

    def drop(self, block: Block) -> bool:
        if self._gives.leased_between(block.low, block.high):
            return False
        self.freeze(block)
        return True

    def freeze(self, block: Block) -> None:
        self._gives.withdraw(block.low, block.high)
        self._table.drop(block)
        self._blocks.discard(block)
        self._empty_since.pop(block, None)

    def idle(self) -> tuple[Block, ...]:
        now = self._clock()
        empty = [block for block in sorted(self._blocks) if not self._gives.leased_between(block.low, block.high)]
        self._empty_since = {block: self._empty_since.get(block, now) for block in empty}
        return tuple(block for block, since in self._empty_since.items() if now - since >= self._rest)

    def spare(self, low: int, high: int) -> int:
        inside = [block for block in self._blocks if low <= block.low and block.high <= high]
        return sum(block.size - self._gives.leased_between(block.low, block.high) for block in inside)

    def addresses_of(self, owner: str) -> tuple[Interface, ...]:
        """What an owner holds."""
        return self._gives.owned(owner).get(owner, ())

    def owners(self) -> frozenset[str]:
        """Whoever holds something."""
        return frozenset(self._gives.owned())

    def strays(self) -> tuple[tuple[int, str], ...]:
        """Leases of the ranges that lie in no block of this host: number and owner."""
        return tuple(lease for lease in self._gives.inside() if not self.is_ours(lease[0]))

    def record(self, owner: str, interface: Interface) -> None:
        """An owner has this address, as is known from elsewhere; unless somebody has it by this book."""
        self._gives.record(owner, interface)

    @property
    def _gives(self) -> Allocator:
        assert self.allocator
        return self.allocator
