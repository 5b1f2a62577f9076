"""Taking a client's connection away from the WSGI server: the only file that knows a server's sockets.

WSGI can't express a connection that stops being HTTP (``docker attach``), nor one
that should cost no thread while it is quiet (``docker logs -f``). So there is a
contract, in the manner of ``wsgi.file_wrapper``:

* :class:`Handover`, the outermost layer, leaves an :class:`Offer` in ``environ``.
* The innermost app may return an :class:`Untouched` response, an ordinary WSGI
  iterable that answers when it is iterated.
* If a stream comes back to :class:`Handover` as that very object, its
  connections go to the relay, which joins them in the kernel. If a middleware
  wrapped it, the server iterates it: as correct, merely slower.
* A short answer that comes back as the very object that was made is sent as
  the daemon sent it, at once and in one piece.
* A middleware that replaces ``start_response`` wants to see the response: then
  nothing is handed over, except upgrades, which no server could carry.

Servers whose ``environ`` holds the client's socket can hand over: gunicorn
(``gunicorn.socket``) and Werkzeug's (``werkzeug.socket``). Under any other
server everything but upgrades works.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

from weavemw import context
from weavemw.ops.tally import REQUESTS, Tally

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.transport.http1 import ResponseHead
    from weavemw.transport.relay import Relay, Stream

__all__ = ["Handover", "Offer", "Untouched"]

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class Untouched(Protocol):
    """A response that need not go through the server: known by the offer that it holds."""

    offer: Offer | None

    def __iter__(self) -> Iterator[bytes]: ...

    def hand_over(self) -> Iterable[bytes]:
        """Answer by the offer; returns what the server is to be given instead."""


class Offer:
    """The client's connection, as the server holds it, for whoever can use it better."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, relay: Relay,
                 server: Any) -> None:
        self.start_response = start_response
        self.relay = relay
        self.input = environ["wsgi.input"]
        self.content_length = environ.get("CONTENT_LENGTH")
        self.client_fd: int = _server_socket(environ).fileno()
        self.may_block = bool(environ["wsgi.multithread"])
        self.taken = False
        self._server = server
        self._environ = environ

    def is_untouched_by(self, start_response: StartResponse) -> bool:
        """Whether no middleware wants to see the response."""
        return start_response is self.start_response

    def has_body_of(self, environ: WSGIEnvironment) -> bool:
        """Whether the request's body still is what the client sends, unread and not replaced."""
        return environ["wsgi.input"] is self.input and environ.get("CONTENT_LENGTH") == self.content_length

    def client_gone(self) -> bool:
        """Whether the client has closed its connection in both directions; with half of it, it can still be answered.

        By TCP both look the same until something is sent.
        """
        poll = select.poll()
        poll.register(self.client_fd, 0)  # POLLHUP and POLLERR are always told
        return bool(poll.poll(0))

    def take(self) -> tuple[socket.socket, bytes]:
        """The client's connection, and the bytes that the server has read of it beyond the request's head.

        In its place the server is left a connection whose peer is gone: it
        closes that one, in its own time, and writes nothing to the real one.
        """
        self.taken = True
        read_ahead = _read_ahead(self._server, self._environ)
        connection = socket.socket(fileno=os.dup(self.client_fd))
        ours, peer = socket.socketpair()
        with ours, peer:
            os.dup2(ours.fileno(), self.client_fd, inheritable=False)
        return connection, read_ahead

    def hand_over(self, stream: Stream) -> None:
        """Give the relay a stream that was made of what :meth:`take` returned."""
        self.relay.add(stream)

    @property
    def may_answer(self) -> bool:
        """Whether :meth:`answer` can be used: the server will keep the connection, and has nothing to say of it."""
        server = self._server
        return _is_gunicorn(server) and server.req.version == (1, 1) and not (
            server.must_close or server.req.should_close())

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response as it came; the server is told, for its books, but for what it would send."""
        length = head.get("content-length")
        self.start_response(head.status_line, [("Content-Length", length)] if length else [])
        self._server.headers_sent = True
        self._server.sock.sendall(b"%b\r\n\r\n%b" % (head.raw, body))


class Handover:
    """The outermost layer: offers the connection, and hands over the response that comes back untouched.

    It also gives a server's ``Server`` and ``Date`` headers back to the daemon:
    gunicorn would put its own in their place. ``tally`` counts requests by call and status.
    """

    def __init__(self, app: WSGIApplication, *, relay: Relay, tally: Tally | None = None) -> None:
        self.app = app
        self.relay = relay
        self.tally = tally or Tally()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _server_socket(environ) is None:
            return self.app(environ, start_response)
        server: Any = getattr(start_response, "__self__", None)
        respond = self._counting(environ, _keeping_server_and_date(server, start_response))
        offer = Offer(environ, respond, self.relay, server)
        environ[context.HANDOVER] = offer
        environ[context.CLIENT_GONE] = offer.client_gone
        environ[context.HEADERS] = list(server.req.headers) if _is_gunicorn(server) else []
        response = self.app(environ, respond)
        return cast(Untouched, response).hand_over() if getattr(response, "offer", None) is offer else response

    def _counting(self, environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
        def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            if not environ[context.HANDOVER].taken:  # else the relay sees the real status
                call = environ.get(context.CALL)
                self.tally.add(REQUESTS, (call.name if call else "other", status[:3]))
            return start_response(status, headers, exc_info)

        return respond


def nothing(start_response: StartResponse, status: str = "200 OK") -> Iterable[bytes]:
    """What the server is told once its connection was taken: it finds the client gone."""
    start_response(status, [])
    return ()


def _server_socket(environ: WSGIEnvironment) -> Any:
    return next((environ[key] for key in _SOCKETS if key in environ), None)


def _is_gunicorn(server: Any) -> bool:
    return hasattr(server, "default_headers") and hasattr(server, "req")


def _read_ahead(server: Any, environ: WSGIEnvironment) -> bytes:
    """What gunicorn's or Werkzeug's reader holds of the bytes after the head."""
    if _is_gunicorn(server):
        return bytes(server.req.unreader.take_buffered())
    # Chunked bodies are read through a wrapper in Werkzeug.
    reader: Any = getattr(environ["wsgi.input"], "_rfile", environ["wsgi.input"])
    environ["werkzeug.socket"].setblocking(False)
    return bytes(reader.read1(len(reader.peek())))


def _keeping_server_and_date(server: Any, start_response: StartResponse) -> StartResponse:
    if not _is_gunicorn(server):
        return start_response
    own_headers: Callable[[], list[str]] = server.default_headers

    def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        kept = {name.lower(): value for name, value in headers if name.lower() in ("server", "date")}
        server.default_headers = lambda: [_replaced(line, kept) for line in own_headers()]
        return start_response(status, headers, exc_info)

    return respond


def _replaced(line: str, values: dict[str, str]) -> str:
    name = line.partition(":")[0]
    return f"{name}: {values[name.lower()]}\r\n" if name.lower() in values else line
