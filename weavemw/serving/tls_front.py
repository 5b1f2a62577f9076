"""TLS for the TCP listeners, in front of the WSGI server: one event loop per process, no thread per connection.

A WSGI server's own TLS is the same for all its listeners, and a connection
that it decrypts can't be taken away from it. So it never sees TLS: a session
here is the client's connection, with TLS on it, and a plain socket pair whose
other end the server serves like any connection that it accepted.

Each direction ends on its own. The client's close_notify becomes an EOF for
the server, the server's EOF a close_notify for the client (RFC 8446 section 6.1);
what the other side still has to say gets through.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from weavemw.serving.tls_files import Contexts

__all__ = ["Front"]

log = logging.getLogger(__name__)

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_GONE = select.EPOLLHUP | select.EPOLLERR
#: What is read at once, and so the most that waits in a direction, in bytes.
_BLOCK = 65536
#: How often one session may move something before the others get their turn.
_TURN = 64
#: How long a handshake may take, in seconds.
_HANDSHAKE = 10.0
#: How long a client may take after it to send its first byte, in seconds.
_SILENCE = 75.0
#: How long a client may take to close after the server has, in seconds.
_LINGER = 2.0
#: How long sessions may take to end when the process exits, in seconds.
_GRACE = 2.0


class Session:
    """A client's connection and the plain one that it is for the server.

    ``connected`` is called with the server's end once the client has sent its first
    byte: until then a client costs the server nothing. ``lost`` is called instead if it never does.
    """

    def __init__(self, client: socket.socket, context: ssl.SSLContext,
                 connected: Callable[[socket.socket], None], lost: Callable[[], None]) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.client = client
        self.plain: socket.socket | None = None
        self.deadline: float | None = time.monotonic() + _HANDSHAKE
        self.broken = False
        self.plain_gone = False
        self._connected, self._lost = connected, lost
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._established = False
        self._up_done = False
        self._down_done = False
        self._for_server = b""
        self._for_client = memoryview(b"")

    def move(self) -> bool:
        """Move what can be moved now; True if there may be more at once, after others had their turn."""
        if self.broken:
            return False
        try:
            more_up = _repeated(self._up)
            return _repeated(lambda: self._down(may_end=not more_up)) or more_up
        except OSError as error:  # every SSLError too
            self._break(error)
            return False

    @property
    def over(self) -> bool:
        """Whether nothing more can come through."""
        return self.broken or (self._up_done and self._flushed and (self._down_done or self.plain is None))

    @property
    def wants_server(self) -> bool:
        """Whether there is a request, and no connection to the server yet."""
        return self.plain is None and bool(self._for_server) and not self.broken

    def connect(self) -> socket.socket:
        """Make the plain connection and give the server its end; returns ours."""
        self.plain, servers = socket.socketpair()
        self.plain.setblocking(False)
        self.deadline = None
        self._connected(servers)
        return self.plain

    def end(self, why: str = "") -> None:
        """Give up, whatever is under way."""
        if why:
            log.info("TLS: closed %s: %s", _peer(self.client), why)
        if self.plain is None:
            self._lost()
        for sock in (self.client, self.plain):
            if sock:
                sock.close()

    def _break(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self.client.send(self._outgoing.read())  # an alert that says why
        if not self._established:
            level = logging.DEBUG if isinstance(error, ssl.SSLEOFError) else logging.INFO
            log.log(level, "TLS: refused %s: %s", _peer(self.client), getattr(error, "reason", None) or error)
        self.broken = True

    @property
    def _flushed(self) -> bool:
        return not self._for_client and not self._outgoing.pending

    # -- from the client to the server

    def _up(self) -> bool:
        if self._for_server:
            return self.plain is not None and self._send_to_server()
        if self._up_done:
            return False
        try:
            return self._decrypt()
        except ssl.SSLWantReadError:
            return self._receive()

    def _decrypt(self) -> bool:
        if not self._established:
            self._tls.do_handshake()
            # Nothing is sent in return: a client with Nagle's algorithm waits for the acknowledgement.
            self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._established, self.deadline = True, time.monotonic() + _SILENCE
            return True
        self._for_server = self._read_records()
        if not self._for_server:
            self._end_up()
        return True

    def _read_records(self) -> bytes:
        """What has come, empty at its end; one record is read at a time, and many make a block."""
        records: list[bytes] = []
        try:
            while sum(map(len, records)) < _BLOCK and (record := self._tls.read(_BLOCK)):
                records.append(record)
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLWantReadError:
            if not records:
                raise
        return b"".join(records)

    def _receive(self) -> bool:
        try:
            data = self.client.recv(_BLOCK)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        elif self._established:
            # A client that ends TCP only has ended too: HTTP knows whether its message was whole. OpenSSL
            # isn't told: it would end the other direction as well.
            self._end_up()
        else:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "it left before the handshake's end")
        return True

    def _send_to_server(self) -> bool:
        assert self.plain is not None  # _up() looked
        try:
            sent = self.plain.send(self._for_server)
        except BlockingIOError:
            return False
        except BrokenPipeError:  # the server has heard enough; what it said must still get through
            sent = len(self._for_server)
        self._for_server = self._for_server[sent:]
        return True

    def _end_up(self) -> None:
        self._up_done = True
        if self.plain:
            with contextlib.suppress(OSError):  # the server has closed already
                self.plain.shutdown(socket.SHUT_WR)

    # -- from the server to the client

    def _down(self, *, may_end: bool) -> bool:
        if self._for_client:
            return self._send_to_client()
        if self._outgoing.pending:
            self._for_client = memoryview(self._outgoing.read())
            return True
        if self.plain is None or self._down_done:
            return False
        return self._encrypt(self.plain, may_end=may_end)

    def _send_to_client(self) -> bool:
        try:
            sent = self.client.send(self._for_client)
        except BlockingIOError:
            return False
        self._for_client = self._for_client[sent:]
        return True

    def _encrypt(self, plain: socket.socket, *, may_end: bool) -> bool:
        try:
            data = plain.recv(_BLOCK)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # it closed without reading all: its answer is complete
            data = b""
        if data:
            self._tls.write(data)
            return True
        return self._end_down() if may_end and not self._for_server else False

    def _end_down(self) -> bool:
        # OpenSSL looks for the client's close_notify too, and fails if it finds
        # anything else: so only when there is nothing left to find.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._down_done = True
        return True

    def linger(self) -> None:
        """The server is gone: the client gets the rest, and a little time to close."""
        self.plain_gone = True
        self.deadline = self.deadline or (time.monotonic() + _LINGER if self._down_done and self._flushed else None)


def _repeated(move: Callable[[], bool]) -> bool:
    """Move again and again; whether there may be more after as many times as one turn has."""
    return all(move() for _ in range(_TURN))


class Front:
    """The event loop; its thread starts with the first connection. Thread-safe."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._new: deque[Session] = deque()
        self._by_fd: dict[int, Session] = {}
        self._timed: set[Session] = set()
        self._busy: deque[Session] = deque()
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._stop_by: float | None = None

    def __len__(self) -> int:
        """The number of connections that are open."""
        return len(set(self._by_fd.values())) + len(self._new)

    def add(self, client: socket.socket, connected: Callable[[socket.socket], None],
            lost: Callable[[], None]) -> None:
        """Take over a connection that was accepted; see :class:`Session` for what is called."""
        self._new.append(Session(client, self._contexts.current(), connected, lost))
        self._start()
        os.eventfd_write(self._wake, 1)

    def stop(self, timeout: float) -> None:
        """End when all sessions have, but within ``timeout`` seconds."""
        self._stop_by = time.monotonic() + timeout
        if self._thread:
            os.eventfd_write(self._wake, 1)
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread:
                return
            self._epoll = select.epoll()
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(self._wake, select.EPOLLIN)
            self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
            self._thread.start()
            atexit.register(self.stop, _GRACE)

    def _run(self) -> None:
        assert self._epoll is not None  # made before this thread
        while not self._is_to_stop():
            for fd, event in self._epoll.poll(self._timeout()):
                self._on_event(fd, event)
            self._take_new()
            for _ in range(len(self._busy)):
                self._advance(self._busy.popleft())
            self._end_late()
        for session in set(self._by_fd.values()):
            self._end(session)

    def _is_to_stop(self) -> bool:
        if self._stop_by is None:
            return False
        working = any(session.plain and not session.plain_gone for session in self._by_fd.values())
        return not working or time.monotonic() > self._stop_by

    def _timeout(self) -> float | None:
        if self._busy:
            return 0
        return 0.25 if self._timed or self._stop_by is not None else None

    def _on_event(self, fd: int, event: int) -> None:
        if fd == self._wake:
            os.eventfd_read(self._wake)
        elif session := self._by_fd.get(fd):
            if event & _GONE and session.client.fileno() == fd:
                session.broken = True
            elif event & _GONE:
                session.plain_gone = True
            self._advance(session)

    def _take_new(self) -> None:
        while self._new:
            session = self._new.popleft()
            self._timed.add(session)
            self._register(session.client, session)
            self._advance(session)

    def _register(self, sock: socket.socket, session: Session) -> None:
        assert self._epoll is not None
        self._by_fd[sock.fileno()] = session
        self._epoll.register(sock, _EVENTS)

    def _advance(self, session: Session) -> None:
        if self._by_fd.get(session.client.fileno()) is not session:
            return  # it ended while it waited for its turn
        more = session.move()
        if session.wants_server:
            self._register(session.connect(), session)
            more = session.move()
        if more:
            self._busy.append(session)
        elif session.over:
            self._end(session)
        elif session.plain_gone:
            session.linger()
        self._keep_time(session)

    def _keep_time(self, session: Session) -> None:
        if session.deadline is None:
            self._timed.discard(session)
        elif self._by_fd.get(session.client.fileno()) is session:
            self._timed.add(session)

    def _end_late(self) -> None:
        now = time.monotonic()
        for session in [each for each in self._timed if each.deadline is not None and now > each.deadline]:
            self._end(session, "it took too long")

    def _end(self, session: Session, why: str = "") -> None:
        self._timed.discard(session)
        for sock in (session.client, session.plain):
            if sock:
                self._by_fd.pop(sock.fileno(), None)
        session.end(why)


def _peer(client: socket.socket) -> str:
    try:
        return str(client.getpeername()[0])
    except OSError:
        return "a client that is gone"
