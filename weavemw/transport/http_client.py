"""A small synchronous HTTP/1.1 client for what we ask ourselves: Docker and the router, on every start's path.

It keeps connections for later requests, as the passthrough does. A request goes over a kept one only if it may be
sent twice (RFC 9110 section 9.2.2): the server may have closed it while it was idle. It is sent again, over a new
connection, if not a byte of an answer came back.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from weavemw.dockerapi.hosts import Host, Tcp, Unix
from weavemw.dockerapi.requester import Answer
from weavemw.errors import NoAnswer
from weavemw.transport.http1 import ProtocolError, decoder_for, request_head
from weavemw.transport.upstream import Connection, Upstream

__all__ = ["HttpClient"]

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_BLOCK = 65536
_LATE = "no answer in time"


class HttpClient:
    """Asks one server, over a unix socket or TCP. Thread-safe; nothing is opened before the first request."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._pool = Upstream(host.path if isinstance(host, Unix) else "")
        self._made = itertools.count(1)
        self._latest = 0

    @property
    def where(self) -> str:
        """The path of the socket, or host:port."""
        return self.host.path if isinstance(self.host, Unix) else str(self.host).removeprefix("tcp://")

    def ask(self, method: str, path: str, *, timeout: float, body: bytes | None = None,
            headers: Mapping[str, str] | None = None, repeatable: bool = False) -> Answer:
        """One request and the whole of its answer, within ``timeout`` seconds. Raises :class:`NoAnswer`.

        ``repeatable``: it may be sent twice, though its method does not say so.
        """
        message = self._message(method, path, headers or {}, body)
        with self._begun(method, message, Deadline(timeout), repeatable or method in _REPEATABLE) as exchange:
            return Answer(exchange.head.status, b"".join(exchange.pieces()))

    @contextmanager
    def stream(self, path: str, *, timeout: float) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The status of ``GET path``, within ``timeout`` seconds, and its body as it arrives, however long it takes.

        Raises :class:`NoAnswer` at the beginning; later the body simply ends.
        """
        with self._begun("GET", self._message("GET", path, {}, None), Deadline(timeout), True) as exchange:
            exchange.deadline = Deadline(None)
            yield exchange.head.status, _until_broken(exchange.pieces())

    def unbroken(self) -> int:
        """A number that stays the same while a kept connection lives and no other is made; 0 if none is kept.

        A server that was replaced has closed its connections: the same number twice is the same server.
        """
        kept = self._pool.idle()
        if kept is None:
            return 0
        self._pool.keep(kept)
        return self._latest

    def _begun(self, method: str, message: bytes, deadline: Deadline, repeatable: bool) -> _Exchange:
        """The exchange of a request, as far as the head of its answer."""
        kept = self._pool.idle() if repeatable else None
        if kept:
            try:
                return _Exchange(self._pool, kept, method, message, deadline)
            except _Stale:
                pass  # the server had closed it: it has done nothing with the request
        connection = _connected(self.host, deadline)
        self._latest = next(self._made)
        try:
            return _Exchange(self._pool, connection, method, message, deadline)
        except _Stale as error:
            raise NoAnswer("it closed the connection without an answer") from error

    def _message(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        framing = [("Content-Length", str(len(body or b"")))] if body is not None or method in ("POST", "PUT") else []
        name = "docker" if isinstance(self.host, Unix) else self.where
        return request_head(method, path, [("Host", name), *headers.items(), *framing]) + (body or b"")


class Deadline:
    """When all of a request must be over: in so many seconds, or (``None``) never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """The seconds that are left. Raises ``TimeoutError`` if there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Stale(Exception):
    """The connection ended before there was a byte of an answer."""


class _Exchange:
    """One request on a connection, and its answer, whose head has been read.

    At the end of its ``with`` the connection is kept for others if the whole answer was read, else closed.
    """

    def __init__(self, pool: Upstream, connection: Connection, method: str, message: bytes,
                 deadline: Deadline) -> None:
        self.deadline = deadline
        self._pool = pool
        self._connection = connection
        try:
            with _translated():
                self._send(message)
                self._await_answer()
                self.head = connection.read_head(self._limit)
                self._decoder = decoder_for(method, self.head)
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        if self.head.keeps_alive and self._decoder.done and not self._decoder.surplus:
            self._pool.keep(self._connection)
        else:
            self._connection.close()

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. Raises :class:`NoAnswer`."""
        with _translated():
            while not self._decoder.done:
                self._limit()
                if piece := self._decoder.feed(self._connection.take_read() or self._connection.sock.recv(_BLOCK)):
                    yield piece

    def _send(self, message: bytes) -> None:
        self._limit()
        with suppress(BrokenPipeError, ConnectionResetError):  # an answer that came before all was sent says why
            self._connection.send(message)

    def _await_answer(self) -> None:
        self._limit()
        try:
            if self._connection.sock.recv(1, socket.MSG_PEEK):
                return
        except ConnectionError as error:
            raise _Stale from error
        raise _Stale

    def _limit(self) -> None:
        self._connection.sock.settimeout(self.deadline.left())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer(_LATE, timed_out=True) from error
    except (OSError, ProtocolError) as error:
        raise NoAnswer(_words(error)) from error


def _until_broken(pieces: Iterator[bytes]) -> Iterator[bytes]:
    with suppress(NoAnswer):
        yield from pieces


def _connected(host: Host, deadline: Deadline) -> Connection:
    try:
        return Connection(_unix(host, deadline) if isinstance(host, Unix) else _tcp(host, deadline))
    except (TimeoutError, BlockingIOError):
        raise NoAnswer(_LATE) from None
    except OSError as error:
        raise NoAnswer(_words(error)) from error


def _unix(host: Unix, deadline: Deadline) -> socket.socket:
    """Connect, waiting where the server has no room yet: without blocking, that would be an error (connect(2))."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(deadline.left() or 0))
        sock.connect(host.path)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp(host: Tcp, deadline: Deadline) -> socket.socket:
    sock = socket.create_connection((host.host, host.port), timeout=deadline.left())
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _timeval(seconds: float) -> bytes:
    """A ``struct timeval``; zero would be no limit."""
    return struct.pack("@ll", int(seconds), max(1, int(seconds % 1 * 1_000_000)))


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
