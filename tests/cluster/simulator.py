"""Many hosts, one etcd, and all that can go wrong, in virtual time: a seed is a run. Drives the product's own blocks.

    python tests/cluster/simulator.py [--seeds N] [--first SEED] [--hosts N] [--seconds N] [--mistake NAME]

Ends with status 1 as soon as an address is on two containers. With a mistake put in on purpose it should.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from fakeetcd import FakeEtcd

from weavemw.cluster.blocks import Block, Taken, block_of_key
from weavemw.cluster.keeping import Get, Idle, Keeper, ListOf, Local, Sleep, Steps, Subnet
from weavemw.cluster.kv import Change, Delete, Pair, Put, Txn
from weavemw.cluster.lost import StoreUnavailable, Unsure
from weavemw.router.allocator import Allocator, SubnetFull
from weavemw.router.book import LocalBook, MemoryBlocks
from weavemw.router.store import AddressLease, MemoryStore, key_of

SHARED = ip_network("10.32.2.0/24")


def _bounds(network: IPv4Network) -> Subnet:
    return key_of(network.network_address), key_of(network.broadcast_address)


def _lease_of(peer: str) -> int:
    return zlib.crc32(peer.encode()) + 1


class Duplicate(Exception):
    """An address on two containers."""


class _Store(MemoryStore):
    """As it is, with an index of owners: there are many hosts here."""

    def __init__(self) -> None:
        super().__init__()
        self._owned: dict[str, list[AddressLease]] = {}

    def leases_of(self, owner: str) -> tuple[AddressLease, ...]:
        return tuple(self._owned.get(owner, ()))

    def leases_at(self, key: int) -> tuple[AddressLease, ...]:
        return tuple(lease for leases in self._owned.values() for lease in leases if lease.key == key)

    def put_lease(self, lease: AddressLease) -> None:
        super().put_lease(lease)
        self._owned.setdefault(lease.owner, []).append(lease)

    def drop_lease(self, lease: AddressLease) -> None:
        super().drop_lease(lease)
        self._owned[lease.owner].remove(lease)


# ---- mistakes, each of which the simulation must find


class ByLease(Keeper):
    """Blocks are kept by a lease, as `up/` is."""

    def _taking(self, block: Block, *more: Any) -> Txn:
        txn = super()._taking(block, *more)
        return Txn(txn.compare, tuple(Put(each.key, each.value, _lease_of(self.peer)) for each in txn.then
                                      if isinstance(each, Put)))


class StoreFirst(Keeper):
    """A block is given back in the store before the local disk forgets it."""

    def give_back(self, block: Block) -> Steps:
        pair = yield Get(block.key)
        if pair and pair.value == self.peer:
            try:
                yield Txn((), (Delete(block.key),))
            finally:
                self.book.freeze(block)


class AllAtOnce(Keeper):
    """Operations overlap: each new reason begins one, whether the last has ended or not."""

    def work(self) -> Steps:
        while True:
            yield Idle()


class LostIsDone(Keeper):
    """A lost answer is taken for a yes."""

    def _done(self, txn: Txn, block: Block) -> Steps:
        try:
            return (yield txn).succeeded
        except Unsure:
            return True


class NotWrittenAnew(Keeper):
    """What is found in the store is taken up as it is, and deletions say whose it must be, not since when."""

    def _take_up(self, block: Block, pair: Pair) -> Steps:
        yield Local(lambda: self.book.add(block))

    def give_back(self, block: Block) -> Steps:
        steps = super().give_back(block)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            if isinstance(step, Txn):
                step = Txn((), step.then)
            try:
                answer = yield step
            except StoreUnavailable as error:
                steps.throw(error)


MISTAKES: dict[str, type[Keeper]] = {"by-lease": ByLease, "store-first": StoreFirst, "all-at-once": AllAtOnce,
                                     "lost-is-done": LostIsDone, "not-written-anew": NotWrittenAnew}


class World:
    """The clock, etcd, and what really runs."""

    def __init__(self, seed: int, hosts: int, keeper: type[Keeper] = Keeper) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.etcd = FakeEtcd()
        self.up = True
        self.taken = Taken()
        self.running: dict[int, tuple[str, str]] = {}
        self.counts: Counter[str] = Counter()
        self.loss = 0.2
        self.keeper = keeper
        # some three blocks for each host, so that what one gives away another takes
        self.range = ip_network((0x0A200000, 26 - (3 * hosts - 1).bit_length()))
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.etcd.watchers.append(self._watch)
        self.hosts = [Host(self, number) for number in range(hosts)]

    def at(self, after: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + after, next(self._number), what))

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self._queue)
            what()
        self.now = until

    def start(self, host: Host, container: str, key: int) -> None:
        if key in self.running and self.running[key] != (host.name, container):
            raise Duplicate(f"after {self.now:.3f} s: {key & 0xFFFFFFFF:x} for {host.peer} {container} is on "
                            f"{self.running[key]}")
        self.running[key] = host.name, container

    def _watch(self, change: Change) -> None:
        if block := block_of_key(change.key):
            (self.taken.discard if change.value is None else self.taken.add)(block)


class Host:
    """A host: its disk, its containers, its link to etcd."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"h{number}"
        self.linked = True
        self.epoch = 0
        self.generation = 0
        self._containers = itertools.count()
        self.born()

    def born(self) -> None:
        """A new disk, and a new name."""
        self.generation += 1
        self.peer = f"{self.name}.{self.generation}"
        self.store, self.table = _Store(), MemoryBlocks()
        self.held: dict[str, int] = {}
        self.epoch += 1
        self.launch()

    def launch(self) -> None:
        """The router starts with the disk that there is."""
        world = self.world
        self.book = LocalBook(self.table, lambda: world.now, rest=0.3)
        self.allocator = Allocator(self.store, world.range, rest=40, is_ours=self.book.is_ours)
        self.book.attach(self.allocator)
        self.keeper = world.keeper(self.peer, self.book, (_bounds(world.range),), world.chance, least=12, keep=0)
        self.keeper.taken = world.taken
        self._drive(self._enter())

    def _enter(self) -> Steps:
        while True:
            try:
                if (yield Get(f"peer/{self.peer}")) is None:
                    yield Txn((), (Put(f"peer/{self.peer}", "x"),))
                break
            except StoreUnavailable:
                yield Sleep(1 + self.world.chance.random())
        yield from self.keeper.work()

    def _drive(self, steps: Generator[Any, Any, Any]) -> None:
        epoch = self.epoch

        def step(value: Any = None, error: Exception | None = None) -> None:
            if self.epoch != epoch:
                return
            try:
                what = steps.throw(error) if error else steps.send(value)
            except StopIteration:
                return
            except StoreUnavailable:
                self.keeper.to_reconcile = True
                return
            self._do(what, step)

        step()

    def _do(self, what: Any, step: Callable[..., None]) -> None:
        world = self.world
        if isinstance(what, Local):
            step(what.change())
        elif isinstance(what, Sleep):
            world.at(what.seconds, step)
        elif isinstance(what, Idle):
            world.at(0.2 + 0.2 * world.chance.random(), lambda: self._look(step))
        else:
            self._ask(what, step)

    def _look(self, step: Callable[..., None]) -> None:
        if isinstance(self.keeper, AllAtOnce) and self.keeper.has_work():
            self._drive(self.keeper.operation())  # another one beside it
        step()

    def _ask(self, what: Any, step: Callable[..., None]) -> None:
        """To etcd and back: lost on the way, late, done and the answer lost, or well."""
        world, chance = self.world, self.world.chance

        def arrive() -> None:
            lot = chance.random()
            if not (self.linked and world.up):
                world.at(2.0, lambda: step(error=StoreUnavailable("down")))
            elif lot < world.loss / 5:
                world.at(2.0, lambda: step(error=Unsure("lost on the way")))
            elif lot < world.loss * 4 / 5:  # a frozen member does it when it wakes up
                world.at(2.0, lambda: step(error=Unsure("late")))
                world.at(chance.uniform(1, 15), lambda: self._answer(what))
            elif lot < world.loss:
                self._answer(what)
                world.at(2.0, lambda: step(error=Unsure("the answer was lost")))
            else:
                answer = self._answer(what)
                back = chance.uniform(0, 8) if lot > 0.9 else chance.expovariate(30)
                world.at(back, lambda: step(answer))

        world.at(chance.expovariate(30), arrive)

    def _answer(self, what: Any) -> Any:
        self.world.counts["asked"] += 1
        match what:
            case Txn():
                return self.world.etcd.txn(what)
            case Get(key):
                return self.world.etcd.get(key)
            case ListOf(prefix, value):
                return self.world.etcd.with_value(prefix, value)
        raise TypeError(what)

    # ---- what Docker does

    def run_container(self, since: float | None = None) -> None:
        """Start one, as soon as there is an address; for 30 s at most."""
        world = self.world
        since = world.now if since is None else since
        container = f"c{next(self._containers)}"
        subnet = SHARED if world.chance.random() < 0.02 else world.range
        try:
            key = key_of(self.allocator.allocate(container, subnet).ip)
        except SubnetFull:
            self.keeper.want(_bounds(subnet))
            epoch = self.epoch
            if world.now - since < 10:
                world.at(0.5, lambda: self.run_container(since) if self.epoch == epoch else None)
            else:
                world.counts["refused"] += 1
            return
        world.counts["starts"] += 1
        world.start(self, container, key)
        self.held[container] = key

    def end(self, container: str) -> None:
        """A container ends."""
        del self.world.running[self.held.pop(container)]
        self.allocator.free_all(container)

    def churn(self) -> None:
        """Something starts or ends."""
        if len(self.held) > 100 or (self.held and self.world.chance.random() < 0.48):
            self.end(self.world.chance.choice(list(self.held)))
        else:
            self.run_container()

    # ---- what goes wrong

    def crash(self) -> None:
        """The router dies and comes back; containers run on."""
        self.epoch += 1
        epoch = self.epoch
        self.world.at(self.world.chance.uniform(0.1, 20), lambda: self.launch() if self.epoch == epoch else None)

    def wipe(self) -> None:
        """Disk and containers are gone; half the time an operator removes what was."""
        old = self.peer
        for container in list(self.held):
            del self.world.running[self.held.pop(container)]
        self.born()
        if self.world.chance.random() < 0.5:
            self.world.at(self.world.chance.uniform(0, 30), lambda: self._remove(old))

    def _remove(self, peer: str) -> None:
        etcd = self.world.etcd
        etcd.txn(Txn((), (Delete(f"peer/{peer}"), Put(f"removed/{peer}", ""))))
        for pair in etcd.with_value("block/", peer):
            etcd.txn(Txn((), (Delete(pair.key),)))

    def empty(self) -> None:
        """All containers but those in one block end, so that the others may be given back."""
        for block in sorted(self.book.blocks())[1:]:
            for container in [name for name, key in self.held.items() if block.low <= key <= block.high]:
                self.end(container)

    def reconcile(self) -> None:
        """The connection to etcd is a new one."""
        self.keeper.to_reconcile = True


def simulate(seed: int, hosts: int, seconds: float, mistake: str = "") -> World:
    """One run. Raises :class:`Duplicate`."""
    world = World(seed, hosts, MISTAKES.get(mistake, Keeper))
    chance = world.chance

    def again(rate: float, what: Callable[[], None]) -> None:
        def once() -> None:
            if world.now < seconds:
                what()
                world.at(chance.expovariate(rate), once)
        world.at(5, once)

    def partition() -> None:
        some = chance.sample(world.hosts, max(1, hosts // 10))
        for host in some:
            host.linked = False
        world.at(chance.uniform(1, 30), lambda: [_link(host) for host in some] and None)

    def stop_etcd() -> None:
        world.up = False
        world.at(chance.uniform(1, 20), lambda: setattr(world, "up", True))

    def revoke() -> None:
        for host in chance.sample(world.hosts, max(1, hosts // 2)):
            world.etcd.revoke(_lease_of(host.peer))

    def burst() -> None:
        host = chance.choice(world.hosts)
        for _ in range(60):
            host.run_container()

    wide = (partition, stop_etcd, revoke)
    single = ("crash", "wipe", *5 * ("empty",), "reconcile", "reconcile")
    again(2 * hosts, lambda: chance.choice(world.hosts).churn())
    again(hosts / 10, burst)
    again(hosts / 4, lambda: getattr(chance.choice(world.hosts), chance.choice(single))())
    again(0.2, lambda: chance.choice(wide)())
    world.run(seconds)
    _settle(world, seconds)
    return world


def _link(host: Host) -> None:
    host.linked = True
    host.reconcile()


def _settle(world: World, seconds: float) -> None:
    """Everything heals; then what hosts believe and what etcd says is the same."""
    world.loss, world.up = 0.0, True
    for host in world.hosts:
        host.linked = True
    world.run(seconds + 60)
    for host in world.hosts:
        host.reconcile()
    world.run(seconds + 120)
    for host in world.hosts:
        said = {block_of_key(pair.key) for pair in world.etcd.with_value("block/", host.peer)}
        if said != host.book.blocks():
            raise Duplicate(f"{host.peer} believes in {len(host.book.blocks())} blocks, etcd in {len(said)}")


def main() -> int:
    """Many seeds, one line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--mistake", choices=MISTAKES, default="")
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        began = time.monotonic()
        try:
            world = simulate(seed, options.hosts, options.seconds, options.mistake)
        except Duplicate as error:
            print(f"seed {seed}: DUPLICATE {error}", flush=True)
            return 1
        print(f"seed {seed}: {options.hosts} hosts, {world.counts['starts']} starts, "
              f"{world.counts['refused']} refused, {len(world.running)} run, "
              f"{world.counts['asked']} questions, {len(world.taken)} blocks; "
              f"{time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
