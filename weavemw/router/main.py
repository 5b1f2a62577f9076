"""The router's process: one event loop for the HTTP API and DNS, one writer for what is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from weavemw.dockerapi.client import Docker, DockerClient
from weavemw.dockerapi.hosts import Unix
from weavemw.errors import NetworkError, SettingsError
from weavemw.network import exposed, firewall
from weavemw.network.bridge import EXPOSE
from weavemw.network.netlink import ensure_bridge
from weavemw.ops import descriptors, files
from weavemw.router import host, listening
from weavemw.router.allocator import Allocator
from weavemw.router.commit import GroupCommit
from weavemw.router.host_dns import HostDns
from weavemw.router.names import Names
from weavemw.router.service import RouterService, peer_name
from weavemw.router.settings import RouterSettings
from weavemw.router.store import Address, Database, Network, SqliteStore
from weavemw.router.upkeep import Exposed, keep_watcher, problems
from weavemw.router.zone import Zone
from weavemw.transport.http_client import HttpClient

if TYPE_CHECKING:
    from weavemw.cluster.peers import DataPlane
    from weavemw.router.book import LocalBook

__all__ = ["RouterSettings", "run", "running"]

log = logging.getLogger(__name__)

_DATABASE, _WIREGUARD_KEY = "router.db", "wireguard.key"  # in the state directory
_FIREWALL_AGAIN = 5.0  # seconds between two looks at the host's firewall
_DOCKER_LIMIT = 5.0  # seconds that Docker has to answer
_ELSEWHERE = "--state-dir names another directory"


def run(settings: RouterSettings, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the API's host:port once it serves.

    Raises :class:`~weavemw.errors.SettingsError` or
    :class:`~weavemw.errors.NetworkError`, fit to be shown as one line, when it
    can't start.
    """
    descriptors.raise_limit()
    asyncio.run(_serve_until_stopped(settings, ready))


async def _serve_until_stopped(settings: RouterSettings, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings) as address, _watched(settings):
        log.info("the router serves %s, range %s", address, " ".join(map(str, settings.ranges)))
        ready(address)
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def running(settings: RouterSettings, docker: Docker | None = None) -> AsyncIterator[str]:
    """A router that serves within the block; its value is the API's host:port. Raises as :func:`run` does."""
    async with AsyncExitStack() as stack:
        stack.enter_context(_sole_owner(settings))
        sock = listening.bind_socket(settings, stack)
        _prepare_host(settings)
        database = Database(settings.state_dir / _DATABASE)
        stack.callback(database.close)
        service, book = _service(settings, database, docker or _docker(settings))
        stack.push_async_callback(service.close)
        if book:
            await _share(settings, service, book, SqliteStore(database), stack)
        dns = HostDns(settings, service.names.zone, service.docker, partial(_let_ask, settings), service.owners_of)
        service.problems = partial(problems, settings, dns)
        if settings.dns:  # first: who is attached while DNS seems to be off gets no name
            await _serve_dns(dns, service, stack)
        address = await listening.serve(settings, service, sock, stack)
        stack.callback(asyncio.create_task(_keep_open(settings, dns, service)).cancel)
        yield address


def _docker(settings: RouterSettings) -> DockerClient:
    return DockerClient(HttpClient(Unix(settings.docker_socket)), timeout=_DOCKER_LIMIT)


@contextmanager
def _sole_owner(settings: RouterSettings) -> Iterator[None]:
    try:
        files.directory(settings.state_dir, 0o700, hint=_ELSEWHERE)
        held = files.lock(settings.state_dir / "router.lock")
        if held is None:
            raise SettingsError(f"already running: another router uses {settings.state_dir}")
        _close_to_others(settings.state_dir / _DATABASE)
    except OSError as error:
        raise SettingsError(f"can't use {settings.state_dir}: {error.strerror}",
                            hint=_ELSEWHERE) from error
    try:
        yield
    finally:
        os.close(held)


def _close_to_others(database: Path) -> None:
    """Nobody else may lock what SQLite locks. The files that it makes besides are as this one is."""
    for suffix in ("", "-wal", "-shm"):
        files.make_private(database.with_name(database.name + suffix))
    os.close(files.open_private(database))


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


def _service(settings: RouterSettings, database: Database, docker: Docker) -> tuple[RouterService, LocalBook | None]:
    store = SqliteStore(database)
    with database.transaction():
        book = _book(database) if settings.store else None
        allocator = Allocator(store, settings.range, settings.default_subnet, settings.range6,
                              is_ours=book.is_ours if book else lambda key: True)
        if book:
            book.attach(allocator)
        else:
            allocator.fit()
        peer = peer_name(store)
    names = Names(database, Zone(settings.dns_domain, settings.dns_ttl, settings.ranges))
    writer = GroupCommit(database, on_loss=lambda: _read_anew(names, book))
    return RouterService(allocator, names, writer, docker, peer, settings.nickname, run_dir=settings.run_dir,
                         objection=partial(_objection, settings)), book


def _book(database: Database) -> LocalBook:
    from weavemw.router.book import LocalBook, SqliteBlocks

    return LocalBook(SqliteBlocks(database), time.monotonic)


def _read_anew(names: Names, book: LocalBook | None) -> None:
    names.load()
    if book:
        book.load()


async def _share(settings: RouterSettings, service: RouterService, book: LocalBook, store: SqliteStore,
                 stack: AsyncExitStack) -> None:
    """Take part in a network of many hosts. What only they need is imported here."""
    from weavemw.cluster.etcd import EtcdClient
    from weavemw.router.shared import SharedNetwork

    where = settings.shared
    assert where
    client = await stack.enter_async_context(EtcdClient(where))
    allocator, targets = service.allocator, tuple(member.partition("//")[2] for member in where.members)
    subnets: tuple[Network, ...] = (allocator.default_subnet, *((allocator.range6,) if allocator.range6 else ()))
    shared = SharedNetwork(client, where.prefix, service.peer, settings.nickname, _conf(settings, allocator), subnets,
                           book, service.names, store, service.writer, _plane(settings), settings.bridge, targets)
    stack.push_async_callback(shared.close)
    await shared.start()
    service.shared = shared


def _plane(settings: RouterSettings) -> DataPlane:
    from weavemw.cluster.peers import NoDataPlane

    if not settings.bridge:
        return NoDataPlane(settings.advertised)
    from weavemw.cluster.forwarding import Forwarding

    plane = Forwarding(settings.overlay, settings.bridge, advertise=settings.advertised,
                       key_file=settings.state_dir / _WIREGUARD_KEY if settings.encrypt else None)
    plane.check()
    return plane


def _conf(settings: RouterSettings, allocator: Allocator) -> str:
    """What all hosts must agree on, the same text for the same settings."""
    overlay = settings.overlay
    return json.dumps({"format": 1, "range": str(allocator.range), "subnet": str(allocator.default_subnet),
                       "range6": str(allocator.range6 or ""), "vni": overlay.vni, "port": overlay.port,
                       "family": overlay.family, "encrypted": overlay.encrypted})


def _objection(settings: RouterSettings, address: Address) -> str:
    why = host.objection(address, settings.bridge)
    if why and settings.force:
        log.warning("a container claims it all the same: %s", why)
    return "" if settings.force else why


@asynccontextmanager
async def _watched(settings: RouterSettings) -> AsyncIterator[None]:
    """Containers are watched within the block, if we may."""
    if not settings.bridge or os.geteuid() != 0:
        yield
        return
    task = asyncio.create_task(keep_watcher(settings))
    try:
        yield
    finally:
        await _ended(task)


async def _keep_open(settings: RouterSettings, dns: HostDns, service: RouterService) -> None:
    """Keep bridge and firewall as they should be: others remove a bridge, and reload firewalls."""
    mine = Exposed(settings) if settings.bridge else None
    while True:
        await asyncio.sleep(_FIREWALL_AGAIN)
        if mine:
            await asyncio.to_thread(mine.keep, await service.held(EXPOSE))
        await asyncio.to_thread(_open_firewall, settings)
        await asyncio.to_thread(dns.open_again)


def _open_firewall(settings: RouterSettings) -> None:
    """Let packets through on the bridge, and masquerade what is exposed."""
    if settings.bridge:
        firewall.let_through(settings.bridge)
        try:
            exposed.masquerade_again(settings.run_dir)
        except NetworkError as error:
            log.warning("%s", error)


def _let_ask(settings: RouterSettings, bridges: Sequence[str]) -> None:
    """Let questions in from containers on these bridges."""
    if settings.bridge and not settings.dns_listen:
        firewall.let_ask(settings.bridge, bridges, settings.dns_port)


async def _serve_dns(dns: HostDns, service: RouterService, stack: AsyncExitStack) -> None:
    stack.push_async_callback(dns.server.close)
    await dns.look()
    service.dns, service.dns_counts = dns.facts, dns.server.counts
    stack.push_async_callback(_ended, asyncio.create_task(dns.keep_looking()))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
