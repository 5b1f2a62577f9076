"""The router as one object: addresses and names behind one writer, and what it can say about itself."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import weavemw
from weavemw.dockerapi.client import Docker
from weavemw.errors import BadRequest, DockerError, DockerUnreachable
from weavemw.network.addresses import Claim, Subnet, Wanted, unusable
from weavemw.network.bridge import EXPOSE
from weavemw.ops.metrics import exposed, of_proxy
from weavemw.ops.tally import Tally
from weavemw.router.allocator import Allocator, NotOurs, SubnetFull
from weavemw.router.client import Interface
from weavemw.router.commit import GroupCommit
from weavemw.router.metrics import ALLOCATE, DnsCounts, RouterFacts, of_router
from weavemw.router.names import Names, Record
from weavemw.router.network_status import of_network, shares
from weavemw.router.store import Address, Network, Store

if TYPE_CHECKING:
    from weavemw.router.shared import SharedNetwork

__all__ = ["DnsFacts", "RouterService", "peer_name"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DnsFacts:
    """What is to be told of the DNS server: where containers reach it, where it listens, whom it asks.

    ``on_bridge`` is the address for containers that are on the weave network only, if it is served.
    """

    address: str | None
    port: int = 53
    listening: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    on_bridge: str | None = None


@dataclass
class RouterService:
    """What the HTTP API does. ``dns`` gives the facts of the DNS server, or ``None`` with DNS off.

    ``run_dir`` is the proxy's, whose metrics are shown with the router's own. ``objection`` says why the host lets no
    container have an address.

    ``shared`` is this host's part in a network of many; without it the router serves a single host.
    ``problems`` says what is wrong on this host by now; it may block.

    Docker is asked ``docker_questions`` things at a time, and has ``docker_limit`` seconds to answer.
    """

    allocator: Allocator
    names: Names
    writer: GroupCommit
    docker: Docker
    peer: str
    nickname: str = ""
    dns: Callable[[], DnsFacts | None] = lambda: None
    dns_counts: Mapping[str, DnsCounts] = field(default_factory=dict)
    run_dir: Path | None = None
    objection: Callable[[Address], str] = lambda address: ""
    problems: Callable[[], list[str]] = list
    docker_questions: int = 8
    docker_limit: float = 5.0
    targets: dict[str, None] = field(default_factory=dict)
    shared: SharedNetwork | None = None

    def __post_init__(self) -> None:
        self.tally = Tally()
        self._askers = ThreadPoolExecutor(self.docker_questions, "docker")

    async def allocate(self, owner: str, subnet: Network | None = None) -> Interface:
        """See :meth:`Allocator.allocate`; durable when it returns, as all changes here are."""
        with self.tally.timing(ALLOCATE):
            if self.shared and self.shared.doubt and not await self.held(owner, subnet):
                self.shared.check()
            before = self.shared.book.blocks() if self.shared else frozenset()
            try:
                interface = await self.writer.run(lambda: self.allocator.allocate(owner, subnet))
            except SubnetFull:
                if self.shared is None:
                    raise
                await self.shared.room(subnet or self.allocator.default_subnet, before)
                interface = await self.writer.run(lambda: self.allocator.allocate(owner, subnet))
        self._touched(owner)
        return interface

    async def claim(self, owner: str, interface: Interface) -> None:
        """See :meth:`Allocator.claim`; what is the host's, the range's own, or nobody's, is given to no container."""
        if owner != EXPOSE and (why := await self._objection(owner, interface)):
            raise BadRequest(f"Unable to claim: {why}")
        try:
            await self.writer.run(lambda: self.allocator.claim(owner, interface))
        except NotOurs:
            if self.shared is None:
                raise
            await self.shared.come_by(interface)
            await self.writer.run(lambda: self.allocator.claim(owner, interface))
        self._touched(owner)

    async def objection_to(self, wanted: Wanted) -> str:
        """Why a container would be refused this, whoever holds which address; empty if it would not."""
        if isinstance(wanted, Claim):
            return await self._objection("", wanted.interface)
        return self.allocator.objection(wanted.network) if isinstance(wanted, Subnet) else ""

    async def free(self, owner: str, address: Address | None = None) -> None:
        """Give back one address of an owner, or all."""
        await self.writer.run(lambda: self.allocator.free(owner, address) if address
                              else self.allocator.free_all(owner))
        self._touched(owner)

    async def held(self, owner: str, subnet: Network | None = None) -> tuple[Interface, ...]:
        """See :meth:`Allocator.held`."""
        return await self.writer.run(lambda: self.allocator.held(owner, subnet))

    async def owned(self, owner: str | None = None) -> dict[str, tuple[Interface, ...]]:
        """See :meth:`Allocator.owned`."""
        return await self.writer.run(lambda: self.allocator.owned(owner))

    async def owners_of(self, address: Address) -> tuple[str, ...]:
        """See :meth:`Allocator.owners_of`."""
        return await self.writer.run(lambda: self.allocator.owners_of(address))

    async def add_name(self, owner: str, address: Address, fqdn: str) -> bool:
        """See :meth:`Names.add`."""
        added = await self.writer.run(lambda: self.names.add(owner, address, fqdn))
        self._touched(owner)
        return added

    async def remove_names(self, owner: str | None, address: Address | None, fqdn: str | None) -> int:
        """See :meth:`Names.remove`."""
        owners = {owner} if owner else {record.owner for record in self.names.records()} if self.shared else set()
        removed = await self.writer.run(lambda: self.names.remove(owner, address, fqdn))
        for each in owners:
            self._touched(each)
        return removed

    async def is_running(self, container: str) -> bool:
        """Whether Docker says that this container runs. Raises :class:`~weavemw.errors.DockerUnreachable`."""
        try:
            async with asyncio.timeout(self.docker_limit):
                return await asyncio.get_running_loop().run_in_executor(self._askers, self._is_running, container)
        except TimeoutError as error:
            raise DockerUnreachable("Docker did not say in time whether the container runs") from error

    async def report(self) -> dict[str, Any]:
        """All there is to say about this router, as data for JSON."""
        in_use = await self.writer.run(self.allocator.held_count)
        router = of_network(self.shared) if self.shared else self._alone()
        return {"Version": weavemw.__version__, "Router": router, "IPAM": self._ipam(in_use), "DNS": self._dns(),
                "Problems": await self.health()}

    async def health(self) -> list[str]:
        """What is wrong, in sentences; empty if nothing is."""
        return await asyncio.to_thread(self.problems)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus is to know of router and proxy, in the format that ``accept`` asks for, and its type."""
        in_use = await self.writer.run(self.allocator.in_use)
        sizes = {str(network): network.num_addresses for network in self.allocator.ranges}
        facts = RouterFacts(sizes, in_use, len(self.names), self.dns_counts)
        return await asyncio.to_thread(self._exposed, facts, accept)

    async def close(self) -> None:
        """Finish what was begun."""
        await self.writer.close()
        self._askers.shutdown(wait=False, cancel_futures=True)

    def _touched(self, owner: str) -> None:
        if self.shared:
            self.shared.touched(owner)

    def entry(self, record: Record) -> dict[str, object]:
        """A name as the API lists it."""
        return {"ContainerID": record.owner, "Origin": self.peer, "Addr": str(record.address),
                "Hostname": record.fqdn, "Version": 0, "Tombstone": 0}

    def _alone(self) -> dict[str, Any]:
        alone = {"State": "failed", "Info": "this router serves a single host"}
        return {"Name": self.peer, "NickName": self.nickname, "Targets": list(self.targets),
                "Connections": [{"Address": target, **alone} for target in self.targets],
                "Peers": [{"Name": self.peer, "NickName": self.nickname, "Connections": []}]}

    async def _objection(self, owner: str, interface: Interface) -> str:
        if why := unusable(interface) or _of_a_range(interface.ip, self.allocator.ranges):
            return why
        if interface in (await self.owned(owner)).get(owner, ()):  # what was given stays, whatever came later
            return ""
        return await asyncio.to_thread(self.objection, interface.ip)

    def _is_running(self, container: str) -> bool:
        try:
            return self.docker.inspect(container).running
        except DockerError as error:
            if error.status == 404:
                return False
            raise

    def _exposed(self, facts: RouterFacts, accept: str) -> tuple[bytes, str]:
        proxy = of_proxy(self.run_dir) if self.run_dir else ()
        return exposed((*of_router(self.tally, facts), *proxy), accept)

    def _ipam(self, in_use: int) -> dict[str, object]:
        allocator = self.allocator
        return {"Range": str(allocator.range), "RangeNumIPs": allocator.range.num_addresses,
                "RangeIPv6": str(allocator.range6 or ""), "DefaultSubnet": str(allocator.default_subnet),
                "InUse": in_use, "ActiveIPs": in_use, **(shares(self.shared) if self.shared else {})}

    def _dns(self) -> dict[str, object] | None:
        facts = self.dns()
        if facts is None:
            return None
        return {"Domain": self.names.zone.domain, "TTL": self.names.zone.ttl, "Address": facts.address,
                "Listening": facts.listening, "Upstream": facts.upstream,
                "Entries": [self.entry(record) for record in self.names.records()]}


def _of_a_range(address: Address, ranges: Iterable[Network]) -> str:
    """Why an address is a range's own, whatever prefix length it is claimed with; else empty."""
    for network in ranges:
        if address == network.network_address:
            return f"{address} is the network address of the range {network}"
        if address.version == 4 and address == network.broadcast_address:
            return f"{address} is the broadcast address of the range {network}"
    return ""


def peer_name(store: Store) -> str:
    """The name of this router among peers, in the form of a MAC address; chosen once and kept."""
    name = store.note("peer")
    if name is None:
        octets = bytes((0x02,)) + secrets.token_bytes(5)  # locally administered, unicast
        name = octets.hex(":")
        store.put_note("peer", name)
    return name
