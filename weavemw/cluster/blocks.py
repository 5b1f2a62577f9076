"""Blocks: the parts of a range that belong to hosts. Their arithmetic, and their keys in the store. Pure.

Both families share one order of 128 bits (see :mod:`weavemw.router.store`): an
IPv4 /26 is a block of length 122.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["LARGEST", "Block", "Taken", "block_length", "block_of_key", "fixed_part"]

BITS = 128
#: The length of the largest blocks: 64 addresses.
LARGEST = 122
_TRIES = 64  # random looks for a free block, before all are gone through
_MOST = 1 << 16  # blocks that are gone through


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """All addresses whose first ``length`` bits are those of ``low``."""

    low: int
    length: int

    @property
    def high(self) -> int:
        """The last address."""
        return self.low + self.size - 1

    @property
    def size(self) -> int:
        """How many addresses."""
        return 1 << (BITS - self.length)

    @property
    def key(self) -> str:
        """Its name in the store; names are in the order of the addresses."""
        return f"block/{self.low:032x}/{self.length}"

    @property
    def inside(self) -> tuple[str, str]:
        """The range of names that has this block and all that lie in it: "0" follows "/"."""
        return f"block/{self.low:032x}/", f"block/{self.high:032x}0"

    def around(self) -> Iterator[Block]:
        """The blocks that would hold this one, largest first."""
        return (at(self.low, length) for length in range(LARGEST, self.length))


def at(key: int, length: int) -> Block:
    """The block of this length that an address lies in."""
    return Block(key >> (BITS - length) << (BITS - length), length)


def block_of_key(key: str) -> Block | None:
    """The block that has this name; ``None`` for what is no name of a block."""
    kind, _, rest = key.partition("/")
    low, _, length = rest.partition("/")
    try:
        block = Block(int(low, 16), int(length))
    except ValueError:
        return None
    return block if kind == "block" and block.key == key and LARGEST <= block.length <= BITS else None


def block_length(low: int, high: int) -> int:
    """How long blocks of a subnet are: 64 addresses, fewer where fewer than 64 hosts could have one."""
    return min(BITS, max(LARGEST, BITS - (high - low + 1).bit_length() + 1 + 6))


class Taken:
    """Which blocks have owners, as far as is known; finds one that has none."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks = set(blocks)
        self._inside: dict[Block, int] = {}
        for block in self._blocks:
            self._count(block, 1)

    def __contains__(self, block: Block) -> bool:
        return block in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, block: Block) -> None:
        """This block has an owner."""
        if block not in self._blocks:
            self._blocks.add(block)
            self._count(block, 1)

    def discard(self, block: Block) -> None:
        """This block has none."""
        if block in self._blocks:
            self._blocks.discard(block)
            self._count(block, -1)

    def is_free(self, block: Block) -> bool:
        """Whether neither this block, nor one around it, nor one in it has an owner."""
        return not (block in self._blocks or self._inside.get(block)
                    or any(each in self._blocks for each in block.around()))

    def holder_of(self, key: int) -> Block | None:
        """The block with an owner that an address lies in."""
        return next((block for length in range(LARGEST, BITS + 1) if (block := at(key, length)) in self._blocks), None)

    def candidate(self, low: int, high: int, chance: random.Random) -> Block | None:
        """A block of a subnet that is free: a random one, since many hosts may look at once."""
        length = block_length(low, high)
        shift = BITS - length
        count = (high - low + 1) >> shift
        for _ in range(_TRIES):
            block = Block(low + (chance.randrange(count) << shift), length)
            if self.is_free(block):
                return block
        return self._any(low, length, count, chance)

    def _any(self, low: int, length: int, count: int, chance: random.Random) -> Block | None:
        shift, start = BITS - length, chance.randrange(count)
        for step in range(min(count, _MOST)):
            block = Block(low + ((start + step) % count << shift), length)
            if self.is_free(block):
                return block
        return None

    def _count(self, block: Block, by: int) -> None:
        for each in block.around():
            self._inside[each] = self._inside.get(each, 0) + by
            if not self._inside[each]:
                del self._inside[each]


def fixed_part(low: int, high: int, number: int, hosts: int, least: int = 4) -> tuple[int, int]:
    """The part of a range that host ``number`` (from 0) of a fixed list has.

    The range is cut into equal parts, as many as the next power of two that is not below ``hosts`` nor ``least``.
    """
    parts = 1 << (max(hosts, least, 1) - 1).bit_length()
    size = (high - low + 1) // parts
    return low + number * size, low + (number + 1) * size - 1
