"""Taking a client's connection away from the WSGI server, for what WSGI can't carry.

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
  the daemon sent it, at once and in one piece, where the server can do that.
* A middleware that replaces ``start_response`` wants to see the response: then
  nothing is handed over, except upgrades, which no server could carry.

A server says that it gives its connections away by
:data:`weavemw.context.CONNECTION`, a :class:`ClientConnection`, as ours does
(:mod:`weavemw.serving.http_server`). Of other servers those of gunicorn and
Werkzeug can be made to (:mod:`weavemw.transport.foreign`). Under any other,
everything but upgrades works.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

from weavemw import context
from weavemw.ops.tally import REQUESTS, Tally
from weavemw.transport import foreign

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.transport.http1 import ResponseHead
    from weavemw.transport.relay import Relay, Stream

__all__ = ["ClientConnection", "Handover", "Offer", "Untouched", "nothing"]


class ClientConnection(Protocol):
    """A client's connection, as the server holds it while a request is answered."""

    def fileno(self) -> int:
        """Its descriptor, to see whether the client is still there."""

    def take(self) -> tuple[socket.socket, bytes]:
        """The connection, no longer the server's, and what was read of it beyond the request's head."""

    @property
    def can_send(self) -> bool:
        """Whether :meth:`send` can be used: the connection is kept, and there is nothing to say of it."""

    def send(self, response: bytes) -> None:
        """Answer with a whole response, head and body; nothing else is then sent for this request."""


class Untouched(Protocol):
    """A response that need not go through the server: known by the offer that it holds."""

    offer: Offer | None

    def __iter__(self) -> Iterator[bytes]: ...

    def hand_over(self) -> Iterable[bytes]:
        """Answer by the offer; returns what the server is to be given instead."""


class Offer:
    """The client's connection, for whoever can use it better; ``tally`` counts what is answered by it."""

    __slots__ = ("_connection", "_environ", "_tally", "client_fd", "content_length", "input", "may_block", "relay",
                 "start_response", "taken")

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, connection: ClientConnection,
                 relay: Relay, tally: Tally) -> None:
        self.start_response = self._counting(start_response)
        self.relay = relay
        self.input = environ["wsgi.input"]
        self.content_length = environ.get("CONTENT_LENGTH")
        self.client_fd = connection.fileno()
        self.may_block = bool(environ["wsgi.multithread"])
        self.taken = False
        self._connection = connection
        self._environ = environ
        self._tally = tally

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
        """The client's connection, and the bytes that the server has read of it beyond the request's head."""
        self.taken = True
        return self._connection.take()

    def hand_over(self, stream: Stream) -> None:
        """Give the relay a stream that was made of what :meth:`take` returned."""
        self.relay.add(stream)

    @property
    def may_answer(self) -> bool:
        """Whether :meth:`answer` can be used."""
        return self._connection.can_send

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response as it came."""
        self._count(str(head.status))
        self._connection.send(b"%b\r\n\r\n%b" % (head.raw, body))

    def _counting(self, start_response: StartResponse) -> StartResponse:
        def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            if not self.taken:  # else the relay sees the real status
                self._count(status[:3])
            return start_response(status, headers, exc_info)

        return respond

    def _count(self, code: str) -> None:
        call = self._environ.get(context.CALL)
        self._tally.add(REQUESTS, (call.name if call else "other", code))


class Handover:
    """The outermost layer: offers the connection, and hands over the response that comes back untouched.

    ``tally`` counts requests by call and status.
    """

    def __init__(self, app: WSGIApplication, *, relay: Relay, tally: Tally | None = None) -> None:
        self.app = app
        self.relay = relay
        self.tally = tally or Tally()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        connection = environ.get(context.CONNECTION) or foreign.connection_of(environ, start_response)
        if connection is None:
            return self.app(environ, start_response)
        offer = Offer(environ, start_response, connection, self.relay, self.tally)
        environ[context.HANDOVER] = offer
        environ[context.CLIENT_GONE] = offer.client_gone
        response = self.app(environ, offer.start_response)
        return cast(Untouched, response).hand_over() if getattr(response, "offer", None) is offer else response


def nothing(start_response: StartResponse, status: str = "200 OK") -> Iterable[bytes]:
    """What is returned once the connection was taken: nobody sends it, but WSGI wants an answer."""
    start_response(status, [])
    return ()
