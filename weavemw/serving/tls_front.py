"""TLS for the TCP listeners, in front of the WSGI server, on one event loop per process: no thread per connection.

A WSGI server's own TLS is the same for all its listeners, and a connection
that it decrypts can't be taken away from it. So it never sees TLS: a session
here is the client's connection, with TLS on it, and a plain socket pair whose
other end the server serves like any connection that it accepted.

Each direction ends on its own. The client's close_notify becomes an EOF for
the server, the server's EOF a close_notify for the client (RFC 8446 section 6.1);
what the other side still has to say gets through. The states of a session::

    handshake ──► silent ──► joined ──► one direction ended ──► both ended ──► over
        │ 10 s                                   │ the server is gone
        ▼                                        ▼
       over                                 lingering, 2 s ──► over

A session that is silent has no plain connection yet: a client that says nothing
costs the server nothing. It may be silent as long as it likes, as with dockerd.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable

from weavemw.ops import logs
from weavemw.ops.memory import Ended
from weavemw.serving.tls_files import Contexts
from weavemw.transport.loop import Loop, Watch

__all__ = ["Front"]

log = logs.summed(__name__)

#: What is read at once, and so the most that waits in a direction, in bytes.
_BLOCK = 65536
#: How often one session may move something before the others get their turn.
_TURN = 64
#: How long a handshake may take, in seconds.
_HANDSHAKE = 10.0
#: How many of them may be under way in a process.
_HANDSHAKES = 1024
#: How long a client may take to close after the server has, in seconds.
_LINGER = 2.0


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
        self._broken = False
        self._plain_gone = False
        self._connected, self._lost = connected, lost
        self.shaken: Callable[[Session], None] = lambda session: None
        self.ended: Callable[[Session], None] = lambda session: None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._established = False
        self._up_done = False
        self._down_done = False
        self._for_server = b""
        self._for_client = memoryview(b"")

    def begin(self, watch: Watch) -> None:
        """Have the client's connection watched, and the plain one once there is one."""
        self._watch = watch
        watch(self.client)

    def gone(self, fd: int) -> None:
        """The client is gone, or the server."""
        if fd == self.client.fileno():
            self._broken = True
        else:
            self._plain_gone = True

    def move(self) -> bool:
        """Move what can be moved now; True if there may be more at once, after others had their turn."""
        if self._broken:
            return False
        try:
            more = self._move()
            if self._wants_server:
                self._connect()
                more = self._move()
        except OSError as error:  # every SSLError too
            self._break(error)
            return False
        if self._plain_gone and not more:
            self._linger()
        return more

    def _move(self) -> bool:
        more_up = _repeated(self._up)
        return _repeated(lambda: self._down(may_end=not more_up)) or more_up

    @property
    def over(self) -> bool:
        """Whether nothing more can come through."""
        return self._broken or (self._up_done and self._flushed and (self._down_done or self.plain is None))

    def stop(self) -> None:
        """What has been asked is still answered; who asks nothing is not waited for."""
        if self.plain is None or self._plain_gone:
            self._broken = True

    @property
    def _wants_server(self) -> bool:
        """Whether there is a request, and no connection to the server yet."""
        return self.plain is None and bool(self._for_server) and not self._broken

    def _connect(self) -> None:
        """Make the plain connection, and give the server its end."""
        self.plain, servers = socket.socketpair()
        self.plain.setblocking(False)
        self.deadline = None
        self._watch(self.plain)
        self._connected(servers)

    def end(self, why: str = "") -> None:
        """Give up, whatever is under way."""
        if why:
            log.info("TLS: closed %s: %s", _peer(self.client), why)
        if self.plain is None:
            self._lost()
        for sock in (self.client, self.plain):
            if sock:
                sock.close()
        self._watch = _unwatched  # it knows us, and so would keep us until the garbage collector comes
        self.ended(self)

    def _break(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self.client.send(self._outgoing.read())  # an alert that says why
        if not self._established:
            level = logging.DEBUG if isinstance(error, ssl.SSLEOFError) else logging.INFO
            log.log(level, "TLS: refused %s: %s", _peer(self.client), getattr(error, "reason", None) or error)
        self._broken = True

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
            self._established, self.deadline = True, None
            self.shaken(self)
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

    def _linger(self) -> None:
        """The server is gone: the client gets the rest, and a little time to close."""
        self._plain_gone = True
        self.deadline = self.deadline or (time.monotonic() + _LINGER if self._down_done and self._flushed else None)


def _unwatched(sock: socket.socket) -> None:
    """Nothing is watched any more."""


def _repeated(move: Callable[[], bool]) -> bool:
    """Move again and again; whether there may be more after as many times as one turn has."""
    return all(move() for _ in range(_TURN))


class Front:
    """TLS sessions on an event loop; its thread starts with the first connection. Thread-safe.

    ``limit`` is how many handshakes may be under way, each of which costs some 50 KB: one more ends the oldest.
    """

    def __init__(self, contexts: Contexts, limit: int = _HANDSHAKES) -> None:
        self._contexts = contexts
        self._limit = limit
        self._loop = Loop("tls")
        self._handshakes: dict[Session, None] = {}
        self._lock = threading.Lock()
        self._ended = Ended()

    def __len__(self) -> int:
        """The number of connections that are open."""
        return len(self._loop)

    def add(self, client: socket.socket, connected: Callable[[socket.socket], None],
            lost: Callable[[], None]) -> None:
        """Take over a connection that was accepted; see :class:`Session` for what is called."""
        session = Session(client, self._contexts.current(), connected, lost)
        session.shaken, session.ended = self._shaken, self._count
        with self._lock:
            self._handshakes[session] = None
            if len(self._handshakes) > self._limit:
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]
                oldest.deadline = 0.0  # the loop ends it as one that took too long
        self._loop.add(session)

    def _shaken(self, session: Session) -> None:
        with self._lock:
            self._handshakes.pop(session, None)

    def _count(self, session: Session) -> None:
        self._shaken(session)
        self._ended.one(len(self))

    def stop(self, timeout: float) -> None:
        """End when all sessions have, but within ``timeout`` seconds."""
        self._loop.stop(timeout)


def _peer(client: socket.socket) -> str:
    try:
        return str(client.getpeername()[0])
    except OSError:
        return "a client that is gone"
