"""An HTTP/1.1 server for WSGI apps, in which a connection costs a thread only while a whole request is answered.

Some threads share one epoll, and as a rule one of them polls (:mod:`weavemw.serving.lead`). It takes
an event, does what can be done without waiting, and gives the connection back::

                         no byte is waited for by a thread
    accept ──► idle ──► head ──► body ─────┐
                ▲  a byte     whole, or to be streamed
                │                          ▼
                │    all sent, kept     answering ── taken ──► the relay's
                └────────────────────── a thread
                                           │ ▲
                    the client does not    ▼ │ it reads again, or
                    read its answer       parked, or    the other has answered
                    there is none yet     asking
                                           │
    refused, or not to be kept: lingering ◄┘──► closed

* *idle*: as long as the client likes, as dockerd has it; only when there are too
  many connections, the one that has been idle longest is closed.
* *head*, *body*: at most :data:`PATIENCE` seconds without a byte, then 408.
* A body is waited for where it is small or its reader takes it whole
  (:attr:`~weavemw.dockerapi.routes.Call.has_small_body`); others are read by the app, as they come.
* *asking*: the answer waits for another's, the daemon's; both sockets are watched. If the client leaves, the app's
  response is closed.
* *parked*: one piece of the answer waits for room; the app's iterator goes on
  when there is some, in whichever thread. Nothing limits how long that takes, nor how long an answer is asked for.
* *lingering*: closing a socket that holds unread bytes resets it, and the
  answer would be lost (RFC 9112 section 9.6).

Nothing here knows Docker but for that, nor any other server. What is read of a
request is never logged: where a body's length was wrong, it may stand where a head should.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import re
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from weavemw import context
from weavemw.dockerapi import routes
from weavemw.errors import BadRequest, RequestTimeout
from weavemw.ops import logs
from weavemw.ops.tally import REQUESTS, Tally
from weavemw.serving.lead import Lead
from weavemw.transport.request import LONGEST_HEAD, BodyScanner, RefusedError, RequestHead, end_of_head

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from weavemw.transport.http1 import Headers

__all__ = ["PATIENCE", "Connection", "HttpServer"]

_log = logs.summed(__name__)

#: How long a request may make no progress, in seconds.
PATIENCE = 60.0
#: How long a client may take to read the end of what it is answered before its connection is closed, in seconds.
_LINGER = 2.0
_BLOCK = 65536
_PIECE = 16384  # of what a client sends: as a rule a head, and room for more takes its time to be had
#: The longest body that is waited for without a thread, in bytes.
_LONGEST_HELD = 4 << 20
_IN, _OUT = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLOUT | select.EPOLLONESHOT
_NONE = select.EPOLLONESHOT  # but EPOLLHUP and EPOLLERR, which are always told
#: How many events are taken at once, and how many answers are waited for without a thread.
_AT_ONCE, _ASKED_AT_MOST = 64, 1000
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: How many idle connections are given up when there are too many.
_GIVEN_UP = 16
_LONGEST_REMEMBERED, _REMEMBERED_AT_MOST = 512, 512
_CREDENTIALS = re.compile(rb"(?i)\n(?:x-registry|authorization|cookie)")
_EMPTY = io.BytesIO()
_BODILESS = ("1", "204", "304")


class Request:
    """A request's head, and what of ``environ`` follows from it alone."""

    __slots__ = ("call", "environ", "head", "waits_for_body")

    def __init__(self, data: bytes) -> None:
        self.head = head = RequestHead.parse(data)
        self.call = routes.find(head.method, routes.origin_form(head.target))
        self.waits_for_body = self.call is not None and self.call.has_small_body
        path, _, query = head.target.partition("?")
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
            "QUERY_STRING": query,
            "RAW_URI": head.target,
            "REQUEST_URI": head.target,
            "SERVER_PROTOCOL": head.version,
            context.CALL: self.call,
            **_cgi(head.headers),
        }


class Connection:
    """A client's connection, and the request under way on it. In the hands of one thread at a time."""

    __slots__ = ("asked", "body", "buffer", "environ", "expired", "fd", "keeps", "lingers", "peer", "reply", "request",
                 "scanner", "searched", "server", "sock", "taken", "timed")

    def __init__(self, server: HttpServer, sock: socket.socket, peer: str, environ: dict[str, Any]) -> None:
        self.server = server
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.environ = environ
        self.buffer = bytearray()
        self.searched = 0
        self.request: Request | None = None
        self.scanner: BodyScanner | None = None
        self.body = bytearray()
        self.reply: Reply | None = None
        self.asked: socket.socket | None = None
        self.timed = False
        self.expired = False
        self.lingers = False
        self.taken = False
        self.keeps = True

    # -- for the app: see weavemw.transport.hijack.ClientConnection

    def fileno(self) -> int:
        """The descriptor."""
        return self.fd

    @property
    def can_send(self) -> bool:
        """Whether an answer may be sent as it came: the connection is kept, and there is nothing to say of it."""
        return self.keeps and self.request is not None and self.request.head.version == "HTTP/1.1"

    @property
    def can_wait(self) -> bool:
        """Whether :meth:`answer` can be used: all of the request is here, and not too many wait already."""
        return self.is_read() and self.server.can_wait

    def answer(self, pieces: Iterator[bytes]) -> None:
        """Answer with these pieces as they are, the head among them; nothing else is then sent for this request.

        An empty one says that there is nothing yet: the next is asked for once what :meth:`ask` was given can be read.
        """
        assert self.reply is not None  # a request is being answered
        self.reply.raw(pieces)

    def ask(self, sock: socket.socket | None) -> None:
        """Whose answer this one waits for; ``None``: for nobody's any more."""
        self.asked = sock

    def framed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """A response that was started by ``start_response``, as :meth:`answer` may be given it."""
        assert self.reply is not None  # as above
        return self.reply.framed(pieces)

    def about_to_wait(self) -> None:
        """This thread is going to wait: others are to serve the other connections at once, and not a moment later."""
        self.server.lead.leave()

    def take(self) -> tuple[socket.socket, bytes]:
        """The connection, no longer the server's, and what was read of it beyond the request's head."""
        self.taken = True
        self.server.forget(self)
        return self.sock, self._unread()

    def _unread(self) -> bytes:
        """What of the body no one has read yet, framed as it was sent, and what follows it."""
        assert self.request
        assert self.scanner
        if self.request.head.length is not None or not self.scanner.begun:
            return bytes(self.body + self.buffer)
        if not self.scanner.done:
            raise RuntimeError("a chunked body was read in part, and can't be handed over")
        return _chunk(bytes(self.body)) + b"0\r\n\r\n" + self.buffer

    # -- reading

    def receive(self) -> bool:
        """Read what has come; False at the end."""
        try:
            data = self.sock.recv(_PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.buffer += data
        return bool(data)

    def next_request(self) -> Request | None:
        """The next request, if all of it is there that must be; raises :class:`RefusedError`."""
        if self.request is None and not self._read_head():
            return None
        assert self.request
        assert self.scanner
        if self._is_held():
            self._take_body()
            return self.request if self.scanner.done or not self._is_held() else None
        return self.request

    def _read_head(self) -> bool:
        if not self.buffer:
            return False
        end = end_of_head(self.buffer, max(0, self.searched - 3))
        self.searched = len(self.buffer)
        if (end or self.searched) > LONGEST_HEAD:
            raise RefusedError("Request Header Fields Too Large", 431, "Request Header Fields Too Large")
        if not end:
            return False
        head = bytes(self.buffer[:end])
        del self.buffer[:end]
        self.searched = 0
        self.request = request = _known.get(head) or _read(head)
        self.scanner = BodyScanner(request.head.length)
        self.keeps = request.head.keeps_alive
        if request.head.expects_continue and not self.buffer and not self.scanner.done:
            self.sock.send(_CONTINUE)
        return True

    def _is_held(self) -> bool:
        """Whether the rest of the body is waited for before anybody is asked."""
        assert self.request
        length = self.request.head.length
        waits = self.request.waits_for_body or (length is not None and length <= _BLOCK)
        return waits and len(self.body) < _LONGEST_HELD and (length or 0) <= _LONGEST_HELD

    def _take_body(self) -> None:
        assert self.scanner
        if self.buffer and not self.scanner.done:
            data, used = self.scanner.take(self.buffer)
            self.body += data
            del self.buffer[:used]

    def read_body(self, count: int) -> bytes:
        """At most so many bytes of the body, at least one until its end, waiting for the client if need be."""
        assert self.scanner
        while not self.body and not self.scanner.done:
            if not self.buffer or not self._takes_some():
                self._wait_for_more()
        data = bytes(self.body[:count])
        del self.body[:count]
        return data

    def _takes_some(self) -> bool:
        try:
            self._take_body()
        except RefusedError as error:
            self.keeps = False
            raise BadRequest(str(error)) from error
        return bool(self.body) or self.is_read()

    def _wait_for_more(self) -> None:
        self.about_to_wait()
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(PATIENCE * 1000):
            self.keeps = False
            raise RequestTimeout("the request's body makes no progress")
        if not self.receive():
            self.keeps = False
            raise ConnectionResetError(errno.ECONNRESET, "the client closed its connection within its request")

    # -- after an answer

    def is_read(self) -> bool:
        """Whether nothing is left of the request's body."""
        return self.scanner is None or self.scanner.done

    def reset(self) -> None:
        """Be ready for the next request."""
        self.request = self.scanner = self.reply = self.asked = None
        self.body.clear()


class Body(io.RawIOBase):
    """``wsgi.input``: a request's body, of which more may have to be waited for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some."""
        data = self._connection.read_body(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Reply:
    """What the app answers, on its way to the client."""

    __slots__ = ("_connection", "_frames", "_is_raw", "_response", "_unsent", "headers", "started", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = ""
        self.headers: Headers = []
        self.started = False
        self._is_raw = False
        self._response: Iterable[bytes] = ()
        self._frames: Iterator[bytes] = iter(())
        self._unsent: memoryview | bytes = b""

    def start_response(self, status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        """As PEP 3333 has it."""
        if exc_info and self.started:
            raise exc_info[1].with_traceback(exc_info[2])
        if self.status and not exc_info:
            raise RuntimeError("start_response is called again, without exc_info")
        self.status, self.headers = status, list(headers)
        return self._write

    def raw(self, pieces: Iterator[bytes]) -> None:
        """Answer with these bytes alone."""
        self._is_raw = True
        self._frames = pieces

    def take(self, response: Iterable[bytes]) -> None:
        """Answer with what the app returned."""
        self._response = response
        if not self._is_raw:
            self._frames = self.framed(response)

    def fail(self, status: int, reason: str, message: str) -> bool:
        """Answer an error instead, if nothing has been sent yet; the connection ends then."""
        self._connection.keeps = False
        if self.started:
            return False
        self.raw(iter((error_response(status, reason, message),)))
        return True

    def push(self) -> bool:
        """Send what can be sent; True when all is. Raises OSError, and what the app's iterator raises.

        If it is not all sent, either the client does not read, or :attr:`Connection.asked` has not answered yet.
        """
        send = self._connection.sock.send
        while True:
            while self._unsent:
                self.started = True
                try:
                    sent = send(self._unsent)
                except BlockingIOError:
                    return False
                self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""
            piece = next(self._frames, None)
            if piece is None or self._connection.taken:
                return True
            if not piece and self._connection.asked:
                return False
            self._unsent = piece

    @property
    def is_blocked(self) -> bool:
        """Whether the client has to read before more can be sent."""
        return bool(self._unsent)

    def close(self) -> None:
        """Tell the app that it is over."""
        close = getattr(self._response, "close", None)
        self._response = ()
        if close:
            try:
                close()
            except Exception:  # noqa: BLE001  # an app's close must not end the thread
                _log.exception("closing a response failed")

    def _write(self, data: bytes) -> None:
        """PEP 3333's imperative way: waits for the client."""
        self._frames = self.framed([data], more=True)
        self._connection.about_to_wait()
        poll = select.poll()
        poll.register(self._connection.fd, select.POLLOUT)
        while not self.push():
            poll.poll()

    def framed(self, response: Iterable[bytes], *, more: bool = False) -> Iterator[bytes]:
        """The response as it goes out; ``more`` is to come after it."""
        chunked, bodiless = False, self._is_bodiless()
        pieces = iter(response)
        if not self.started:
            piece = next(pieces, b"")
            length = len(piece) if isinstance(response, list | tuple) and len(response) < 2 and not more else None
            head, chunked = self._head(length, bodiless=bodiless)
            self.started = True
            yield head + (b"" if bodiless else _chunk(piece) if chunked else piece)
        else:
            chunked = not bodiless and _value(self.headers, "transfer-encoding") == "chunked"
        for piece in pieces:
            if not piece:
                yield piece
            elif not bodiless:
                yield _chunk(piece) if chunked else piece
        if chunked and not more:
            yield b"0\r\n\r\n"

    def _is_bodiless(self) -> bool:
        request = self._connection.request
        return self.status.startswith(_BODILESS) or bool(request and request.head.method == "HEAD")

    def _head(self, length: int | None, *, bodiless: bool) -> tuple[bytes, bool]:
        """The head's bytes, and whether what follows is chunked."""
        if not self.status:
            raise RuntimeError("the app answers without start_response")
        connection, request = self._connection, self._connection.request
        assert request is not None
        names = {name.lower() for name, _ in self.headers}
        chunked = False
        if "content-length" not in names and not bodiless:
            if length is not None:
                self.headers.append(("Content-Length", str(length)))
            elif request.head.version == "HTTP/1.1":
                chunked = True
                self.headers.append(("Transfer-Encoding", "chunked"))
            else:
                connection.keeps = False
        if "close" in _value(self.headers, "connection").lower() or not connection.is_read():
            connection.keeps = False
        if "connection" not in names and (kept := _kept(connection.keeps, request.head.version)):
            self.headers.append(("Connection", kept))
        if "date" not in names:
            self.headers.append(("Date", _date(int(time.time()))))
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in self.headers), "", ""]
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
            raise ValueError("a line end within a response's header")
        return text.encode("latin-1"), chunked


class HttpServer:
    """Serves ``app`` with so many ``threads``, until :meth:`stop`.

    At most ``most`` connections are open. ``tally`` counts what is refused. A thread that dies of an exception
    leaves it to :data:`threading.excepthook`: what serves a connection never lets one out.
    """

    def __init__(self, app: WSGIApplication, *, threads: int, most: int = 10_000, multiprocess: bool = False,
                 tally: Tally | None = None) -> None:
        self.app = app
        self.threads = threads
        self.most = most
        self.tally = tally or Tally()
        self._environ: dict[str, Any] = {
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "wsgi.multithread": True,
            "wsgi.multiprocess": multiprocess, "wsgi.run_once": False, "wsgi.input_terminated": True}
        self.lead = Lead()
        self._epoll = select.epoll()
        self._events: deque[tuple[int, int]] = deque()
        self._listeners: dict[int, tuple[socket.socket, Callable[[socket.socket, Any], None]]] = {}
        self._connections: dict[int, Connection] = {}
        # Whoever takes a connection out of it has the right to act; what else may be heard of it is of no account.
        self._armed: dict[int, Connection] = {}
        self._asked: dict[int, Connection] = {}
        self._idle: dict[int, Connection] = {}
        self._timed: dict[Connection, float] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)

    def listen(self, listener: socket.socket, admit: Callable[[socket.socket, Any], None] | None = None) -> None:
        """Accept connections of a listening socket; ``admit`` gets each with its address, by default :meth:`adopt`."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, admit or self.adopt)
        self._epoll.register(listener.fileno(), _IN)

    def start(self) -> None:
        """Begin to serve."""
        for number in range(self.threads):
            thread = threading.Thread(target=self._work, name=f"http-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        threading.Thread(target=self.lead.watch, name="http-deputy", daemon=True).start()

    def adopt(self, client: socket.socket, address: Any) -> None:
        """Serve a connection that was accepted."""
        client.setblocking(False)
        peer = str(address[0]) if isinstance(address, tuple) else ""
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        environ = {**self._environ, "REMOTE_ADDR": peer, **_server_name(client)}
        connection = Connection(self, client, peer, environ)
        self._connections[connection.fd] = self._idle[connection.fd] = self._armed[connection.fd] = connection
        try:
            self._epoll.register(connection.fd, _IN)
        except OSError as error:
            _log.warning("a connection is closed at once: %s", error.strerror)
            self._close(connection)
        if len(self._connections) > self.most:
            self._give_up_idle()

    def tick(self) -> None:
        """To be called about once a second: ends what makes no progress."""
        now = time.monotonic()
        for connection, deadline in list(self._timed.items()):
            # Whoever takes it out has the right to act: a thread that goes on with it, or this one.
            if now > deadline and self._timed.pop(connection, 0.0):
                _interrupt(connection)

    def stop(self, timeout: float) -> None:
        """Accept nothing more, and give what is being answered ``timeout`` seconds to end."""
        for fd in self._listeners:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
        deadline = time.monotonic() + timeout
        for connection in list(self._idle.values()):
            if not connection.buffer and connection.request is None:
                _shut(connection.sock)
        while len(self._connections) > len(self._idle) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self.lead.end()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()) + 0.1 / self.threads)
        for connection in list(self._connections.values()):
            if not self._armed.pop(connection.fd, None):
                connection.reply = None  # a thread is at it still
            self._close(connection)

    def forget(self, connection: Connection) -> None:
        """It is not the server's any more, and neither is what it waited for."""
        self._epoll.unregister(connection.fd)
        if connection.asked:
            self._epoll.unregister(connection.asked.fileno())
        self._leave(connection)

    def __len__(self) -> int:
        """The number of connections."""
        return len(self._connections)

    @property
    def can_wait(self) -> bool:
        """Whether one more may wait for an answer without a thread: else the daemon's connections are without limit."""
        return len(self._asked) < _ASKED_AT_MOST

    # -- threads

    def _work(self) -> None:
        lead, me = self.lead, threading.get_ident()
        while not self._stopping:
            lead.take()
            while lead.has(me) and not self._stopping:
                if not self._events:
                    lead.polls()
                    self._poll()
                lead.begins()
                self._next()
        lead.leave()

    def _poll(self) -> None:
        with contextlib.suppress(InterruptedError):
            self._events.extend(self._epoll.poll(-1, _AT_ONCE))

    def _next(self) -> None:
        try:
            fd, _ = self._events.popleft()
        except IndexError:  # whoever led before has taken it
            return
        if connection := self._armed.pop(fd, None):
            self._idle.pop(fd, None)
            self._guarded(self._serve, connection)
        elif (connection := self._asked.get(fd)) and self._armed.pop(connection.fd, None):
            self._guarded(self._answered, connection)
        elif fd in self._listeners:
            self._accept(fd)

    def _guarded(self, step: Callable[[Connection], None], connection: Connection) -> None:
        try:
            step(connection)
        except Exception:  # noqa: BLE001  # of whatever one fails: the others need this thread
            _log.exception("serving a connection failed")
            self._close(connection)

    def _accept(self, fd: int) -> None:
        listener, admit = self._listeners[fd]
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another process was quicker, or the client left
            pass
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                _log.warning("can't accept a connection: %s; the longest idle ones are closed", error.strerror)
                self._give_up_idle()
                time.sleep(0.05)
            else:
                _log.warning("can't accept a connection: %s", error.strerror)
        else:
            try:
                admit(client, address)
            except Exception:  # noqa: BLE001  # as above
                _log.exception("admitting a connection failed")
                client.close()
        with contextlib.suppress(OSError):  # it is closed: the server stops
            self._epoll.modify(fd, _IN)

    def _serve(self, connection: Connection) -> None:
        """Go on with a connection, whose socket has something to read, or room, or is gone."""
        if connection.lingers:
            self._drain(connection)
        elif connection.reply and connection.asked and not connection.reply.is_blocked:
            self._look_for_client(connection, connection.asked)
        elif connection.reply:
            self._go_on(connection, connection.reply)
        elif connection.receive():
            self._advance(connection)
        else:
            self._ended(connection)

    def _advance(self, connection: Connection) -> None:
        """Answer the requests that are there."""
        if not self._untime(connection):
            self._ended(connection)
            return
        while True:
            try:
                request = connection.next_request()
            except RefusedError as error:
                self._refuse(connection, error)
                return
            if request is None:
                self._wait(connection)
                return
            if not self._answer(connection, request):
                return

    def _wait(self, connection: Connection) -> None:
        if connection.buffer or connection.request:
            self._time(connection, PATIENCE)
        self._idle[connection.fd] = connection
        self._arm(connection, _IN)

    def _arm(self, connection: Connection, events: int) -> None:
        """Let the poller see to a connection: from here on it is not in our hands."""
        self._armed[connection.fd] = connection
        self._epoll.modify(connection.fd, events)

    def _answer(self, connection: Connection, request: Request) -> bool:
        """Answer a request; True if the connection is in our hands still, and can carry the next one."""
        reply = connection.reply = Reply(connection)
        environ: WSGIEnvironment = {**connection.environ, **request.environ}
        environ["wsgi.input"] = _EMPTY if request.head.length == 0 else Body(connection)
        environ[context.HEADERS] = list(request.head.headers)
        environ[context.CONNECTION] = connection
        try:
            reply.take(self.app(environ, reply.start_response))
        except Exception as error:  # noqa: BLE001  # of whatever it fails: the client is to get an answer
            if not connection.taken:
                self._app_failed(connection, reply, request, error)
        if connection.taken:
            reply.close()
            connection.reset()
            return False
        return connection.fd >= 0 and self._push(connection, reply)

    def _answered(self, connection: Connection) -> None:
        """Go on with an answer that had to wait for another."""
        assert connection.asked  # it was found by that
        assert connection.reply  # it is being answered
        del self._asked[connection.asked.fileno()]
        self._go_on(connection, connection.reply)

    def _go_on(self, connection: Connection, reply: Reply) -> None:
        if self._push(connection, reply):
            self._advance(connection)

    def _ask(self, connection: Connection, asked: socket.socket) -> None:
        """Go on once there is an answer, or the client is gone."""
        fd = asked.fileno()
        self._asked[fd] = connection
        self._arm(connection, _NONE)
        try:
            self._watch(fd)
        except OSError as error:
            if error.errno != errno.EBADF:  # else the client was gone, and another thread has closed the socket
                raise

    def _watch(self, fd: int) -> None:
        try:
            self._epoll.modify(fd, _IN)
        except FileNotFoundError:
            self._epoll.register(fd, _IN)

    def _look_for_client(self, connection: Connection, asked: socket.socket) -> None:
        """The client is said to be gone while we wait for its answer."""
        poll = select.poll()
        poll.register(connection.fd, 0)  # POLLHUP and POLLERR are always told
        if poll.poll(0):
            self._close(connection)
        else:
            self._ask(connection, asked)

    def _app_failed(self, connection: Connection, reply: Reply, request: Request, error: Exception) -> None:
        if not isinstance(error, ConnectionError):
            _log.error("Error handling request %s", request.head.method, exc_info=error)
            self.tally.add(REQUESTS, ("other", "500"))
        if isinstance(error, ConnectionError) or not reply.fail(
                500, "Internal Server Error", "the weave proxy failed; its log says why"):
            self._close(connection)

    def _push(self, connection: Connection, reply: Reply) -> bool:
        """Send what can be sent of the answer; True if that is all, and the connection can carry the next request."""
        try:
            done = reply.push()
        except Exception as error:  # noqa: BLE001  # the client is gone, or the app failed within its answer
            assert connection.request
            self._app_failed(connection, reply, connection.request, error)
            if connection.fd < 0:
                return False
            done = self._pushed_error(connection, reply)
        if not done:
            self._park(connection, reply)
            return False
        reply.close()
        if connection.taken:
            connection.reset()
            return False
        kept = connection.keeps and connection.is_read()
        connection.reset()
        if not kept:
            self._linger(connection)
        return kept

    def _park(self, connection: Connection, reply: Reply) -> None:
        if connection.asked and not reply.is_blocked:
            self._ask(connection, connection.asked)
        else:
            self._arm(connection, _OUT)

    def _pushed_error(self, connection: Connection, reply: Reply) -> bool:
        try:
            return reply.push()
        except OSError:
            return True

    # -- ends

    def _ended(self, connection: Connection) -> None:
        """The client sends no more; if it took too long within a request, it is told so."""
        if connection.expired and (connection.buffer or connection.request):
            self._refuse(connection, RefusedError("the request makes no progress", 408, "Request Timeout"))
        else:
            self._close(connection)

    def _refuse(self, connection: Connection, error: RefusedError) -> None:
        self.tally.add(REQUESTS, ("other", str(error.status)))
        _log.info("Refused a request from %s: %s", connection.peer or "the unix socket", error.status)
        with contextlib.suppress(OSError):  # it went away before it got its answer
            connection.sock.send(error_response(error.status, error.reason, str(error)))
        connection.reset()
        self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        """Close, but not before the client has read what it was sent."""
        connection.lingers = True
        connection.buffer.clear()
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._time(connection, _LINGER)
        self._drain(connection)

    def _drain(self, connection: Connection) -> None:
        for _ in range(16):
            try:
                if not connection.sock.recv(_BLOCK):
                    break
            except BlockingIOError:
                self._arm(connection, _IN)
                return
            except OSError:
                break
        else:
            self._arm(connection, _IN)
            return
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection.fd >= 0:
            self._leave(connection)
            connection.fd = -1
            connection.sock.close()
            if connection.reply:
                connection.reply.close()

    def _leave(self, connection: Connection) -> None:
        self._untime(connection)
        self._armed.pop(connection.fd, None)
        if connection.asked and self._asked.get(fd := connection.asked.fileno()) is connection:
            del self._asked[fd]
        self._idle.pop(connection.fd, None)
        self._connections.pop(connection.fd, None)

    def _time(self, connection: Connection, seconds: float) -> None:
        connection.timed = True
        self._timed[connection] = time.monotonic() + seconds

    def _untime(self, connection: Connection) -> bool:
        """Give it time again; False if it is too late for that."""
        if not connection.timed:
            return True
        connection.timed = False
        return self._timed.pop(connection, None) is not None

    def _give_up_idle(self) -> None:
        for _ in range(_GIVEN_UP):
            with contextlib.suppress(StopIteration, RuntimeError, KeyError):
                _shut(self._idle.pop(next(iter(self._idle))).sock)


def error_response(status: int, reason: str, message: str) -> bytes:
    """A whole response in Docker's form of an error, after which the connection ends."""
    body = json.dumps({"message": message}).encode() + b"\n"
    head = (f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nDate: {_date(int(time.time()))}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    return head.encode() + body


#: Clients send the same heads over and over; what is remembered is never changed.
_known: dict[bytes, Request] = {}


def _read(head: bytes) -> Request:
    """The request; remembered if its head is short, and holds no secret."""
    request = Request(head)
    if len(head) <= _LONGEST_REMEMBERED and not _CREDENTIALS.search(head):
        if len(_known) >= _REMEMBERED_AT_MOST:
            _known.clear()
        _known[head] = request
    return request


def _cgi(headers: Headers) -> dict[str, str]:
    """Headers as CGI variables (RFC 3875 section 4.1.18); those with ``_`` would pass for others, and are dropped."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if "_" not in name:
            values.setdefault(_variable(name), []).append(value)
    joined = {key: ",".join(several) for key, several in values.items()}
    if "HTTP_CONTENT_LENGTH" in joined:
        joined["CONTENT_LENGTH"] = joined.pop("HTTP_CONTENT_LENGTH").partition(",")[0].strip()
    if "HTTP_CONTENT_TYPE" in joined:
        joined["CONTENT_TYPE"] = joined.pop("HTTP_CONTENT_TYPE")
    return joined


@functools.lru_cache(1024)
def _variable(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _server_name(client: socket.socket) -> dict[str, str]:
    name = client.getsockname()
    if isinstance(name, tuple):
        return {"SERVER_NAME": str(name[0]), "SERVER_PORT": str(name[1])}
    return {"SERVER_NAME": "docker", "SERVER_PORT": "80"}


def _interrupt(connection: Connection) -> None:
    """Let the thread that takes its next event see that it is late."""
    connection.expired = True
    with contextlib.suppress(OSError):
        connection.sock.shutdown(socket.SHUT_RDWR if connection.lingers else socket.SHUT_RD)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _kept(keeps: bool, version: str) -> str:
    if not keeps:
        return "close"
    return "keep-alive" if version == "HTTP/1.0" else ""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _value(headers: Headers, wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")


@functools.lru_cache(2)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)
