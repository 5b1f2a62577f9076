"""Questions that are not ours go to the host's resolvers, and their answers back.

Each question gets a socket of its own, so that its port is as hard to guess as
its id (RFC 5452). Only so many are under way at a time: a flood of questions is
answered SERVFAIL, and holds neither memory nor file descriptors; it is the
client with most of them who is refused. The same question is asked once, however
many wait for its answer (RFC 5452, 9.2), and as long as anybody does: so one that
comes back to us from a resolver that forwards to us goes round once, and not for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from weavemw.network.resolv import EMBEDDED, nameservers
from weavemw.router.dns import SERVFAIL, Question, is_answer_to, question_of, refusal, truncated
from weavemw.router.shares import Shares

__all__ = ["Forwarder", "Place", "ResolvConf", "Upstream"]

log = logging.getLogger(__name__)

#: Host and port of a resolver.
Upstream = tuple[str, int]

#: Whom Docker lets containers ask where the host's resolv.conf names nobody.
_DOCKERS_DEFAULT = ("8.8.8.8", "8.8.4.4")

_REFUSING = (2, 5)


Answer = asyncio.Future[bytes | None]


class Place(Protocol):
    """From where resolvers are asked, and which: a host, or a container on it."""

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """Whom to ask, in this order."""

    @property
    def name(self) -> str:
        """Differs from those of all other places."""

    @property
    def asks_us(self) -> bool:
        """Whether one of its resolvers asks us, in this place's name, what it does not know."""

    @property
    def knows_names(self) -> bool:
        """Whether its resolvers know names without a domain of its own: there they come before ours."""

    async def socket(self, family: int, kind: int) -> socket.socket:
        """A socket that does not block. Raises OSError."""


@dataclass
class _Host:
    """This host, and its resolvers as they are by now; the one that answered last comes first."""

    known: Callable[[], Sequence[Upstream]]
    last_good: Upstream | None = None
    name: str = ""
    asks_us: bool = False
    knows_names: bool = False

    @property
    def upstreams(self) -> Sequence[Upstream]:
        return sorted(self.known(), key=lambda upstream: upstream != self.last_good)

    async def socket(self, family: int, kind: int) -> socket.socket:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


@dataclass
class _Asked:
    """A question that is under way: what asks it, and those who wait for its answer."""

    waiting: set[Answer] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


#: A query but for its id, whether it came by TCP, and the name of the place.
_Key = tuple[bytes, bool, str]


class Forwarder:
    """Asks ``upstreams``, one after the other, ``timeout`` seconds each; the one that answered last comes first.

    ``limit`` is how many may wait for an answer. Where another :class:`Place` is given, its resolvers are asked from
    there, and ``upstreams`` only if none of them says anything.
    """

    def __init__(self, upstreams: Callable[[], Sequence[Upstream]], *, timeout: float = 2.0, rounds: int = 2,
                 limit: int = 256) -> None:
        self._host = _Host(upstreams)
        self.timeout = timeout
        self.rounds = rounds
        self.refused = 0
        self._waiting: Shares[Answer] = Shares(limit)
        self._under_way: dict[_Key, _Asked] = {}
        self._asked_there: Counter[tuple[str, bytes, int]] = Counter()

    @property
    def pending(self) -> int:
        """How many wait for an answer."""
        return len(self._waiting)

    async def ask(self, query: bytes, *, client: str = "", tcp: bool = False,
                  place: Place | None = None) -> bytes:
        """The resolvers' answer to a client's query; SERVFAIL if there is none, or if too many wait."""
        question = question_of(query, tcp=tcp)
        if question is None or not self._has_room(client):
            self.refused += 1
            return refusal(query, SERVFAIL, question)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.add(client, answer)
        try:
            reply = await self._answered(answer, query, question, tcp, place or self._host)
            return query[:2] + reply[2:] if reply else refusal(query, SERVFAIL, question)
        finally:
            self._waiting.remove(client, answer)

    def _has_room(self, client: str) -> bool:
        """Whether a client may wait, after the last one of who has more waiting has been refused if need be."""
        if not self._waiting.full:
            return True
        richest = self._waiting.richest(client)
        theirs = self._waiting.of(richest)
        if richest == client or len(theirs) < 2:
            return False
        self.refused += 1
        self._waiting.remove(richest, theirs[-1])
        if not theirs[-1].done():
            theirs[-1].set_result(None)
        return True

    async def _answered(self, answer: Answer, query: bytes, question: Question, tcp: bool,
                        place: Place) -> bytes | None:
        if place.asks_us and self._asked_there[_there(place, question)]:  # so it is its resolver that asks
            place = self._host
        key = query[2:], tcp, place.name
        asked = self._under_way.setdefault(key, _Asked())
        asked.waiting.add(answer)
        asked.task = asked.task or asyncio.create_task(self._ask_for(asked, key, query, question, place))
        try:
            return await answer
        finally:
            asked.waiting.discard(answer)
            if not asked.waiting:
                asked.task.cancel()
                self._forget(key, asked)

    async def _ask_for(self, asked: _Asked, key: _Key, query: bytes, question: Question, place: Place) -> None:
        reply = None
        self._asked_there[_there(place, question)] += 1
        try:
            reply = await self._ask(query, question, key[1], place)
            if reply is None and place is not self._host:
                reply = await self._ask(query, question, key[1], self._host)
        finally:
            self._asked_there -= Counter({_there(place, question): 1})
            self._forget(key, asked)
            for answer in asked.waiting:
                if not answer.done():
                    answer.set_result(reply)

    def _forget(self, key: _Key, asked: _Asked) -> None:
        if self._under_way.get(key) is asked:
            del self._under_way[key]

    async def _ask(self, query: bytes, question: Question, tcp: bool, place: Place) -> bytes | None:
        asked = secrets.token_bytes(2) + query[2:]
        second_best = None
        for upstream in [*place.upstreams] * self.rounds:
            reply = await self._exchange(asked, question, upstream, tcp, place)
            if reply is not None:
                if reply[3] & 0x0F not in _REFUSING:
                    if place is self._host:
                        self._host.last_good = upstream
                    return reply
                second_best = second_best or reply
        return second_best

    async def _exchange(self, query: bytes, question: Question, upstream: Upstream, tcp: bool,
                        place: Place) -> bytes | None:
        reply = await self._attempt(_over_tcp if tcp else _over_udp, query, question, upstream, place)
        if reply is None or tcp or not reply[2] & 0x02:
            return reply
        whole = await self._attempt(_over_tcp, query, question, upstream, place)
        if whole is None:
            return reply
        return whole if len(whole) <= question.limit else truncated(whole, question)

    async def _attempt(self, exchange: Callable[..., object], query: bytes, question: Question,
                       upstream: Upstream, place: Place) -> bytes | None:
        try:
            async with asyncio.timeout(self.timeout):
                return await exchange(query, question, upstream, place)  # type: ignore[misc,no-any-return]
        except (OSError, EOFError) as error:  # TimeoutError is one
            log.debug("resolver %s: %s", upstream, error or type(error).__name__)
            return None


def _there(place: Place, question: Question) -> tuple[str, bytes, int]:
    return place.name, question.name, question.kind


def _family(upstream: Upstream) -> int:
    return socket.AF_INET6 if ":" in upstream[0] else socket.AF_INET


async def _over_udp(query: bytes, question: Question, upstream: Upstream, place: Place) -> bytes:
    loop = asyncio.get_running_loop()
    with await place.socket(_family(upstream), socket.SOCK_DGRAM) as channel:
        await loop.sock_connect(channel, upstream)
        await loop.sock_sendall(channel, query)
        while True:
            reply = await loop.sock_recv(channel, 65535)
            if is_answer_to(reply, query, question):
                return reply


async def _over_tcp(query: bytes, question: Question, upstream: Upstream, place: Place) -> bytes:
    channel = await place.socket(_family(upstream), socket.SOCK_STREAM)
    try:
        await asyncio.get_running_loop().sock_connect(channel, upstream)
        reader, writer = await asyncio.open_connection(sock=channel)
    except BaseException:
        channel.close()
        raise
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        if not is_answer_to(reply, query, question):
            raise EOFError("an answer to something else")
        return reply
    finally:
        writer.close()


class ResolvConf:
    """The resolvers of a resolv.conf, read anew when it has changed, without those for which ``is_ours`` says so.

    Where there are none, Docker's default counts, as it does in containers.
    """

    def __init__(self, path: Path, is_ours: Callable[[str], bool]) -> None:
        self.path = path
        self._is_ours = is_ours
        self._seen: tuple[int, int, int] | None = None
        self._is_readable = True
        self._addresses: tuple[str, ...] = ()

    def __call__(self) -> tuple[Upstream, ...]:
        """Host and port of each resolver."""
        self._refresh()
        return tuple((address, 53) for address in self._addresses or _DOCKERS_DEFAULT
                     if address != EMBEDDED and not self._is_ours(address))

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._addresses, self._seen = nameservers(self.path.read_text("utf-8", "replace")), seen
            self._is_readable = True
        except OSError as error:
            if self._is_readable:  # it is looked at for each question
                log.warning("can't read %s, going on with what it said last: %s", self.path, error)
            self._is_readable = False
