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
* An exchange that comes back as the very object that was made has been sent to
  the daemon, and no more. The server waits for its answer without a thread,
  where it can do that, and sends it as it came.
* A middleware that replaces ``start_response`` wants to see the response: then
  nothing is handed over, except upgrades, which no server could carry.

A server says that it gives its connections away by
:data:`weavemw.context.CONNECTION`, a :class:`ClientConnection`, as ours does
(:mod:`weavemw.serving.http_server`). Of other servers those of gunicorn and
Werkzeug can be made to (:mod:`weavemw.transport.foreign`). Under any other,
everything but upgrades works.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

from weavemw import context
from weavemw.dockerapi import routes
from weavemw.ops.tally import REQUESTS, Tally
from weavemw.transport import foreign

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.transport.http1 import ResponseHead
    from weavemw.transport.relay import Relay, Stream

__all__ = ["ClientConnection", "Handover", "Offer", "Reviser", "Untouched", "nothing"]

#: What the whole body of a 200 with JSON goes through, if somebody wants that: it takes it and gives what may go on.
Reviser = Callable[[bytes], bytes]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(Protocol):
    """A client's connection, as the server holds it while a request is answered."""

    def fileno(self) -> int:
        """Its descriptor, to see whether the client is still there."""

    def take(self) -> tuple[socket.socket, bytes]:
        """The connection, no longer the server's, and what was read of it beyond the request's head."""

    @property
    def can_send(self) -> bool:
        """Whether :meth:`answer` may be given a head: the connection is kept, and there is nothing to say of it."""

    @property
    def can_wait(self) -> bool:
        """Whether :meth:`ask` can be used: all of the request is there, and the server can wait without a thread."""

    def answer(self, pieces: Iterator[bytes]) -> None:
        """Answer with these pieces, the head among them; nothing else is then sent for this request.

        An empty one says that there is nothing yet: the next is asked for once what :meth:`ask` was given can be read.
        """

    def ask(self, sock: socket.socket | None) -> None:
        """Whose answer this one waits for, ``None`` if for nobody's. If the client leaves, the response is closed."""

    def framed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """A response that was started by ``start_response``, as :meth:`answer` may be given it."""

    def about_to_wait(self) -> None:
        """This thread is going to wait for something: the server is not to count on it."""


class Untouched(Protocol):
    """A response that need not go through the server: known by the offer that it holds."""

    offer: Offer | None

    def __iter__(self) -> Iterator[bytes]: ...

    def hand_over(self) -> Iterable[bytes]:
        """Answer by the offer; returns what the server is to be given instead."""


class Offer:
    """The client's connection, for whoever can use it better; ``tally`` counts what is answered by it."""

    __slots__ = ("_connection", "_may_probe", "client_fd", "content_length", "input", "may_block", "relay",
                 "start_response")

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, connection: ClientConnection,
                 relay: Relay, tally: Tally) -> None:
        call = routes.call_of(environ)
        self.start_response = _Counting(start_response, tally, call.name if call else "other")
        self.relay = relay
        self.input = environ["wsgi.input"]
        self.content_length = environ.get("CONTENT_LENGTH")
        self.client_fd = connection.fileno()
        self.may_block = bool(environ["wsgi.multithread"])
        self._connection = connection
        self._may_probe = environ["SERVER_PROTOCOL"] == "HTTP/1.1"

    def is_untouched_by(self, start_response: StartResponse) -> bool:
        """Whether no middleware wants to see the response."""
        return start_response is self.start_response

    def has_body_of(self, environ: WSGIEnvironment) -> bool:
        """Whether the request's body still is what the client sends, unread and not replaced."""
        return environ["wsgi.input"] is self.input and environ.get("CONTENT_LENGTH") == self.content_length

    def client_gone(self) -> bool:
        """Whether the client has closed its connection in both directions; with half of it, it can still be answered.

        By TCP both look the same until something is sent. So who has closed at least half is sent an interim response
        once, which clients of HTTP/1.1 pass over (RFC 9110 section 15.2); one that has left resets the connection, and
        is known to be gone when this is asked again.
        """
        poll = select.poll()
        poll.register(self.client_fd, select.POLLRDHUP)
        events = sum(event for _, event in poll.poll(0))
        if events == select.POLLRDHUP and self._may_probe:
            self._may_probe = False
            _probe(self.client_fd)
        return bool(events & (select.POLLHUP | select.POLLERR))

    def take(self) -> tuple[socket.socket, bytes]:
        """The client's connection, and the bytes that the server has read of it beyond the request's head."""
        self.start_response.counts = False  # the relay sees the real status
        return self._connection.take()

    def hand_over(self, stream: Stream) -> None:
        """Give the relay a stream that was made of what :meth:`take` returned."""
        self.relay.add(stream)

    @property
    def may_answer(self) -> bool:
        """Whether :meth:`answer` may be given the daemon's own head."""
        return self._connection.can_send

    @property
    def may_wait(self) -> bool:
        """Whether the server waits for the daemon's answer, without a thread."""
        return self._connection.can_wait

    def answer(self, pieces: Iterator[bytes]) -> None:
        """Send the bytes of a response, where the server waits for them or has them: see :class:`ClientConnection`."""
        self._connection.answer(pieces)

    def ask(self, sock: socket.socket) -> None:
        """Have the server wait for what can be read of the daemon's socket."""
        self._connection.ask(sock)

    def framed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The bytes of a response that was started by ``start_response``: for what can't be sent as it came."""
        return self._connection.framed(pieces)

    def about_to_wait(self) -> None:
        """Say that this thread is going to wait for something else than the daemon's answer."""
        self._connection.about_to_wait()

    def as_it_came(self, head: ResponseHead, body: bytes) -> bytes:
        """The first bytes of a response that is sent as it came."""
        self.start_response.count(str(head.status))
        return b"%b\r\n\r\n%b" % (head.raw, body)


class _Counting:
    """A server's ``start_response``, which counts what is answered. It knows no offer: who made both frees both."""

    __slots__ = ("_call", "_start_response", "_tally", "counts")

    def __init__(self, start_response: StartResponse, tally: Tally, call: str) -> None:
        self.counts = True
        self._start_response = start_response
        self._tally = tally
        self._call = call

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        if self.counts:
            self.count(status[:3])
        return self._start_response(status, headers, exc_info)

    def count(self, code: str) -> None:
        """Count an answer."""
        self._tally.add(REQUESTS, (self._call, code))


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


def _probe(descriptor: int) -> None:
    """Send something that changes nothing, unless half and whole can be told apart without; errors are told by poll."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        if sock.family != socket.AF_UNIX:
            sock.send(_CONTINUE, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def nothing(start_response: StartResponse, status: str = "200 OK") -> Iterable[bytes]:
    """What is returned once the connection was taken: nobody sends it, but WSGI wants an answer."""
    start_response(status, [])
    return ()
