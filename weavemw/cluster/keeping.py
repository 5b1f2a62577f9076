"""How a host takes blocks, gives them back, and finds out what is its own: steps that somebody else carries out.

Each operation is a generator of steps (:data:`Step`). Whoever drives it does one,
and sends in what came of it, or throws in an error of :mod:`weavemw.cluster.lost`.
So a simulation drives the same code as the router.

A block belongs to a host until the host or an operator gives it away, never by
time. One operation goes on at a time, its answer included: what is answered late
would else bring back what was given away meanwhile. A request may be late as
well, since a frozen member of etcd goes on with what it had received: so a
deletion is bound to the revision at which the key was written, and what is taken
up again is written anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from weavemw.cluster.blocks import Block, Taken, block_of_key
from weavemw.cluster.kv import Absent, Compare, Delete, Outcome, Pair, Present, Put, Txn, Unchanged
from weavemw.cluster.lost import StoreUnavailable, Unsure

__all__ = ["Book", "Get", "Idle", "Keeper", "ListOf", "Local", "Sleep", "Step", "Steps"]


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key; a :class:`~weavemw.cluster.kv.Pair` or ``None`` is sent in."""

    key: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """Read all keys of a prefix that have this value; a tuple of pairs is sent in."""

    prefix: str
    value: str


@dataclass(frozen=True, slots=True)
class Local:
    """Change what the local disk keeps; sent in when it is there, with what the change returned."""

    change: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Wait until there is something to do (:meth:`Keeper.has_work`)."""


Step = Txn | Get | ListOf | Local | Sleep | Idle
Steps = Generator[Step, Any, Any]


class Book(Protocol):
    """What the local disk keeps: the host's blocks, and the addresses in them. Changes are :class:`Local` steps."""

    def blocks(self) -> frozenset[Block]:
        """The blocks that addresses are given from."""

    def add(self, block: Block) -> None:
        """Addresses may be given from this block, but for those that are leased already."""

    def drop(self, block: Block) -> bool:
        """Give no more from this block, unless something in it is leased; whether that is so."""

    def freeze(self, block: Block) -> None:
        """Give no more from this block, whatever is leased in it."""

    def idle(self) -> tuple[Block, ...]:
        """Blocks in which nothing is leased, nor was for a while."""

    def spare(self, low: int, high: int) -> int:
        """How many addresses of a subnet could be given now."""


Subnet = tuple[int, int]


class Keeper:
    """The blocks of one host. ``subnets`` are those of which a block is taken ahead of need.

    ``taken`` is what the store says of all hosts' blocks, and is kept up by whoever watches it. ``conflicts`` are
    blocks of which this host believed that they were its own, and the store says otherwise.
    """

    def __init__(self, peer: str, book: Book, subnets: tuple[Subnet, ...], chance: random.Random, *,
                 least: int = 16, keep: int = 2) -> None:
        self.peer = peer
        self.book = book
        self.taken = Taken()
        self.wanted: dict[Subnet, frozenset[Block]] = {}
        self.wanted_blocks: dict[Block, None] = {}
        self.full: set[Subnet] = set()
        self.conflicts: set[Block] = set()
        self.to_reconcile = True
        self.stopped = False
        self.tries = 0
        self._subnets = subnets
        self._chance = chance
        self._least = least
        self._keep = keep

    def want(self, subnet: Subnet, before: frozenset[Block] | None = None) -> None:
        """A block of this subnet is needed, beside those that there are, or were before."""
        self.wanted.setdefault(subnet, self.book.blocks() if before is None else before)

    def want_block(self, block: Block) -> None:
        """Exactly this block is needed."""
        self.wanted_blocks[block] = None

    def has_work(self) -> bool:
        """Whether there is something to do."""
        return (self.to_reconcile or bool(self.wanted or self.wanted_blocks) or self._short() is not None
                or self._dispensable() is not None)

    def work(self) -> Steps:
        """All operations, one after another, for ever."""
        while True:
            if not self.has_work() or self.stopped:
                yield Idle()
                continue
            try:
                yield from self.operation()
            except StoreUnavailable:
                yield Sleep(0.5 + self._chance.random())

    def operation(self) -> Steps:
        """What is most urgent now."""
        if self.to_reconcile:
            yield from self.reconcile()
        elif self.wanted_blocks:
            block = next(iter(self.wanted_blocks))
            yield from self.take_block(block)
            self.wanted_blocks.pop(block, None)
        elif self.wanted:
            subnet, before = next(iter(self.wanted.items()))
            came = any(subnet[0] <= block.low <= subnet[1] for block in self.book.blocks() - before)
            if not came and (yield from self.take(subnet)) is None:
                self.full.add(subnet)
            self.wanted.pop(subnet, None)
        elif (short := self._short()) is not None:
            if (yield from self.take(short)) is None:
                self.full.add(short)
        elif (idle := self._dispensable()) is not None:
            yield from self.give_back(idle)

    def take_block(self, block: Block) -> Steps:
        """Exactly this block, if nobody has it; whether it is ours now."""
        if block not in self.book.blocks() and (yield from self._done(self._taking(block, Absent("hold")), block)):
            yield Local(lambda: self.book.add(block))
            self.taken.add(block)
        return block in self.book.blocks()

    def take(self, subnet: Subnet) -> Steps:
        """A block of a subnet that nobody had; ``None`` if there is none left."""
        while (block := self.taken.candidate(*subnet, self._chance)) is not None:
            self.tries += 1
            if (yield from self._done(self._taking(block, Absent("hold")), block)):
                yield Local(lambda block=block: self.book.add(block))  # type: ignore[misc]  # bound now
                self.taken.add(block)
                return block
            if (yield Get("hold")) is not None:
                raise StoreUnavailable("no blocks are taken for a while: the store was restored from a backup")
            self.taken.add(block)  # so that it is not tried again; the watch says when it is free
        return None

    def give_back(self, block: Block) -> Steps:
        """Give away a block that is empty: first here, then in the store."""
        pair: Pair | None = yield Get(block.key)
        if pair is None or pair.value != self.peer:
            self.to_reconcile = True
            return
        if not (yield Local(lambda: self.book.drop(block))):
            return
        try:
            outcome: Outcome = yield Txn((Unchanged(block.key, pair.revision),), (Delete(block.key),))
            self.to_reconcile = not outcome.succeeded
            self.taken.discard(block)
        except StoreUnavailable:
            self.to_reconcile = True  # it may be ours still: then it is taken up again, all free
            raise

    def reconcile(self) -> Steps:
        """What the store says is ours becomes ours; what it has lost it is told anew; what is another's is given up."""
        pairs: tuple[Pair, ...] = yield ListOf("block/", self.peer)
        said = {block: pair for pair in pairs if (block := block_of_key(pair.key))}
        for block in sorted(said.keys() - self.book.blocks()):
            yield from self._take_up(block, said[block])
        for block in sorted(self.book.blocks() - said.keys()):
            yield from self._put_back(block)
        self.to_reconcile = False
        self.full.clear()

    def _take_up(self, block: Block, pair: Pair) -> Steps:
        """It is ours there, and not here: a late answer, or a new disk. Written anew, so that no late deletion fits."""
        outcome: Outcome = yield Txn((Unchanged(block.key, pair.revision),), (Put(block.key, self.peer),))
        if outcome.succeeded:
            yield Local(lambda: self.book.add(block))

    def _put_back(self, block: Block) -> Steps:
        """It is ours here, and not there: etcd is older than we are, or somebody removed us."""
        if not (yield from self._done(self._taking(block), block)):
            if (yield Get(f"peer/{self.peer}")) is None and (yield Get(f"removed/{self.peer}")) is None:
                raise StoreUnavailable("etcd does not know this host yet")
            yield Local(lambda: self.book.freeze(block))
            self.conflicts.add(block)

    def _done(self, txn: Txn, block: Block) -> Steps:
        try:
            outcome: Outcome = yield txn
            return outcome.succeeded
        except Unsure:
            self.to_reconcile = True  # if looking fails too, the reconciliation finds what became of it
        pair: Pair | None = yield Get(block.key)
        return pair is not None and pair.value == self.peer

    def _taking(self, block: Block, *more: Compare) -> Txn:
        around = tuple(Absent(each.key) for each in block.around())
        return Txn((Absent(*block.inside), *around, Present(f"peer/{self.peer}"), *more), (Put(block.key, self.peer),))

    def _short(self) -> Subnet | None:
        return next((subnet for subnet in self._subnets if subnet not in self.full
                     and self.book.spare(*subnet) < self._least), None)

    def _dispensable(self) -> Block | None:
        """A block that others may have: an empty one, where two more stay."""
        idle = self.book.idle()
        if len(idle) <= self._keep:
            return None
        return next((block for block in idle if self._leaves_enough(block)), None)

    def _leaves_enough(self, block: Block) -> bool:
        return all(self.book.spare(low, high) - block.size >= 2 * self._least
                   for low, high in self._subnets if low <= block.low <= high)
