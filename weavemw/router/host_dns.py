"""DNS for the containers of a host: where to listen, and whom to answer, as the host's bridges come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from weavemw.dockerapi.client import Docker
from weavemw.errors import DockerError, DockerUnreachable, NetworkError
from weavemw.network import bridge
from weavemw.network.plan import WEAVE_DNS
from weavemw.router import host
from weavemw.router.api import host_port
from weavemw.router.container_dns import ContainerDns, Owners
from weavemw.router.dns_server import Clients, DnsServer, SocketAddress
from weavemw.router.forward import Forwarder, ResolvConf, Upstream
from weavemw.router.service import DnsFacts
from weavemw.router.settings import RouterSettings, split_host_port
from weavemw.router.store import Network
from weavemw.router.zone import Zone

__all__ = ["HostDns"]

log = logging.getLogger(__name__)

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_LOOK_AGAIN = 2.0  # seconds between two looks at the host's bridges
_LOOK_SOON = 0.3  # the same, after an address came or went
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 60.0  # seconds between two questions about a network that Docker does not know


class Strangers:
    """Networks of bridges that Docker does not know, and when it is to be asked again.

    One that is new to Docker too is known to it a moment later, that of another program's bridge never: so the pauses
    grow. Times are in seconds, of any clock.
    """

    def __init__(self) -> None:
        self._again: dict[Network, tuple[float, float]] = {}

    def are_due(self, networks: Collection[Network], now: float) -> bool:
        """Whether one of these networks, the only ones that are not known, is to be asked about."""
        self._again = {network: self._again.get(network, (now, _FIRST_PAUSE)) for network in networks}
        return any(when <= now for when, _ in self._again.values())

    def were_asked_about(self, now: float) -> None:
        """Docker did not know any of them."""
        self._again = {network: (now + pause, min(2 * pause, _LONGEST_PAUSE))
                       for network, (_, pause) in self._again.items()}


@dataclass
class HostDns:
    """The DNS server of a host, which listens wherever the host's bridges have addresses.

    ``let_ask`` opens the host's firewall to the bridges of these names, and to no others. ``owners_of`` tells who holds
    an address; for containers, those are asked whom Docker would have let them ask.
    """

    settings: RouterSettings
    zone: Zone
    docker: Docker
    let_ask: Callable[[Sequence[str]], None] = lambda names: None
    owners_of: Owners | None = None
    address: str | None = None
    _opened: tuple[str, ...] | None = None
    _docker_networks: set[Network] = field(default_factory=set)
    _failed: set[SocketAddress] = field(default_factory=set)
    _strangers: Strangers = field(default_factory=Strangers)
    _bridges: tuple[host.HostBridge, ...] = ()

    def __post_init__(self) -> None:
        self._given: tuple[Upstream, ...] = tuple(split_host_port(resolver, 53) for resolver in self.settings.upstream)
        self._resolv_conf = ResolvConf(self.settings.resolv_conf, self._is_ours)
        self.server = DnsServer(self.zone, Forwarder(self.upstreams), Clients())
        if self.owners_of:
            dns = ContainerDns(self.docker, self.owners_of, self._is_ours, self.upstreams, given=bool(self._given))
            self.server.place_of = dns.place_of

    def upstreams(self) -> tuple[Upstream, ...]:
        """Whom to ask: the resolvers that were given, or else the host's."""
        return self._given or self._resolv_conf()

    def facts(self) -> DnsFacts:
        """What the API tells of it."""
        on_bridge = str(WEAVE_DNS.ip) if (str(WEAVE_DNS.ip), self.settings.dns_port) in self.server.addresses else None
        return DnsFacts(self.address, self.settings.dns_port, tuple(host_port(*at) for at in self.server.addresses),
                        tuple(host_port(*resolver) for resolver in self.upstreams()), on_bridge)

    async def keep_looking(self) -> None:
        """Follow the host's bridges, which come and go with Docker: at once, and now and then."""
        changed = asyncio.Event()
        with host.address_changes(changed.set):
            while True:
                soon = changed.is_set()  # Docker first gives a bridge its address, then knows its network
                changed.clear()
                try:
                    await self.follow()
                except Exception:
                    log.exception("can't see the bridges of this host; trying again")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_SOON if soon else _LOOK_AGAIN)

    async def follow(self) -> None:
        """Look once, and ask Docker about what is not known."""
        await self.look()
        await self._ask_docker()

    async def look(self) -> None:
        """Listen on the addresses that are there, and answer the networks that are there."""
        self._bridges = await asyncio.to_thread(host.bridges)
        addresses = self.settings.dns_listen or tuple(
            address for name in self._names() for address in host.addresses_of(name, self._bridges))
        devices = await self._by_weave_bridge(self._bridges) if not self.settings.dns_listen else {}
        await self._listen({**dict.fromkeys(addresses, ""), **devices})
        self.address = next(iter((*addresses, *devices)), None)
        await self._allow()

    async def _ask_docker(self) -> None:
        """Learn which networks are Docker's, whatever their bridges are called, if there are any that are not known."""
        now = asyncio.get_running_loop().time()
        if not self._strangers.are_due(self._unknown(), now):
            return
        try:
            subnets = await asyncio.to_thread(self.docker.bridge_subnets)
        except (DockerError, DockerUnreachable) as error:
            log.debug("Docker's networks are known by the names of their bridges only: %s", error)
        else:
            self._docker_networks = {ip_network(subnet, strict=False) for subnet in subnets}
            self._strangers.were_asked_about(now)
            await self._allow()

    def _unknown(self) -> set[Network]:
        there = (interface for bridge in self._bridges for interface in bridge.interfaces)
        return {interface.network for interface in there if not interface.is_link_local
                and interface.network not in self.server.clients.networks}

    def _names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.settings.docker_bridge, self.settings.bridge)))

    async def _by_weave_bridge(self, bridges: Iterable[host.HostBridge]) -> dict[str, str]:
        """The address for containers that are on the weave bridge only, which goes and comes with it; its device."""
        here = next((bridge for bridge in bridges if bridge.name == self.settings.bridge), None)
        if here is None:
            return {}
        address = str(WEAVE_DNS.ip), self.settings.dns_port
        if WEAVE_DNS not in here.interfaces:
            if address in self.server.addresses:  # by a bridge that is gone
                self.server.unlisten(address)
            try:
                await asyncio.to_thread(_furnish, here.name)
            except NetworkError as error:
                self._complain(address, error)
                return {}
        return {address[0]: here.name}

    async def _listen(self, addresses: Mapping[str, str]) -> None:
        """Listen on these addresses, each on its device if it has one, and on no others."""
        wanted = {(ip, self.settings.dns_port): device for ip, device in addresses.items()}
        for address in set(self.server.addresses) - set(wanted):
            self.server.unlisten(address)
        for address, device in wanted.items():
            if address not in self.server.addresses:
                await self._try(address, device)

    async def _try(self, address: SocketAddress, device: str) -> None:
        try:
            await self.server.listen(address, device)
            self._failed.discard(address)
            log.info("DNS serves %s", host_port(*address))
        except OSError as error:
            self._complain(address, error)

    def _complain(self, address: SocketAddress, error: Exception) -> None:
        if address not in self._failed:
            log.warning("DNS can't listen on %s, trying again: %s", host_port(*address), error)
        self._failed.add(address)

    def open_again(self) -> None:
        """Open the firewall to those that may ask: firewalls are reloaded."""
        if self._opened is not None:
            self.let_ask(self._opened)

    async def _allow(self) -> None:
        networks = (*_LOOPBACK, *self.settings.ranges, *self.settings.dns_clients,
                    *host.client_networks(self._bridges, *self._names(), subnets=self._docker_networks))
        if networks != self.server.clients.networks:
            self.server.clients.allow(networks)
        names = host.client_bridges(self._bridges, *self._names(), subnets=self._docker_networks)
        if names != self._opened:
            await asyncio.to_thread(self.let_ask, names)
            self._opened = names

    def _is_ours(self, address: str) -> bool:
        ours = [at for at, port in self.server.addresses if port == 53]
        return address in ours or (ip_address(address).is_loopback and bool({"0.0.0.0", "::"} & set(ours)))


def _furnish(name: str) -> None:
    """Let the bridge have our address, and the kernel not mind that it knows no route to who asks."""
    bridge.add_address(name, WEAVE_DNS)
    bridge.loosen(name)
