"""Connections to the Docker socket: opened, pooled, and what one request and its response do on them."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable

from weavemw.errors import DockerUnreachable
from weavemw.transport.http1 import BodyDecoder, HeadReader, ProtocolError, ResponseHead

__all__ = ["ClientGone", "Connection", "Upstream"]

_BLOCK = 65536
_IDLE_AT_MOST = 64
_NO_ANSWER = "it closed the connection without an answer"


class ClientGone(ConnectionResetError):
    """The client closed its connection while we waited for the daemon."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client closed its connection")


class Upstream:
    """The socket of one daemon, with a pool of idle connections.

    The pool belongs to the socket file that is there now: if the file is
    replaced (a daemon restarted), connections to the old one are dropped.
    Thread-safe; nothing is opened before the first request.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: list[Connection] = []
        self._file: tuple[int, int] = (0, 0)
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    def connect(self) -> Connection:
        """A new connection; raises :class:`~weavemw.errors.DockerUnreachable`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            raise DockerUnreachable(f"Cannot connect to the Docker daemon at unix://{self.path}: {error.strerror}. "
                                    "Is the docker daemon running?") from error
        return Connection(sock)

    def idle(self) -> Connection | None:
        """A pooled connection that looks alive, if there is one."""
        self._forget_replaced_socket()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_quiet:
                return connection
            connection.close()

    def keep(self, connection: Connection) -> None:
        """Put a connection back whose response has been read to its end; one that says more than that is closed."""
        with self._lock:
            if len(self._idle) < _IDLE_AT_MOST and connection.is_drained:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            _close_all(self._idle)

    def _forget_replaced_socket(self) -> None:
        try:
            found = os.stat(self.path)
            file = (found.st_ino, found.st_ctime_ns)
        except OSError:
            file = (0, 0)
        if file != self._file:
            self._file = file
            self.close()


def _close_all(connections: list[Connection]) -> None:
    while connections:
        connections.pop().close()


class Connection:
    """One connection to the daemon, in the hands of one thread."""

    __slots__ = ("_buffer", "_poll", "_reader", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""
        self._reader: HeadReader | None = None
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @property
    def is_quiet(self) -> bool:
        """Whether neither bytes nor an end wait to be read: then it can carry a request."""
        return not self._poll.poll(0)

    @property
    def is_drained(self) -> bool:
        """Whether all that was read has found its reader."""
        return not self._buffer

    @property
    def has_bytes(self) -> bool:
        """Whether the daemon has said something, or hung up."""
        return bool(self._buffer) or not self.is_quiet

    def send(self, data: bytes) -> None:
        """Send all of it, blocking."""
        self.sock.sendall(data)

    def send_some(self, data: bytes) -> int:
        """Send what can be sent at once; waits for room, but no longer than until the daemon says something."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLOUT)
        [(_, ready)] = poll.poll()
        return 0 if ready & select.POLLIN else self.sock.send(data, socket.MSG_DONTWAIT)

    def wait(self, client_fd: int | None = None) -> None:
        """Block until the daemon says something; raises :class:`ClientGone` if the client leaves first.

        There is no time limit, as a client of the daemon's own has none. A client
        that only half-closes is still there: it waits for its answer.
        """
        if self._buffer:
            return
        if client_fd is None:
            self._poll.poll()
            return
        self._poll.register(client_fd, 0)  # POLLHUP and POLLERR are always told
        try:
            ready = self._poll.poll()
        finally:
            self._poll.unregister(client_fd)
        if not any(fd != client_fd for fd, _ in ready):
            raise ClientGone

    def read_head(self, wait: Callable[[], None]) -> ResponseHead:
        """The next response head that is not an interim one; before each reading from the socket it calls ``wait``.

        Raises :class:`~weavemw.transport.http1.ProtocolError`.
        """
        while True:
            if not self._buffer:
                wait()
                self._buffer = self.sock.recv(_BLOCK)
            if not self._buffer:
                raise ProtocolError(_NO_ANSWER)
            if head := self._head_in(self.take_read()):
                return head

    def head_at_hand(self) -> ResponseHead | None:
        """The next response head that is not an interim one (RFC 9110 section 15.2; 101 is final), if it is there.

        Raises :class:`~weavemw.transport.http1.ProtocolError`.
        """
        data = self.receive()
        if data == b"":
            raise ProtocolError(_NO_ANSWER)
        return self._head_in(data) if data else None

    def read_body(self, decoder: BodyDecoder) -> tuple[bytes, bytes]:
        """What has come of a body: as it came, and what it says; nothing if it has to be waited for."""
        data = self.receive()
        if data is None:
            return b"", b""
        body = decoder.feed(data)
        if decoder.surplus:
            self._buffer = decoder.surplus
            data = data[: -len(self._buffer)]
        return data, body

    def receive(self) -> bytes | None:
        """What has come; ``None`` if that is nothing, empty at the end."""
        if self._buffer:
            return self.take_read()
        try:
            return self.sock.recv(_BLOCK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def take_read(self) -> bytes:
        """What was read of the connection and is nobody's yet."""
        data, self._buffer = self._buffer, b""
        return data

    def close(self) -> None:
        """Close it; closing twice is no error."""
        self.sock.close()

    def _head_in(self, data: bytes) -> ResponseHead | None:
        reader = self._reader or HeadReader()
        head = reader.feed(data)
        self._reader = None if head else reader
        if head:
            self._buffer = reader.rest
        return head
