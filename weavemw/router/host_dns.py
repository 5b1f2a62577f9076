"""DNS for the containers of a host: where to listen, and whom to answer, as the host's bridges come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from weavemw.dockerapi.client import Docker
from weavemw.errors import DockerError, DockerUnreachable, NetworkError
from weavemw.network import bridge
from weavemw.network.plan import WEAVE_DNS
from weavemw.router import host
from weavemw.router.api import host_port
from weavemw.router.dns_server import Clients, DnsServer, Endpoint
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


@dataclass
class HostDns:
    """The DNS server of a host, which listens wherever the host's bridges have addresses."""

    settings: RouterSettings
    zone: Zone
    docker: Docker
    address: str | None = None
    _docker_networks: set[Network] = field(default_factory=set)
    _failed: set[Endpoint] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._given: tuple[Upstream, ...] = tuple(split_host_port(each, 53) for each in self.settings.upstream)
        self._resolv_conf = ResolvConf(self.settings.resolv_conf, self._is_ours)
        self.server = DnsServer(self.zone, Forwarder(self.upstreams), Clients())

    def upstreams(self) -> tuple[Upstream, ...]:
        """Whom to ask: the resolvers that were given, or else the host's."""
        return self._given or self._resolv_conf()

    def facts(self) -> DnsFacts:
        """What the API tells of it."""
        on_bridge = str(WEAVE_DNS.ip) if (str(WEAVE_DNS.ip), self.settings.dns_port) in self.server.endpoints else None
        return DnsFacts(self.address, self.settings.dns_port, tuple(host_port(*at) for at in self.server.endpoints),
                        tuple(host_port(*resolver) for resolver in self.upstreams()), on_bridge)

    async def keep_looking(self) -> None:
        """Follow the host's bridges, which come and go with Docker: at once, and now and then."""
        changed = asyncio.Event()
        with host.address_changes(changed.set):
            while True:
                soon = changed.is_set()  # Docker first gives a bridge its address, then knows its network
                changed.clear()
                try:
                    await self._ask_docker(await self.look())
                except Exception:
                    log.exception("can't see the bridges of this host; trying again")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_SOON if soon else _LOOK_AGAIN)

    async def look(self) -> tuple[host.HostBridge, ...]:
        """Listen on the addresses that are there, and answer the networks that are there; gives the bridges."""
        bridges = await asyncio.to_thread(host.bridges)
        names = (self.settings.docker_bridge, self.settings.bridge)
        addresses = self.settings.dns_listen or tuple(
            address for name in names if name for address in host.addresses_of(name, bridges))
        devices = await self._by_weave_bridge(bridges) if not self.settings.dns_listen else {}
        await self._listen({**dict.fromkeys(addresses, ""), **devices})
        self.address = next(iter((*addresses, *devices)), None)
        self._allow((*_LOOPBACK, *self.settings.ranges, *self.settings.dns_clients,
                     *host.client_networks(bridges, *filter(None, names), subnets=self._docker_networks)))
        return bridges

    async def _ask_docker(self, bridges: tuple[host.HostBridge, ...]) -> None:
        """Learn which networks are Docker's, whatever their bridges are called, if there are any that are not known."""
        there = (interface for bridge in bridges for interface in bridge.interfaces if not interface.is_link_local)
        if all(interface.network in self.server.clients.networks for interface in there):
            return
        try:
            found = await asyncio.to_thread(self.docker.bridge_subnets)
        except (DockerError, DockerUnreachable) as error:
            log.debug("Docker's networks are known by the names of their bridges only: %s", error)
        else:
            self._docker_networks = {ip_network(subnet, strict=False) for subnet in found}
            await self.look()

    async def _by_weave_bridge(self, bridges: Iterable[host.HostBridge]) -> dict[str, str]:
        """The address for containers that are on the weave bridge only, which goes and comes with it; its device."""
        here = next((each for each in bridges if each.name == self.settings.bridge), None)
        if here is None:
            return {}
        endpoint = str(WEAVE_DNS.ip), self.settings.dns_port
        if WEAVE_DNS not in here.interfaces:
            if endpoint in self.server.endpoints:  # by a bridge that is gone
                self.server.unlisten(endpoint)
            try:
                await asyncio.to_thread(_furnish, here.name)
            except NetworkError as error:
                self._complain(endpoint, error)
                return {}
        return {endpoint[0]: here.name}

    async def _listen(self, addresses: Mapping[str, str]) -> None:
        """Listen on these addresses, each on its device if it has one, and on no others."""
        wanted = {(address, self.settings.dns_port): device for address, device in addresses.items()}
        for endpoint in set(self.server.endpoints) - set(wanted):
            self.server.unlisten(endpoint)
        for endpoint, device in wanted.items():
            if endpoint not in self.server.endpoints:
                await self._try(endpoint, device)

    async def _try(self, endpoint: Endpoint, device: str) -> None:
        try:
            await self.server.listen(endpoint, device)
            self._failed.discard(endpoint)
            log.info("DNS serves %s", host_port(*endpoint))
        except OSError as error:
            self._complain(endpoint, error)

    def _complain(self, endpoint: Endpoint, error: Exception) -> None:
        if endpoint not in self._failed:
            log.warning("DNS can't listen on %s, trying again: %s", host_port(*endpoint), error)
        self._failed.add(endpoint)

    def _allow(self, networks: tuple[Network, ...]) -> None:
        if networks != self.server.clients.networks:
            self.server.clients.allow(networks)

    def _is_ours(self, address: str) -> bool:
        ours = [at for at, port in self.server.endpoints if port == 53]
        return address in ours or (ip_address(address).is_loopback and bool({"0.0.0.0", "::"} & set(ours)))


def _furnish(name: str) -> None:
    """Let the bridge have our address, and the kernel not mind that it knows no route to who asks."""
    bridge.add_address(name, WEAVE_DNS)
    bridge.loosen(name)
