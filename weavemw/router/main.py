"""The router's process: one event loop for the HTTP API and DNS, one writer for what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from aiohttp import web

from weavemw.docker import Docker, DockerClient
from weavemw.errors import DockerError, DockerUnreachable, NetworkError, SettingsError
from weavemw.network import bridge, firewall
from weavemw.network.netlink import ensure_bridge
from weavemw.network.plan import WEAVE_DNS
from weavemw.router import host
from weavemw.router.allocator import Allocator
from weavemw.router.api import host_port, make_app
from weavemw.router.commit import GroupCommit
from weavemw.router.dns_server import Clients, DnsServer, Endpoint
from weavemw.router.forward import Forwarder, ResolvConf, Upstream
from weavemw.router.names import Names
from weavemw.router.service import DnsFacts, RouterService, peer_name
from weavemw.router.settings import RouterSettings, split_host_port
from weavemw.router.store import Database, Network, SqliteStore
from weavemw.router.zone import Zone

__all__ = ["RouterSettings", "run", "running"]

log = logging.getLogger(__name__)

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_FIREWALL_AGAIN = 30.0  # seconds between two looks at the host's firewall
_LOOK_AGAIN = 2.0  # seconds between two looks at the host's bridges
_LOOK_SOON = 0.3  # the same, after an address came or went
_DOCKER_LIMIT = 5.0  # seconds that Docker has to answer
_STOP_LIMIT = 2.0  # seconds that requests under way have when it stops


def run(settings: RouterSettings, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the API's host:port once it serves.

    Raises :class:`~weavemw.errors.SettingsError` or
    :class:`~weavemw.errors.NetworkError`, fit to be shown as one line, when it
    can't start.
    """
    asyncio.run(_serve_until_stopped(settings, ready))


async def _serve_until_stopped(settings: RouterSettings, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings) as address:
        log.info("the router serves %s, range %s", address, " ".join(map(str, settings.ranges)))
        ready(address)
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def running(settings: RouterSettings, docker: Docker | None = None) -> AsyncIterator[str]:
    """A router that serves within the block; its value is the API's host:port. Raises as :func:`run` does."""
    async with AsyncExitStack() as stack:
        stack.enter_context(_sole_owner(settings))
        _prepare_host(settings)
        database = Database(settings.state_dir / "router.db")
        stack.callback(database.close)
        service = _service(settings, database, docker or DockerClient(settings.docker_socket, timeout=_DOCKER_LIMIT))
        stack.push_async_callback(service.close)
        if settings.dns:  # first: who is attached while DNS seems to be off gets no name
            await _serve_dns(settings, service, stack)
        address = await _serve_http(settings, service, stack)
        stack.callback(asyncio.create_task(_keep_open(settings)).cancel)
        yield address


@contextmanager
def _sole_owner(settings: RouterSettings) -> Iterator[None]:
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(settings.state_dir / "router.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"can't use {settings.state_dir}: {error.strerror}") from error
    try:
        _lock(lock, settings)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, settings: RouterSettings) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(f"already running: another router uses {settings.state_dir}") from error


def _prepare_host(settings: RouterSettings) -> None:
    route = host.overlapping(settings.ranges, host.routes(), settings.bridge)
    if route and settings.force:
        log.warning("the range overlaps the route %s of this host", route)
    elif route:
        raise SettingsError(f"range {' '.join(map(str, settings.ranges))} overlaps the route {route} of this host; "
                            "choose another with --ipalloc-range, or use --force")
    if settings.bridge:
        ensure_bridge(settings.bridge, settings.mtu)
    _open_firewall(settings)


def _service(settings: RouterSettings, database: Database, docker: Docker) -> RouterService:
    store = SqliteStore(database)
    allocator = Allocator(store, settings.range, settings.default_subnet, settings.range6)
    with database.transaction():
        allocator.fit()
        peer = peer_name(store)
    names = Names(database, Zone(settings.dns_domain, settings.dns_ttl, settings.ranges))
    return RouterService(allocator, names, GroupCommit(database, on_loss=names.load), docker, peer, settings.nickname,
                         run_dir=settings.run_dir)


async def _keep_open(settings: RouterSettings) -> None:
    """Open the firewall again and again: firewalls are reloaded."""
    while True:
        await asyncio.sleep(_FIREWALL_AGAIN)
        await asyncio.to_thread(_open_firewall, settings)


def _open_firewall(settings: RouterSettings) -> None:
    """Let packets through on the bridge, and questions in from containers."""
    if settings.bridge:
        firewall.let_through(settings.bridge)
        if settings.dns and not settings.dns_listen:
            firewall.let_ask((settings.bridge, settings.docker_bridge), settings.dns_port)


async def _serve_http(settings: RouterSettings, service: RouterService, stack: AsyncExitStack) -> str:
    runner = web.AppRunner(make_app(service), access_log=None, handle_signals=False, shutdown_timeout=_STOP_LIMIT)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    name, port = split_host_port(settings.http_address)
    try:
        await web.TCPSite(runner, name, port, backlog=1024).start()
    except OSError as error:
        raise SettingsError(f"can't listen on {settings.http_address}: {os.strerror(error.errno or 0)}") from error
    return host_port(name, runner.addresses[0][1])


async def _serve_dns(settings: RouterSettings, service: RouterService, stack: AsyncExitStack) -> None:
    dns = _Dns(settings, service.names.zone, service.docker)
    stack.push_async_callback(dns.server.close)
    await dns.look()
    service.dns, service.dns_counts = dns.facts, dns.server.counts
    stack.push_async_callback(_ended, asyncio.create_task(dns.keep_looking()))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass
class _Dns:
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

    async def look(self) -> tuple[host.Bridge, ...]:
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

    async def _ask_docker(self, bridges: tuple[host.Bridge, ...]) -> None:
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

    async def _by_weave_bridge(self, bridges: Iterable[host.Bridge]) -> dict[str, str]:
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
