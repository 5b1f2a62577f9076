"""Whom to ask in a container's name: those whom Docker would have let it ask, and from within it.

So Docker's embedded resolver answers for the names of Docker's networks, and a server that is given by ``--dns`` is
reached as the container reaches it. What Docker wrote stands in the container's resolv.conf (`weavemw.network.resolv`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container
from weavemw.errors import WeaveError
from weavemw.network import own_files, resolv
from weavemw.network.netlink import inside
from weavemw.router.forward import Place, Upstream
from weavemw.router.store import Address

__all__ = ["ContainerDns", "Owners"]

log = logging.getLogger(__name__)

#: Who holds an address.
Owners = Callable[[Address], Awaitable[tuple[str, ...]]]

_REMEMBERED = 2.0  # seconds
_PLACES = 4096
_QUESTIONS = 4  # to Docker, at a time


@dataclass(frozen=True)
class _Found:
    """A container's process and namespace, and whom it would ask."""

    container: Container
    servers: resolv.Servers


@dataclass
class _Inside:
    """:class:`~weavemw.router.forward.Place` in a container; ``anew`` looks again at what it is by now."""

    found: _Found
    upstreams: Sequence[Upstream]
    anew: Callable[[], Awaitable[_Found | None]]

    @property
    def name(self) -> str:
        return self.found.container.id

    @property
    def asks_us(self) -> bool:
        return self.found.servers.asks_us

    @property
    def knows_names(self) -> bool:
        return (resolv.EMBEDDED, 53) in self.upstreams

    async def socket(self, family: int, kind: int) -> socket.socket:
        """In its namespace; if its process has ended, then in that of the one that came after it."""
        open_socket = partial(socket.socket, family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            return await asyncio.to_thread(_inside, self.found.container, open_socket)
        except OSError:
            found = await self.anew()
            if found is None:
                raise
            return await asyncio.to_thread(_inside, found.container, open_socket)


class ContainerDns:
    """The places of containers, by their addresses; ``is_ours`` tells our own servers, ``upstreams`` are the host's.

    Those may be ``given`` by an option, and not be whom Docker would have containers ask: then these ask no others, but
    for Docker's embedded resolver.
    """

    def __init__(self, docker: Docker, owners_of: Owners, is_ours: Callable[[str], bool],
                 upstreams: Callable[[], Sequence[Upstream]], *, given: bool = False) -> None:
        self.docker = docker
        self.owners_of = owners_of
        self._is_ours = is_ours
        self._upstreams = upstreams
        self._given = given
        self._known: dict[str, tuple[float, asyncio.Future[_Found | None]]] = {}
        self._askers = ThreadPoolExecutor(_QUESTIONS, "container-dns")

    async def place_of(self, client: str) -> Place | None:
        """Where to ask for a client; ``None`` if it is no container, or its resolvers are those of the host."""
        found = await self._found(client)
        if found is None:
            return None
        upstreams = [(address, 53) for address in found.servers.addresses
                     if not self._is_ours(address) and (address == resolv.EMBEDDED or not self._given)]
        if not upstreams or upstreams == list(self._upstreams()):
            return None
        return _Inside(found, upstreams, partial(self._looked_up, client))

    async def _found(self, client: str) -> _Found | None:
        now = asyncio.get_running_loop().time()
        when, known = self._known.get(client, (-_REMEMBERED, None))
        if known is None or now >= when + _REMEMBERED:
            if len(self._known) >= _PLACES:
                self._known.clear()
            known = asyncio.ensure_future(self._looked_up(client))
            self._known[client] = now, known
        return await asyncio.shield(known)

    async def _looked_up(self, client: str) -> _Found | None:
        owners = await self.owners_of(ip_address(client))
        loop = asyncio.get_running_loop()
        for owner in owners:
            if found := await loop.run_in_executor(self._askers, self._look, owner):
                return found
        return None

    def _look(self, owner: str) -> _Found | None:
        """What is to be known of a container that runs and whose resolv.conf is ours."""
        try:
            container = self.docker.inspect(owner)
            servers = resolv.servers(own_files.read(container.resolv_conf_path)) if container.is_ours else None
        except (WeaveError, OSError, ValueError) as error:
            log.debug("the host's resolvers are asked for %s: %s", owner[:12], error)
            return None
        return _Found(container, servers) if servers and container.is_alive else None


def _inside(container: Container, action: Callable[[], socket.socket]) -> socket.socket:
    try:
        return inside(container.pid, container.sandbox_key, action)
    except WeaveError as error:
        raise OSError(str(error)) from error
