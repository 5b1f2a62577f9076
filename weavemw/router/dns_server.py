"""The DNS server's sockets: UDP and TCP, on any number of addresses.

UDP is read from the event loop, at most 64 packets a turn, so that the HTTP API of
the same loop stays quick under load. This carries several times as many answers as
:class:`asyncio.DatagramProtocol`. Most of what a lone packet costs is the wakeup: so
where packets come one after the other in no time, a moment is waited for more (see
:class:`Pace`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from weavemw.router.datagrams import Datagrams, Peer
from weavemw.router.dns import (
    NOERROR,
    REFUSED,
    Verdict,
    answer,
    has_answer,
    is_bare,
    other_answer,
    plain_answer,
    question_of,
    refusal,
)
from weavemw.router.forward import Forwarder, Place
from weavemw.router.metrics import DnsCounts
from weavemw.router.shares import Shares
from weavemw.router.store import Network
from weavemw.router.zone import Zone

__all__ = ["Clients", "DnsServer", "SocketAddress"]

log = logging.getLogger(__name__)

#: Host and port.
SocketAddress = tuple[str, int]

EVERYBODY = (ip_network("0.0.0.0/0"), ip_network("::/0"))

_SO_RCVBUFFORCE, _BUFFER = 33, 2 << 20  # bytes; the kernel counts some 800 for each question
_LARGEST_QUERY = 4096
_TCP_CONNECTIONS = 128
_TCP_IDLE = 10.0
_REMEMBERED = 65536
_QUICKLY = 0.0003  # seconds from one packet to the next, at thousands a second
_MOMENT = 0.0002  # seconds
_DOCKERS_TIME = 0.25  # seconds that Docker has for a name that we know too
_MANY = 8  # packets that are worth a wakeup


class Pace:
    """Waits a moment before packets are read that came quickly, and one by one: several then share a wakeup's cost.

    All else in the loop waits too, for as long as it waits for a turn of 64 packets.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = 0.0

    def wait(self) -> None:
        """Call this before reading."""
        if self._clock() < self._until:
            self._sleep(_MOMENT)

    def has_read(self, count: int) -> None:
        """Call this after reading so many."""
        self._until = self._clock() + _QUICKLY if count < _MANY else 0.0


class Clients(dict[str | bytes, bool]):
    """Whether a host is answered: ``clients["10.32.0.1"]``, or packed; remembered for as many hosts as there is room.

    Only some networks are, so that nobody outside uses us as a resolver or a mirror.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        super().__init__()
        self.networks = tuple(networks)

    def allow(self, networks: Iterable[Network]) -> None:
        """Answer these networks, and no others from now on."""
        self.networks = tuple(networks)
        self.clear()

    def __missing__(self, host: str | bytes) -> bool:
        if len(self) >= _REMEMBERED:
            self.clear()
        address = ip_address(host)
        return self.setdefault(host, any(address in network for network in self.networks))


async def _here(_: str) -> Place | None:
    return None


@dataclass
class DnsServer:
    """Answers from ``zone``, asks ``forwarder`` for the rest, for ``clients`` only; counts by protocol.

    ``place_of`` says from where the forwarder is to ask for a client, by its address, if it is not from here.
    """

    zone: Zone
    forwarder: Forwarder
    clients: Clients
    place_of: Callable[[str], Awaitable[Place | None]] = _here
    counts: dict[str, DnsCounts] = field(default_factory=lambda: {"udp": DnsCounts(), "tcp": DnsCounts()})
    _listeners: dict[SocketAddress, tuple[socket.socket, asyncio.Server]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _conversations: Shares[asyncio.Task[None]] = field(default_factory=lambda: Shares(_TCP_CONNECTIONS))
    _closed: bool = False

    @property
    def addresses(self) -> tuple[SocketAddress, ...]:
        """Where it listens."""
        return tuple(self._listeners)

    async def listen(self, address: SocketAddress, device: str = "") -> SocketAddress:
        """Serve an address, UDP and TCP; port 0 chooses one. Raises OSError if it can't be had.

        With a ``device``, all that comes by this interface is answered, and by this interface, whatever the routes.
        """
        udp = tcp = None
        clients = self.clients if not device else Clients(EVERYBODY)
        try:
            udp = _socket(address, socket.SOCK_DGRAM, device)
            bound = (address[0], int(udp.getsockname()[1]))
            tcp = _socket(bound, socket.SOCK_STREAM, device)
            server = await asyncio.start_server(partial(self._accept, clients), sock=tcp, limit=2 * _LARGEST_QUERY)
        except BaseException:
            for each in filter(None, (udp, tcp)):
                each.close()
            raise
        asyncio.get_running_loop().add_reader(udp, self._reader(udp, clients, bool(device)))
        self._listeners[bound] = (udp, server)
        return bound

    def unlisten(self, address: SocketAddress) -> None:
        """Serve an address no more."""
        udp, tcp = self._listeners.pop(address)
        asyncio.get_running_loop().remove_reader(udp)
        udp.close()
        tcp.close()

    async def close(self) -> None:
        """Stop listening, and drop what is under way."""
        self._closed = True
        for address in self.addresses:
            self.unlisten(address)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reader(self, udp: socket.socket, clients: Clients, only_containers: bool) -> Callable[[], None]:
        zone, codes, exchange = self.zone, self.counts["udp"].own, Datagrams(udp, largest=_LARGEST_QUERY).exchange

        def plain(query: bytes, host: bytes) -> bytes | None:
            return plain_answer(query, zone) if clients[host] and not (only_containers and is_bare(query)) else None

        def other(query: bytes, peer: Peer) -> None:
            if only_containers and is_bare(query):
                self._spawn(self._answer_bare(udp, query, peer))
            else:
                self._answer_other(udp, query, peer, is_client=clients[peer[0]])

        pace = Pace()

        def read() -> None:
            pace.wait()
            answered = exchange(plain, other)
            codes[NOERROR] += answered
            pace.has_read(answered)

        return read

    def _answer_other(self, udp: socket.socket, query: bytes, peer: Peer, *, is_client: bool) -> None:
        reply = other_answer(query, self.zone) if is_client else refused(query)
        if isinstance(reply, bytes):
            self.counts["udp"].own[reply[3] & 0x0F] += 1
            send(udp, reply, peer)
        elif reply is Verdict.FORWARD:
            self._spawn(self._forward(udp, query, peer))

    async def _answer_bare(self, udp: socket.socket, query: bytes, peer: Peer) -> None:
        reply = await self._resolved(query, peer[0], self.counts["udp"], tcp=False)
        if reply is not None:
            send(udp, reply, peer)

    async def _resolved(self, query: bytes, host: str, counts: DnsCounts, *, tcp: bool) -> bytes | None:
        """The answer to a client, if it is to get one; for a name without domain, Docker's own comes first."""
        own = answer(query, self.zone, tcp=tcp)
        if own is Verdict.DROP:
            return None
        reply = own if isinstance(own, bytes) else None
        if reply is None or is_bare(query):
            place = await self.place_of(host)
            if reply is None or (place and place.knows_names):
                reply = await self._forwarded(query, host, place, tcp=tcp, own=reply)
        codes = counts.own if reply is own else counts.forwarded
        codes[reply[3] & 0x0F] += 1
        return reply

    async def _forwarded(self, query: bytes, host: str, place: Place | None, *, tcp: bool, own: bytes | None) -> bytes:
        """What the resolvers say; where we have an answer of our own, only if they have one too, and soon."""
        if own is None:
            return await self.forwarder.ask(query, client=host, tcp=tcp, place=place)
        try:
            async with asyncio.timeout(_DOCKERS_TIME):
                reply = await self.forwarder.ask(query, client=host, tcp=tcp, place=place)
        except TimeoutError:
            return own
        return reply if has_answer(reply) else own

    async def _forward(self, udp: socket.socket, query: bytes, peer: Peer) -> None:
        reply = await self.forwarder.ask(query, client=peer[0], place=await self.place_of(peer[0]))
        self.counts["udp"].forwarded[reply[3] & 0x0F] += 1
        send(udp, reply, peer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, clients: Clients, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self._closed or not peer or not clients[peer[0]]:
            writer.transport.abort()
            return
        host = peer[0]
        if self._conversations.full:  # the oldest makes room (RFC 7766, 6.2.3): that of the client with most of them
            richest = self._conversations.richest(host)
            oldest = self._conversations.of(richest)[0]
            self._conversations.remove(richest, oldest)
            oldest.cancel()
        writer.transport.set_write_buffer_limits(0)  # what is drained is with the kernel
        conversation = self._spawn(self._converse(reader, writer, host))
        self._conversations.add(host, conversation)
        conversation.add_done_callback(lambda task: self._hang_up(task, writer, host))

    def _hang_up(self, conversation: asyncio.Task[None], writer: asyncio.StreamWriter, host: str) -> None:
        self._conversations.remove(host, conversation)
        writer.transport.abort()  # a peer that does not read would hold open what is only closed

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        """Queries of one TCP connection, one after the other (RFC 7766)."""
        try:
            while await self._exchange(reader, writer, host):
                pass
        except (OSError, EOFError) as error:  # gone, or silent for too long
            log.debug("DNS over TCP: %s", error or type(error).__name__)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> bool:
        async with asyncio.timeout(_TCP_IDLE):
            size = int.from_bytes(await reader.readexactly(2), "big")
            query = await reader.readexactly(size) if size <= _LARGEST_QUERY else b""
        reply = await self._resolved(query, host, self.counts["tcp"], tcp=True)
        if reply is None:
            return False
        writer.write(len(reply).to_bytes(2, "big") + reply)
        async with asyncio.timeout(_TCP_IDLE):
            await writer.drain()
        return True


def _enlarge(udp: socket.socket) -> None:
    """Let some thousand questions wait while we are busy, also beyond what the host allows if we may (socket(7))."""
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    with contextlib.suppress(PermissionError):
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)


def _socket(address: SocketAddress, kind: socket.SocketKind, device: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _enlarge(bound)
        if bound.family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # an IPv4 client is to be known as one
        if device:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def refused(query: bytes) -> bytes | Verdict:
    """What strangers get: a refusal as long as their question, or nothing where there is none."""
    question = question_of(query) if len(query) > 12 and not query[2] & 0x80 else None
    return refusal(query, REFUSED, question) if question else Verdict.DROP


def send(udp: socket.socket, reply: bytes, peer: Peer) -> None:
    """Send a packet, or lose it as UDP may: the client asks again."""
    try:
        udp.sendto(reply, peer)
    except OSError as error:  # closed meanwhile, a full buffer, a firewall's verdict
        log.debug("answer to %s not sent: %s", peer[0], error)
