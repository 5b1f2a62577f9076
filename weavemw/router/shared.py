"""A network that many hosts share by etcd: this host's part in it, behind the router's one writer.

Starts wait for the local disk only, but for a subnet of which this host has no
free address. What is said here goes to etcd behind them, and what others say is
kept in memory, for DNS and the data plane. Silence removes no forwarding.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from weavemw.cluster.blocks import Block, at, block_length
from weavemw.cluster.etcd import EtcdClient, Trouble
from weavemw.cluster.keeping import Get, Idle, Keeper, ListOf, Local, Sleep, Subnet
from weavemw.cluster.kv import Absent, Delete, Holds, Listing, Operation, Put, Txn, after_prefix
from weavemw.cluster.lost import Compacted, HistoryLost, StoreRefused, StoreUnavailable
from weavemw.cluster.mirror import ContainerEntry, Mirror, PeerEntry
from weavemw.cluster.peers import DataPlane, Underlay
from weavemw.errors import BadRequest, NetworkError, SettingsError, WeaveError
from weavemw.network.bridge import EXPOSE
from weavemw.network.plan import mac_for
from weavemw.router.book import LocalBook
from weavemw.router.client import Interface
from weavemw.router.commit import GroupCommit
from weavemw.router.names import Names, Record
from weavemw.router.store import Network, Store, address_of, key_of

__all__ = ["NoRoom", "SharedNetwork"]

log = logging.getLogger(__name__)

_UP = 30  # seconds that others believe a host to be up
_SAY = 8.0  # seconds between two signs of life
_GROUP = 0.05  # seconds in which changes of names come together
_BATCH = 100  # operations in one transaction: etcd takes 128
_REMOVAL, _MANY, _LATER = 2.0, 20, 10.0  # seconds before a removal is said; if so many wait, so many seconds
_HOLD = 300  # seconds in which no block is taken after etcd's history was lost
_ROOM = 4.0  # seconds that a start waits for a block
_RETRY = 1.0
_FIRST = 3.0  # seconds that a start of the router waits for etcd
_RESAY = 30.0  # seconds between two looks at what the data plane has


class NoRoom(WeaveError):
    """This host has no address left in a subnet, and no further block yet."""

    status = 503
    code = "no_block"


@dataclass
class SharedNetwork:
    """What :class:`~weavemw.router.service.RouterService` has besides where there is a store.

    ``subnets`` are those of which blocks are taken ahead of need. ``conf`` is what all hosts must agree on.
    """

    client: EtcdClient
    prefix: str
    peer: str
    nickname: str
    conf: str
    subnets: tuple[Network, ...]
    book: LocalBook
    names: Names
    store: Store
    writer: GroupCommit
    plane: DataPlane
    bridge: str = ""
    targets: tuple[str, ...] = ()
    trouble: Trouble | None = None
    _dirty: dict[str, float] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mirror = Mirror(self.peer, time.monotonic)
        self.keeper = Keeper(self.peer, self.book, tuple(map(_bounds, self.subnets)),
                             random.Random())  # noqa: S311  # hosts must not all look for the same
        self.keeper.taken = self.mirror.taken
        self.listed = asyncio.Event()
        self.in_the_way: dict[Block, str] = {}
        self._work, self._named, self._told = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._changed = asyncio.Condition()
        self._entered = False
        self._lease = 0
        self._generation = int(self.store.note("generation") or 0) + 1
        self._underlay: Underlay | None = None
        self.plane_trouble = ""
        self.removed = False
        self.doubt = ""  # why this host should give no address that it has not given yet
        self._plane_lock = asyncio.Lock()

    # ---- the life of it

    async def start(self) -> None:
        """Take part; wait a little for etcd. Raises :class:`~weavemw.errors.SettingsError` for another network's."""
        self.store.put_note("generation", str(self._generation))
        try:
            async with asyncio.timeout(_FIRST):
                await self._enter()
        except (TimeoutError, StoreUnavailable) as error:
            log.warning("the router starts without etcd: %s", str(error) or "no answer in time")
        except (StoreRefused, NetworkError) as error:  # of a host that has no address yet, too
            self._complain(error.message)
        loops = (self._follow, self._keep, self._say_up, self._publish, self._forward)
        self._tasks = [asyncio.create_task(self._for_ever(loop)) for loop in loops]

    async def close(self) -> None:
        """Stop; others see for a while still that this host was up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.plane.close()

    async def _for_ever(self, loop: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await loop()
            except StoreUnavailable as error:
                log.debug("%s", error)
            except WeaveError as error:
                self._complain(error.message)
            except Exception:
                log.exception("one part of the shared network failed; it is begun anew")
            await asyncio.sleep(_RETRY * (0.5 + random.random()))  # noqa: S311  # many hosts at once

    def _complain(self, words: str) -> None:
        if self.trouble is None or self.trouble.reason != words:
            log.error("%s", words)
            self.trouble = Trouble(words, time.time())

    # ---- entering

    async def _enter(self) -> None:
        """Agree on the network, and be known in it."""
        if self._entered:
            return
        await self._agree()
        if await self.client.get(f"{self.prefix}removed/{self.peer}"):
            self.removed = True
            self._doubt(f"this host ({self.peer}) was removed from the network by `weave rmpeer`: "
                               "`weave reset` lets it join anew")
        await self._identify()
        self._entered, self.doubt = True, ""

    def _doubt(self, words: str) -> NoReturn:
        self.doubt = words
        raise StoreRefused(words)

    async def _agree(self) -> None:
        key = f"{self.prefix}conf"
        await self.client.txn(Txn((Absent(key),), (Put(key, self.conf),)), repeatable=True)
        pair = await self.client.get(key)
        if pair and pair.value != self.conf:
            raise SettingsError(f"the network in etcd has other settings: {pair.value} there, {self.conf} here")

    async def _identify(self) -> None:
        """Be what the store has under this name, and no copy of it."""
        up = await self.client.get(f"{self.prefix}up/{self.peer}")
        if up and up.value != _boot_id():
            self._doubt(f"another host is up by this one's name ({self.peer}): this disk is a copy, or the host "
                               "was started anew within 30 seconds")
        pair = await self.client.get(f"{self.prefix}peer/{self.peer}")
        with suppress(ValueError, KeyError, TypeError):
            if pair and PeerEntry.of(pair.value).generation > self._generation:
                await self._recover()
                self._generation = PeerEntry.of(pair.value).generation + 1
                await self.writer.run(lambda: self.store.put_note("generation", str(self._generation)))
        await self._say_peer()

    async def _recover(self) -> None:
        """This disk is older than what the store knows of us: what runs holds what stands there."""
        log.error("the router's disk is older than what etcd knows of this host: taking over what stands there")
        listing = await self.client.list(f"{self.prefix}name/{self.peer}/")
        for pair in listing.pairs:
            owner = pair.key.rpartition("/")[2]
            with suppress(ValueError, KeyError, TypeError):
                for interface in ContainerEntry.of(pair.value).remote(owner, self.peer).addresses:
                    await self.writer.run(lambda owner=owner, it=interface: self.book.record(owner, it))  # type: ignore[misc]

    async def _say_peer(self) -> None:
        async with self._plane_lock:
            self._underlay = await asyncio.to_thread(self.plane.underlay)
        entry = PeerEntry(self.nickname, self._generation, self._underlay).text
        key = f"{self.prefix}peer/{self.peer}"
        if self.mirror.values.get(f"peer/{self.peer}") != entry:
            gone = Absent(f"{self.prefix}removed/{self.peer}")
            await self.client.txn(Txn((gone,), (Put(key, entry),)), repeatable=True)

    async def _say_up(self) -> None:
        """Signs of life, and where packets are sent: addresses of hosts change."""
        while True:
            if self._entered and not self.removed:
                try:
                    await self._say_peer()
                except NetworkError as error:
                    self._complain(error.message)
                if not (self._lease and await self.client.keep_alive(self._lease)):
                    self._lease = await self.client.grant(_UP)
                    await self.client.txn(Txn((), (Put(f"{self.prefix}up/{self.peer}", _boot_id(), self._lease),)),
                                          repeatable=True)
                elif self.listed.is_set() and f"up/{self.peer}" not in self.mirror.values:
                    self._lease = 0
                    continue
            await asyncio.sleep(_SAY if self._entered else _RETRY)

    # ---- what others say

    async def _follow(self) -> None:
        await self._enter()
        listing = await self.client.list(self.prefix)
        await self._check_history(listing)
        if not any(pair.key == f"{self.prefix}peer/{self.peer}" for pair in listing.pairs):  # an old backup, or none
            self._entered, self.mirror.values = False, {**self.mirror.values, f"peer/{self.peer}": ""}
            await self._enter()
        for _ in self.mirror.resetting(replace(pair, key=self._own(pair.key)) for pair in listing.pairs):
            await asyncio.sleep(0)  # DNS is answered meanwhile
        await self._after_list()
        try:
            async for changes in self.client.watch(self.prefix, listing.revision + 1):
                for change in changes.changes:
                    self._heard(self._own(change.key), change.value)
                await self._show()
        except Compacted:
            await asyncio.sleep(random.uniform(0, 5))  # noqa: S311  # many hosts list again at once
        except HistoryLost:
            await self._hold()

    async def _after_list(self) -> None:
        self.keeper.to_reconcile = True
        self._bring_along()
        for owner in {*self.mirror.own_texts, *self.book.owners(), *(each.owner for each in self.names.records())}:
            self.touched(owner)
        self.trouble = None
        self.listed.set()
        self._work.set()
        await self._show()

    def _heard(self, key: str, value: str | None) -> None:
        self.mirror.apply(key, value)
        if key.startswith("block/"):
            self._work.set()
            if value is None:
                self.keeper.full.clear()
        elif key.startswith(f"name/{self.peer}/"):
            self.touched(key.rpartition("/")[2])
        elif key == f"removed/{self.peer}" and value is not None:
            self.removed, self.keeper.to_reconcile = True, True
            self.doubt = f"this host ({self.peer}) was removed from the network by `weave rmpeer`"
            log.error("%s", self.doubt)

    async def _show(self) -> None:
        """Names at once; the data plane hears of it in its own time."""
        for peer in tuple(self.mirror.fresh):
            self._show_names(peer)
            await asyncio.sleep(0)  # DNS is answered meanwhile
        if self.mirror.fresh or self.mirror.hosts_changed:
            self._told.set()
        async with self._changed:
            self._changed.notify_all()

    def _show_names(self, peer: str) -> None:
        self.names.set_remote(peer, [Record(f"{owner}@{peer}", address, fqdn)
                                     for owner, fqdn, address in self.mirror.names_of(peer)])

    async def _check_history(self, listing: Listing) -> None:
        before = (self.store.note("store") or "").split()
        if len(before) == 2 and (before[0] != listing.cluster or int(before[1]) > listing.revision):
            await self._hold()
        note = f"{listing.cluster} {listing.revision}"
        await self.writer.run(lambda: self.store.put_note("store", note))

    async def _hold(self) -> None:
        """Let no host take a block until all have said which are theirs."""
        self._complain("etcd's history was lost (a backup was restored, or it is another one): no block is taken for "
                       f"{_HOLD // 60} minutes")
        lease = await self.client.grant(_HOLD)
        hold = Put(f"{self.prefix}hold", f"{time.time():.0f} {self.nickname}", lease)
        await self.client.txn(Txn((Absent(hold.key),), (hold,)), repeatable=True)
        await self.writer.run(lambda: self.store.put_note("store", ""))

    # ---- blocks

    async def _keep(self) -> None:
        await self.listed.wait()
        steps = self.keeper.work()
        answer: Any = None
        error: Exception | None = None
        while True:
            step = steps.throw(error) if error else steps.send(answer)
            answer = error = None
            try:
                answer = await self._do(step)
            except StoreUnavailable as raised:
                error = raised
            except StoreRefused as raised:
                self._complain(raised.message)
                error = StoreUnavailable(raised.message)

    async def _do(self, step: Any) -> Any:
        match step:
            case Txn():
                return await self.client.txn(self._prefixed(step))
            case Get(key):
                return await self.client.get(self.prefix + key)
            case ListOf(prefix, value):
                listing = await self.client.list(self.prefix + prefix)
                return tuple(replace(pair, key=self._own(pair.key)) for pair in listing.pairs if pair.value == value)
            case Local(change):
                done = await self.writer.run(change)
                async with self._changed:
                    self._changed.notify_all()
                return done
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Idle():
                return await self._idle()
        raise TypeError(step)

    async def _idle(self) -> None:
        async with self._changed:
            self._changed.notify_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(_SAY):
                await self._work.wait()
        self._work.clear()

    def check(self) -> None:
        """Raises :class:`NoRoom` while this host should give no further addresses."""
        if self.doubt:
            raise NoRoom(f"no address is given: {self.doubt}")

    async def room(self, subnet: Network, before: frozenset[Block]) -> None:
        """Wait until this host has a block of a subnet beside these. Raises :class:`NoRoom` with the reason."""
        self.check()
        bounds = _bounds(subnet)
        self.keeper.want(bounds, before)
        self._work.set()
        await self._until(lambda: self.book.blocks() != before or bounds in self.keeper.full)
        if self.book.blocks() == before and bounds not in self.keeper.full:
            raise NoRoom(f"this host has no address left in {subnet}, and can't take a further block: {self.why}")

    async def come_by(self, interface: Interface) -> None:
        """Let an address that is in no block of this host be in one. Raises :class:`~weavemw.errors.BadRequest`."""
        key = key_of(interface.ip)
        if not self.listed.is_set():
            raise NoRoom(f"{interface.ip} is in no block of this host, and none can be taken: {self.why}")
        holder = self.mirror.taken.holder_of(key)
        if holder is None:
            for length in (self._length(key), 128):
                block = at(key, length)
                if await self._gets(block):
                    return
            holder = self.mirror.taken.holder_of(key)
        self._refuse(interface, self.mirror.owners.get(holder, "") if holder else "")

    async def _gets(self, block: Block) -> bool:
        self.keeper.want_block(block)
        self._work.set()
        await self._until(lambda: block not in self.keeper.wanted_blocks)
        return block in self.book.blocks()

    def _refuse(self, interface: Interface, peer: str) -> NoReturn:
        if not peer:
            raise NoRoom(f"{interface.ip} is in no block of this host, and none can be taken: {self.why}")
        since = self.mirror.unseen_since.get(peer)
        gone = "" if since is None else f", which is not up since {_clock(time.time() - time.monotonic() + since)}"
        raise BadRequest(f"Unable to claim: {interface.ip} belongs to a block of {self.mirror.nickname(peer)}{gone}")

    async def _until(self, holds: Callable[[], bool]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_ROOM), self._changed:
                await self._changed.wait_for(holds)

    def _length(self, key: int) -> int:
        return next((block_length(*_bounds(subnet)) for subnet in self.subnets
                     if _bounds(subnet)[0] <= key <= _bounds(subnet)[1]), 128)

    def _bring_along(self) -> None:
        """What was given before hosts shared the range: its blocks are taken, or it is named."""
        self.in_the_way = {}
        for key, owner in self.book.strays():
            holder = self.mirror.taken.holder_of(key)
            if holder is None:
                self.keeper.want_block(at(key, self._length(key)))
            elif self.mirror.owners.get(holder) != self.peer:
                self.in_the_way[holder] = owner
                log.error("%s has %s, which belongs to a block of %s", owner, address_of(key),
                          self.mirror.nickname(self.mirror.owners[holder]))

    # ---- names

    def touched(self, owner: str) -> None:
        """Something of this owner's changed here, on the disk."""
        self._dirty.setdefault(owner, time.monotonic())
        self._named.set()
        self._work.set()

    async def _publish(self) -> None:
        await self.listed.wait()
        while True:
            await self._named.wait()
            self._named.clear()
            await asyncio.sleep(_GROUP)
            await self._publish_due()
            if self._dirty:
                asyncio.get_running_loop().call_later(0.5, self._named.set)

    async def _publish_due(self) -> None:
        now = time.monotonic()
        values = {owner: self._entry(owner) for owner in self._dirty}
        removals = sum(value is None for value in values.values())
        later = _LATER if removals > _MANY else _REMOVAL
        due = {owner: value for owner, value in values.items()
               if value is not None or now - self._dirty[owner] >= later}
        for owner in due:
            self._dirty.pop(owner)
        try:
            for batch in _batches(self._operations(due), _BATCH):
                await self.client.txn(self._prefixed(Txn((), tuple(batch))), repeatable=True)
        except BaseException:
            for owner in due:
                self._dirty.setdefault(owner, now)
            self._named.set()
            raise

    def _operations(self, values: dict[str, str | None]) -> list[Operation]:
        """What the store does not say yet."""
        said = self.mirror.own_texts
        operations: list[Operation] = []
        for owner, value in values.items():
            key = f"name/{self.peer}/{owner}"
            if value is None and owner in said:
                operations.append(Delete(key))
            elif value is not None and said.get(owner) != value:
                operations.append(Put(key, value))
        return operations

    def _entry(self, owner: str) -> str | None:
        addresses = tuple(map(str, self.book.addresses_of(owner)))
        names = tuple((each.fqdn, str(each.address)) for each in self.names.records_of(owner))
        return ContainerEntry(self._mac(owner), addresses, names).text if addresses or names else None

    def _mac(self, owner: str) -> str:
        if owner == EXPOSE:
            with suppress(OSError):
                return Path(f"/sys/class/net/{self.bridge}/address").read_text().strip()
        return mac_for(owner)

    # ---- the data plane

    async def _forward(self) -> None:
        await self.listed.wait()
        self.mirror.hosts_changed = True
        self.mirror.fresh |= self.mirror.containers.keys()
        while True:
            await self._forward_once()
            with suppress(TimeoutError):
                async with asyncio.timeout(_RESAY):
                    await self._told.wait()
            self._told.clear()
            for peer in tuple(self.mirror.unseen_since):
                self._show_names(peer)
                await asyncio.sleep(0)

    async def _forward_once(self) -> None:
        fresh = set(self.mirror.fresh)
        self.mirror.fresh -= fresh
        containers = {peer: self.mirror.containers_of(peer) for peer in fresh}
        others, self.mirror.hosts_changed = self.mirror.others(), False
        try:
            async with self._plane_lock:
                await asyncio.to_thread(self.plane.peers, others)
                if containers:
                    await asyncio.to_thread(self.plane.containers, containers)
            self.plane_trouble = ""
        except NetworkError as error:
            self.mirror.fresh |= fresh
            if self.plane_trouble != error.message:
                log.error("%s", error.message)
            self.plane_trouble = error.message

    # ---- what an operator asks

    @property
    def why(self) -> str:
        """Why the store is of no help now, in words, and since when."""
        if self.doubt:
            return self.doubt
        trouble = self.client.trouble or self.trouble
        if trouble:
            return f"etcd: {trouble.reason}, since {_clock(trouble.since)}"
        if hold := self.hold:
            return f"{hold.reason}, since {_clock(hold.since)}"
        return "etcd has not answered yet" if not self.listed.is_set() else "etcd did not answer in time"

    @property
    def hold(self) -> Trouble | None:
        """That no host takes blocks, if that is so."""
        since, _, nickname = self.mirror.values.get("hold", "").partition(" ")
        if not since.isdecimal():
            return None
        return Trouble(f"its history was lost, as {nickname} saw; no host takes blocks for {_HOLD // 60} minutes",
                       float(since))

    async def remove(self, peer: str, *, force: bool = False) -> int:
        """Take away what another host has; how many addresses that were. Raises :class:`~weavemw.errors.BadRequest`."""
        if peer == self.peer:
            raise BadRequest(f"{peer} is this host: `weave reset` gives back what it has")
        if peer not in self.mirror.peers:
            raise BadRequest(f"no such peer: {peer}")
        if peer in self.mirror.up and not force:
            raise BadRequest(f"{self.mirror.nickname(peer)} ({peer}) is up: stop it first, or use --force")
        blocks = [block for block, owner in self.mirror.owners.items() if owner == peer]
        await self.client.txn(self._prefixed(Txn((), (Put(f"removed/{peer}", self.nickname), Delete(f"peer/{peer}"),
                                                      Delete(f"up/{peer}")))), repeatable=True)
        for block in blocks:  # by itself each: one that is another's by now stays
            await self.client.txn(self._prefixed(Txn((Holds(block.key, peer),), (Delete(block.key),))), repeatable=True)
        names = f"name/{peer}/"
        await self.client.txn(self._prefixed(Txn((), (Delete(names, after_prefix(names)),))), repeatable=True)
        return sum(block.size for block in blocks)

    async def ready(self, limit: float) -> bool:
        """Wait until there is a block to start with."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit), self._changed:
                await self._changed.wait_for(lambda: bool(self.book.blocks()))
        return bool(self.book.blocks())

    def _own(self, key: str) -> str:
        return key.removeprefix(self.prefix)

    def _prefixed(self, txn: Txn) -> Txn:
        return Txn(tuple(map(self._at_prefix, txn.compare)), tuple(map(self._at_prefix, txn.then)))

    def _at_prefix(self, each: Any) -> Any:
        if getattr(each, "end", ""):
            return replace(each, key=self.prefix + each.key, end=self.prefix + each.end)
        return replace(each, key=self.prefix + each.key)


def _bounds(network: Network) -> Subnet:
    return key_of(network.network_address), key_of(network.broadcast_address)


def _batches(operations: list[Operation], size: int) -> Iterable[list[Operation]]:
    return (operations[start:start + size] for start in range(0, len(operations), size))


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "?"


def _clock(at_: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_))
