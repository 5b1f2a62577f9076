"""Taking a client's connection away from the WSGI server: the only file that knows a server's sockets.

WSGI can't express a connection that stops being HTTP (``docker attach``), nor one
that should cost no thread while it is quiet (``docker logs -f``). So there is a
contract, in the manner of ``wsgi.file_wrapper``:

* :class:`Handover`, the outermost layer, leaves an :class:`Offer` in ``environ``.
* The innermost app may return a :class:`Tunnel`, an ordinary WSGI iterable that
  answers when it is iterated.
* If the tunnel comes back to :class:`Handover` as that very object, its
  connections go to the relay, which joins them in the kernel. If a middleware
  wrapped it, the server iterates it: as correct, merely slower.
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

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.relay import Relay, Stream

__all__ = ["Handover", "Offer", "Tunnel"]

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class Tunnel(Protocol):
    """A response that can be handed over as a :class:`~weavemw.relay.Stream`: known by the offer that it holds."""

    offer: Offer

    def __iter__(self) -> Iterator[bytes]: ...

    def hand_over(self) -> None:
        """Give both connections to the relay."""


class Offer:
    """The client's connection, as the server holds it, for whoever can use it better."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, relay: Relay,
                 read_ahead: Callable[[], bytes]) -> None:
        self.start_response = start_response
        self.relay = relay
        self.input = environ["wsgi.input"]
        self.content_length = environ.get("CONTENT_LENGTH")
        self.client_fd: int = _server_socket(environ).fileno()
        self.may_block = bool(environ["wsgi.multithread"])
        self._read_ahead = read_ahead

    def is_untouched_by(self, start_response: StartResponse) -> bool:
        """Whether no middleware wants to see the response."""
        return start_response is self.start_response

    def has_body_of(self, environ: WSGIEnvironment) -> bool:
        """Whether the request's body still is what the client sends, unread and not replaced."""
        return environ["wsgi.input"] is self.input and environ.get("CONTENT_LENGTH") == self.content_length

    def client_gone(self) -> bool:
        """Whether the client has closed its connection."""
        poll = select.poll()
        poll.register(self.client_fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def take(self) -> tuple[socket.socket, bytes]:
        """The client's connection, and the bytes that the server has read of it beyond the request's head.

        In its place the server is left a connection whose peer is gone: it
        closes that one, in its own time, and writes nothing to the real one.
        """
        read_ahead = self._read_ahead()
        connection = socket.socket(fileno=os.dup(self.client_fd))
        ours, peer = socket.socketpair()
        with ours, peer:
            os.dup2(ours.fileno(), self.client_fd, inheritable=False)
        return connection, read_ahead

    def hand_over(self, stream: Stream) -> None:
        """Give the relay a stream that was made of what :meth:`take` returned."""
        self.relay.add(stream)


class Handover:
    """The outermost layer: offers the connection, and hands over the tunnel that comes back untouched.

    It also gives a server's ``Server`` and ``Date`` headers back to the daemon:
    gunicorn would put its own in their place.
    """

    def __init__(self, app: WSGIApplication, *, relay: Relay) -> None:
        self.app = app
        self.relay = relay

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _server_socket(environ) is None:
            return self.app(environ, start_response)
        server: Any = getattr(start_response, "__self__", None)
        respond = _keeping_server_and_date(server, start_response)
        offer = Offer(environ, respond, self.relay, lambda: _read_ahead(server, environ))
        environ[context.HANDOVER] = offer
        environ[context.CLIENT_GONE] = offer.client_gone
        environ[context.HEADERS] = list(server.req.headers) if _is_gunicorn(server) else []
        response = self.app(environ, respond)
        if getattr(response, "offer", None) is not offer:
            return response
        cast(Tunnel, response).hand_over()
        return nothing(respond)


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
