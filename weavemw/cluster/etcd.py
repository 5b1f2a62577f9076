"""A client of etcd 3.4 and later, over its JSON gateway: several members, TLS, tokens, transactions, leases, watches.

A member that does not answer in time is passed over, and what was being watched
there is watched elsewhere: a frozen member closes no connection. What may have
been done, and must not be done twice, is never asked again: :class:`~weavemw.cluster.lost.Unsure`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from weavemw.cluster import etcd_messages as messages
from weavemw.cluster.kv import Changes, Listing, Outcome, Pair, Txn, after_prefix
from weavemw.cluster.lost import Compacted, HistoryLost, StoreRefused, StoreUnavailable, Unsure
from weavemw.cluster.store_settings import StoreSettings
from weavemw.errors import SettingsError

__all__ = ["EtcdClient", "Trouble"]

log = logging.getLogger(__name__)

_UNAUTHENTICATED, _UNAVAILABLE, _COMPACTED = 16, 14, 11  # gRPC's status codes
_PASSING = frozenset({_UNAVAILABLE, 1, 2, 4, 10, 13})  # and cancelled, unknown, deadline exceeded, aborted, internal
_PAGE = 2000  # pairs in one answer
_DEAD = ("invalid auth token", "revision of auth store is old")  # what a token that has died is answered
_NOT_DONE = ("no leader", "not capable")  # refused before anything was proposed


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the store could not be asked, in words, and since when (seconds since 1970)."""

    reason: str
    since: float


@dataclass(eq=False)
class _Member:
    url: str
    token: str = ""
    watched: set[aiohttp.ClientResponse] = field(default_factory=set)
    entering: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.url.partition("//")[2]


@dataclass
class _Watch:
    """What is watched, and the first revision that was not seen yet."""

    prefix: str
    following: int


class _Status(Exception):
    """What a member refused: gRPC's code and its words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text.removeprefix("etcdserver: ")

    @property
    def elsewhere(self) -> bool:
        """Whether another member may do it."""
        return self.code in _PASSING


class EtcdClient:
    """One client for all that a host asks; an asynchronous context. Times are in seconds.

    A member has ``timeout`` to answer. A watch that says nothing for ``silence`` has its member asked. Every call
    raises :class:`StoreUnavailable` after two rounds of all members, and :class:`StoreRefused`. ``trouble`` says what
    is wrong now, ``None`` for nothing.
    """

    def __init__(self, settings: StoreSettings, *, timeout: float = 2.0, silence: float = 1.0) -> None:
        self._settings = settings
        self._timeout = timeout
        self._silence = silence
        self._members = [_Member(url) for url in settings.members]
        self.cluster = ""
        self.trouble: Trouble | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=_tls(self._settings) or True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._session.close()

    @property
    def member(self) -> str:
        """The member that is asked first, as host:port."""
        return self._members[0].name

    async def get(self, key: str) -> Pair | None:
        """What is kept under a key, by the newest revision."""
        pairs = messages.pairs_of(await self._call("/v3/kv/range", messages.range_request(key)))
        return pairs[0] if pairs else None

    async def list(self, prefix: str, *, page: int = _PAGE) -> Listing:
        """All pairs of a prefix, at one revision."""
        start, revision, found = prefix, 0, list[Pair]()
        while True:
            request = messages.range_request(start, after_prefix(prefix), limit=page, revision=revision)
            answer = await self._call("/v3/kv/range", request)
            revision = revision or messages.revision_of(answer)
            found.extend(messages.pairs_of(answer))
            if not answer.get("more"):
                return Listing(tuple(found), revision, self.cluster)
            start = found[-1].key + "\0"

    async def txn(self, txn: Txn, *, repeatable: bool = False) -> Outcome:
        """Do a transaction; ``repeatable`` says that done twice is as good as done once.

        Raises :class:`Unsure` for one that is not.
        """
        return messages.outcome_of(await self._call("/v3/kv/txn", messages.txn_request(txn), repeatable=repeatable))

    async def grant(self, ttl: int) -> int:
        """A lease of so many seconds; its number."""
        return messages.number_of(await self._call("/v3/lease/grant", {"TTL": str(ttl)}), "ID")

    async def keep_alive(self, lease: int) -> bool:
        """Let a lease begin anew; whether it still was."""
        answer = await self._call("/v3/lease/keepalive", {"ID": str(lease)})
        return messages.number_of(answer.get("result", answer), "TTL") > 0

    async def revoke(self, lease: int) -> None:
        """End a lease, and what was kept by it."""
        await self._call("/v3/lease/revoke", {"ID": str(lease)})

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Changes]:
        """What comes to be with this prefix at ``revision`` and later: all of it, in order, once; for ever.

        Raises :class:`Compacted`, :class:`HistoryLost` and :class:`StoreRefused`. While no member answers it waits.
        """
        watch = _Watch(prefix, revision)
        while True:
            member = self._members[0]
            try:
                async for changes in self._stream(member, watch):
                    yield changes
                self._pass_over(member, "the watch ended")
            except (_Status, aiohttp.ClientError, OSError, ValueError, StoreUnavailable) as error:
                self._watch_failed(member, error)
            await asyncio.sleep(0.1)

    def _watch_failed(self, member: _Member, error: Exception) -> None:
        if isinstance(error, _Status) and error.code == _COMPACTED:
            raise Compacted(error.text) from error
        if isinstance(error, _Status) and error.code == _UNAUTHENTICATED:
            member.token = ""
        elif isinstance(error, _Status) and not error.elsewhere:
            raise StoreRefused(f"etcd at {member.name}: {error.text}") from error
        self._pass_over(member, _words(error))

    async def _stream(self, member: _Member, watch: _Watch) -> AsyncIterator[Changes]:
        response = await self._open(member, watch)
        member.watched.add(response)
        try:
            if response.status != 200:
                raise _status(response.status, await response.text())
            await self._probe(member, watch)
            async for result in self._results(member, response, watch):
                changes = messages.changes_of(result, watch.following)
                watch.following = changes.revision + 1
                if changes.changes:
                    yield changes
        finally:
            member.watched.discard(response)
            response.close()

    async def _open(self, member: _Member, watch: _Watch) -> aiohttp.ClientResponse:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        body = json.dumps(messages.watch_request(watch.prefix, watch.following)).encode()
        async with asyncio.timeout(self._timeout):
            headers = await self._headers(member)
            return await self._session.post(f"{member.url}/v3/watch", data=body, headers=headers, timeout=limits)

    async def _results(self, member: _Member, response: aiohttp.ClientResponse,
                       watch: _Watch) -> AsyncIterator[Mapping[str, Any]]:
        rest, reading = b"", asyncio.ensure_future(response.content.readany())
        try:
            while True:
                await asyncio.wait((reading,), timeout=self._silence)
                if not reading.done():
                    await self._probe(member, watch)
                    continue
                if not (chunk := reading.result()):
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    yield _result(json.loads(line))
                reading = asyncio.ensure_future(response.content.readany())
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _probe(self, member: _Member, watch: _Watch) -> None:
        """Ask a member whose watch says nothing, for what it can't know without a leader."""
        answer = await self._ask(member, "/v3/kv/range", messages.range_request(watch.prefix))
        revision, seen = messages.revision_of(answer), watch.following - 1
        if revision < seen:
            raise HistoryLost(f"etcd is at revision {revision}, and was at {seen}: it was restored from a backup, or "
                              "is another one")

    async def _call(self, path: str, body: Mapping[str, Any], *, repeatable: bool = True) -> Mapping[str, Any]:
        last: Exception = StoreUnavailable("no member of etcd was asked")
        for attempt in range(2 * len(self._members)):
            member = self._members[0]
            try:
                return await self._ask(member, path, body)
            except _Status as error:
                last = error
                if not error.elsewhere:
                    raise StoreRefused(f"etcd at {member.name}: {error.text}") from error
                sure = any(words in error.text for words in _NOT_DONE)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                last, sure = error, isinstance(error, aiohttp.ClientConnectorError)
            self._pass_over(member, _words(last))
            if not (repeatable or sure):
                raise Unsure(f"etcd at {member.name}: {_words(last)}") from last
            await asyncio.sleep(0.05 if attempt < len(self._members) else 0.2)
        raise StoreUnavailable(f"etcd does not answer: {_words(last)}") from last

    async def _ask(self, member: _Member, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        async with asyncio.timeout(self._timeout):
            headers = await self._headers(member)
            try:
                answer = await self._post(member, path, body, headers)
            except _Status as error:
                if not self._token_died(member, headers, error):
                    raise
                answer = await self._post(member, path, body, await self._headers(member))
        self.cluster = answer.get("header", {}).get("cluster_id", self.cluster)
        self.trouble = None
        return answer

    async def _post(self, member: _Member, path: str, body: Mapping[str, Any],
                    headers: Mapping[str, str]) -> Mapping[str, Any]:
        async with self._session.post(member.url + path, data=json.dumps(body).encode(), headers=headers) as response:
            text = await response.text()
        if response.status != 200:
            raise _status(response.status, text)
        answer: Mapping[str, Any] = json.loads(text)
        return answer

    async def _headers(self, member: _Member) -> dict[str, str]:
        """The token, where there is a user; and that a member without a leader is to say so."""
        if not self._settings.user:
            return {"Grpc-Metadata-hasleader": "true"}
        async with member.entering:  # many calls at once need one token
            if not member.token:
                who = {"name": self._settings.user, "password": self._settings.password}
                member.token = (await self._post(member, "/v3/auth/authenticate", who, {}))["token"]
        return {"Authorization": member.token, "Grpc-Metadata-hasleader": "true"}

    def _token_died(self, member: _Member, headers: Mapping[str, str], error: _Status) -> bool:
        """Whether asking again with a new token may help; of many that were refused together one asks for it."""
        died = error.code == _UNAUTHENTICATED or any(each in error.text for each in _DEAD)
        if died and member.token == headers.get("Authorization"):
            member.token = ""
        return died and bool(self._settings.user)

    def _pass_over(self, member: _Member, reason: str) -> None:
        """Ask another member first from now on, and let what is watched at this one be watched there."""
        if self._members[0] is member:
            self._members.append(self._members.pop(0))
        self.trouble = self.trouble or Trouble(f"{member.name}: {reason}", time.time())
        for response in tuple(member.watched):
            response.close()


def _tls(settings: StoreSettings) -> ssl.SSLContext | None:
    if settings.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key)
    except (OSError, ssl.SSLError) as error:
        path = settings.ca if not settings.cert else f"{settings.ca}, {settings.cert} and {settings.key}"
        raise SettingsError(f"can't use {path}: {error.strerror or error}") from error
    return context


def _result(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message of a watch. Raises for one by which it ends."""
    if "error" in message:
        raise _Status(message["error"].get("grpc_code", _UNAVAILABLE), message["error"].get("message", ""))
    result: Mapping[str, Any] = message["result"]
    if result.get("compact_revision"):
        raise _Status(_COMPACTED, f"history before revision {result['compact_revision']} is gone")
    if result.get("canceled"):
        reason = result.get("cancel_reason") or "the watch was cancelled"
        raise _Status(_UNAVAILABLE if "permission denied" not in reason else 7, reason)
    return result


def _status(status: int, text: str) -> _Status:
    try:
        answer = json.loads(text)
        error = answer["error"] if isinstance(answer.get("error"), dict) else answer  # of streams, and of other calls
        code = int(error.get("grpc_code") or error.get("code") or 0)
        return _Status(code, str(error.get("message") or error.get("error")))
    except (ValueError, AttributeError, TypeError):
        if status == 404:
            return _Status(0, "it has no JSON gateway: start it with enable-grpc-gateway: true")
        return _Status(_UNAVAILABLE if status >= 500 else 0, f"answered {status}, and is perhaps no etcd")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return f"TLS failed: {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return str(error) or type(error).__name__
