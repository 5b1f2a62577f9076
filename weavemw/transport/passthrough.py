"""The innermost app: forwards a request to the Docker socket as it came, and the daemon's answer as it came.

Three ways, chosen by the call (:mod:`weavemw.dockerapi.routes`) and by what the
middlewares around us want to see:

* An **exchange** answers at once: over kept-alive connections on both sides. Where
  nothing around us wants to see the answer, our server waits for it without a
  thread; else it is iterated by the WSGI server.
* A **tunnel** may take long, stream, or stop being HTTP. The daemon is asked to
  close the connection after this one response, and both connections go to the
  relay (:mod:`weavemw.transport.hijack`), so that it costs no thread. The daemon's bytes
  then reach the client as they are: status line, headers, trailers and all.
* An **upgrade** is an exchange until the daemon has agreed to it. The daemon keeps
  a connection that it does not upgrade, and would read what the client sends next
  as a request that no middleware has seen. So the two are joined only once the
  daemon's answer says that HTTP is over on its connection.

Works under any WSGI server, alone or inside other people's middlewares; what a
server can't do is :class:`~weavemw.errors.Unsupported` at once (docs/servers.md).
"""

from __future__ import annotations

import errno
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from weavemw import context
from weavemw.dockerapi import payload, routes
from weavemw.dockerapi.routes import described
from weavemw.errors import BadRequest, DockerUnreachable, Unsupported
from weavemw.ops import logs
from weavemw.transport import foreign
from weavemw.transport.hijack import nothing
from weavemw.transport.http1 import (
    HOP_BY_HOP,
    Headers,
    ProtocolError,
    ResponseHead,
    decoder_for,
    error_body,
    request_head,
)
from weavemw.transport.relay import Stream
from weavemw.transport.upstream import ClientGone, Upstream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from weavemw.transport.hijack import Offer, Reviser
    from weavemw.transport.relay import Filter

__all__ = ["NoAnswerError", "Passthrough"]

_log = logs.summed(__name__)
_T = TypeVar("_T")

_BLOCK = 65536
#: Methods that may be sent again on another connection (RFC 9110 section 9.2.2),
#: less those with which something may already have happened at the daemon.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HIJACKS = frozenset({"container_attach", "container_attach_ws", "exec_start", "session", "grpc"})
_ENDLESS = frozenset({"events", "container_attach", "container_attach_ws", "container_stats", "container_wait"})
#: What Docker reads as false in a query.
_FALSE = ("", "0", "no", "false", "none")
#: Not forwarded: said anew for the daemon's connection, or settled with the client already.
_OURS = HOP_BY_HOP | {"host", "content-length", "expect"}


class Passthrough:
    """Forward everything to one :class:`~weavemw.transport.upstream.Upstream`.

    Raises :class:`~weavemw.errors.DockerUnreachable` when there is no daemon.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        payload.check_framing(environ)
        offer: Offer | None = environ.get(context.HANDOVER)
        if upgrade_of(environ):
            return self._upgrade(environ, start_response, offer)
        if offer and is_hijacked(environ):
            # At once, whatever the middlewares around us do: no server can carry what follows.
            return self._tunnel(environ, start_response, offer).hand_over()
        if offer and offer.is_untouched_by(start_response) and is_for_relay(environ, offer):
            return self._tunnel(environ, start_response, offer)
        if not offer and is_endless(environ) and not foreign.serves_others(environ):
            raise Unsupported("the proxy's WSGI server does one thing at a time, and this may go on until something "
                              "else is done: serve it with threads")
        return self._exchange(environ, start_response)

    def _upgrade(self, environ: WSGIEnvironment, start_response: StartResponse,
                 offer: Offer | None) -> Iterable[bytes]:
        if not offer:
            raise Unsupported("the proxy's WSGI server does not give its connections away, so that nothing can attach: "
                              "serve it with gunicorn")
        exchange = Exchange(environ, start_response, self.upstream, offer=offer, is_last=True)
        exchange.send(head_of(environ, close=False))
        untouched = offer.is_untouched_by(start_response)
        if untouched and offer.may_wait:
            return exchange
        exchange.begin()
        if exchange.is_hijacked:
            return exchange.join()
        return exchange if untouched else exchange.without_offer()

    def _exchange(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        offer: Offer | None = environ.get(context.HANDOVER)
        untouched = offer if offer and offer.is_untouched_by(start_response) else None
        exchange = Exchange(environ, start_response, self.upstream, offer=untouched)
        exchange.send(head_of(environ, close=False))
        if not (untouched and untouched.may_wait and context.FILTER not in environ):
            exchange.begin()
        return exchange

    def _tunnel(self, environ: WSGIEnvironment, start_response: StartResponse, offer: Offer) -> Tunnel:
        tunnel = Tunnel(environ, start_response, self.upstream, offer=offer, is_last=True)
        tunnel.send(head_of(environ, close=True))
        return tunnel


class NoAnswerError(DockerUnreachable):
    """The daemon closed the connection, or spoke something else than HTTP, before there was a response."""


class Exchange:
    """One request at the daemon and its response, as a WSGI iterable.

    :meth:`send` sends the request, :meth:`begin` waits for the response's head;
    iterating without it sends what is left of the request, and waits first. With an
    ``offer``, it can be handed over instead (:class:`weavemw.transport.hijack.Untouched`)::

                      ┌─ begin ── waits in this thread ──► begun ── iterated by the server, or whole: as it came
        new ─ send ─► sent
                      └─ hand_over ── the server waits ──► begun ── as it came, piece by piece; framed anew; or joined
                                        │ the client leaves: close ends it at the daemon
                                        └ no answer: on a new connection if this one was kept, else 502

    The connection is kept afterwards, unless this ``is_last`` on it. Requests that
    may be repeated go over kept ones, which may turn out to be stale.
    """

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, upstream: Upstream, *,
                 offer: Offer | None, is_last: bool = False) -> None:
        self.offer = offer
        self._environ = environ
        self._start_response = start_response
        self._upstream = upstream
        kept = upstream.idle() if not is_last and is_repeatable(environ) else None
        self._is_stale = kept is not None  # perhaps
        self._is_last = is_last
        self._is_revised = False
        self._connection = kept or upstream.connect()
        self._sent = b""
        self._head: ResponseHead | None = None
        self._request: Iterator[bytes] | None = body_pieces(environ) if has_body(environ) else None
        self._unsent = b""
        self._raw = self._at_hand = b""
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self._head is None:
                self.begin()
        except DockerUnreachable as error:  # ErrorResponder has returned by now
            yield self._refuse(self._start_response, error)
            return
        if self.offer and self.is_hijacked:
            self.join()
            return
        if self.offer:
            self._respond()
        to_pass: Filter | None = self._environ.get(context.FILTER)
        pieces = self._waiting(self._pieces())
        yield from map(to_pass, itertools.chain(pieces, [b""])) if to_pass else pieces

    def send(self, head: bytes) -> None:
        """Send the request's head."""
        self._sent = head
        try:
            self._reach(lambda: self._connection.send(head))
        except NoAnswerError:
            if not self._sent_anew():
                raise

    def begin(self) -> None:
        """Wait for the response's head, and start the response unless it may be handed over."""
        for _ in self._until_begun():
            self._reach(self._wait)
        if not self.offer:
            self._respond_at_once()

    def hand_over(self) -> Iterable[bytes]:
        """Have the server wait for the response; one that is here already and whole goes out as it came."""
        assert self.offer  # who hands over has found it here
        if self._head is None:
            self.offer.ask(self._connection.sock)
            self.offer.answer(self._later())
        elif self._decoder.done and not self._request and self._is_to_be_sent_as_it_came():
            self.offer.answer(iter((self.offer.as_it_came(self._head, self._raw),)))
        return self

    @property
    def is_hijacked(self) -> bool:
        """Whether HTTP is over on the daemon's connection: by a 101, or as an engine does that knows no 101."""
        assert self._head  # begin() read it
        return self._head.status == 101 or (self._decoder.ends_with_connection and is_hijacked(self._environ))

    def join(self) -> Iterable[bytes]:
        """Give both connections to the relay, from the response's head on."""
        assert self.offer  # it was made with one
        assert self._head  # begin() read it
        self._ended = True
        client, read_ahead = self.offer.take()
        self.offer.hand_over(Stream(
            client, self._connection.sock, to_upstream=self._unsent + read_ahead,
            to_client=b"%b\r\n\r\n%b" % (self._head.raw, self._connection.take_read()),
            call=_name_of(self._environ), code=str(self._head.status)))
        return nothing(self._start_response, self._head.status_line)

    def without_offer(self) -> Exchange:
        """Begin the response: what is around us wants to see it, or is the server."""
        self.offer = None
        self._respond_at_once()
        return self

    def close(self) -> None:
        """End the request at the daemon, or keep the connection if the response was read to its end."""
        if self._ended:
            return
        self._ended = True
        if self._head and self._head.keeps_alive and self._decoder.done and not self._request and not self._is_last:
            self._upstream.keep(self._connection)
        else:
            self._connection.close()

    # -- the head of the response

    def _until_begun(self) -> Iterator[bytes]:
        """Yields wherever the head, or a body that is to be revised, has to be waited for."""
        self._reach(self._send_rest)
        yield b""
        while not self._has_begun():
            yield b""
        revise: Reviser | None = self._environ.pop(context.REVISER, None)
        if revise and is_plain_json(self._head):
            yield from self._until_revised(revise)

    def _until_revised(self, revise: Reviser) -> Iterator[bytes]:
        pieces = [(self._raw, self._at_hand)]
        while not self._decoder.done:
            pieces.append(self._reach(self._read_more))
            if not pieces[-1][0]:
                yield b""
        self._raw, body = (b"".join(parts) for parts in zip(*pieces, strict=True))
        self._at_hand = revise(body)
        self._is_revised = self._at_hand != body

    def _has_begun(self) -> bool:
        """Whether the response's head is there now."""
        try:
            return self._reach(self._read_head)
        except NoAnswerError:
            if not self._sent_anew():
                raise
            return False

    def _read_head(self) -> bool:
        head = self._connection.head_at_hand()
        if head is None:
            return False
        if head.status == 101 and not upgrade_of(self._environ):
            raise ProtocolError("it switched protocols unasked")
        self._decoder = decoder_for(self._environ["REQUEST_METHOD"], head)
        self._head = head
        if head.status >= 400 and self._request is not None:
            self._request, self._is_last = None, True  # refused: the rest of the request is of no use
        if not self.is_hijacked and not self._decoder.done and not self._connection.is_drained:
            self._raw, self._at_hand = self._connection.read_body(self._decoder)
        return True

    def _sent_anew(self) -> bool:
        """Whether the request is under way on another connection, because the one it was sent on was a stale one."""
        if not self._is_stale:
            return False
        self._is_stale = self._ended = False
        self._connection = self._upstream.connect()
        self._reach(lambda: self._connection.send(self._sent))
        return True

    def _reach(self, step: Callable[[], _T]) -> _T:
        """Do something with the daemon's connection, which is closed if that fails."""
        try:
            return step()
        except BaseException as error:
            self._connection.close()
            self._ended = True
            if isinstance(error, ClientGone) or not isinstance(error, ConnectionError | ProtocolError):
                raise
            raise NoAnswerError(f"the Docker daemon gave no proper answer: {error}") from error

    # -- the response, as whoever sends it is given it; an empty piece where the next has to be waited for

    def _later(self) -> Iterator[bytes]:
        """All of it, where the server waits."""
        assert self.offer  # it was handed over
        try:
            for _ in self._until_begun():
                self.offer.ask(self._connection.sock)
                yield b""
        except DockerUnreachable as error:
            _log.warning("%s: %d %s", described(self._environ), error.status, error.message)
            yield from self.offer.framed([self._refuse(self.offer.start_response, error)])
            return
        assert self._head  # it has begun
        if self.is_hijacked:
            self.join()
        elif self._is_to_be_sent_as_it_came():
            yield self.offer.as_it_came(self._head, self._raw)
            while not self._decoder.done:
                yield self._more()[0]
        else:
            self._respond()
            yield from self.offer.framed(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        """What the body says."""
        if self._at_hand or not self._decoder.done:
            # An empty piece makes the server send the head before there is a body, if that has not been sent yet.
            yield self._at_hand
        while not self._decoder.done:
            piece = self._more()[1]
            if piece or not self._decoder.done:
                yield piece

    def _waiting(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same, waiting in this thread."""
        for piece in pieces:
            yield piece
            if not piece:
                self._wait()

    def _more(self) -> tuple[bytes, bytes]:
        """More of the body, as it came, and what it says; sends what is left of the request meanwhile."""
        try:
            return self._read_more()
        except (ConnectionError, ProtocolError, BadRequest) as error:
            # The head is on its way: all that can be done is not to end the response as if it were whole.
            _log.warning("a response broke off: %s", error)
            self._connection.close()
            self._ended = True
            raise ConnectionResetError(errno.ECONNRESET, "the response broke off") from error

    def _read_more(self) -> tuple[bytes, bytes]:
        self._send_rest()
        return self._connection.read_body(self._decoder)

    def _is_to_be_sent_as_it_came(self) -> bool:
        assert self._head  # it has begun
        return bool(self.offer and self.offer.may_answer) and is_plain(self._head) and not self._is_revised

    def _respond(self) -> Any:
        assert self._head  # it has begun
        headers = end_to_end(self._head)
        if self._is_revised:
            headers = [pair for pair in headers if pair[0].lower() != "content-length"]
            headers.append(("Content-Length", str(len(self._at_hand))))
        return self._start_response(self._head.status_line, headers)

    def _respond_at_once(self) -> None:
        """Start the response, before it is iterated; the client is to see its head before there is a body."""
        write = self._respond()
        if write and not self._at_hand and not self._decoder.done:
            write(b"")  # some servers pass over empty pieces

    def _refuse(self, start_response: StartResponse, error: DockerUnreachable) -> bytes:
        """Answer that there is no answer."""
        body = b"" if self._environ["REQUEST_METHOD"] == "HEAD" else error_body(error.message)
        start_response(f"{error.status} {HTTPStatus(error.status).phrase}",
                       [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return body

    # -- the rest of the request

    def _send_rest(self) -> None:
        while self._send_more():
            pass

    def _send_more(self) -> bool:
        """Send a piece of the request's body; False once it is sent, or the daemon has something to say."""
        if self._request is None or self._connection.has_bytes:
            return False
        self._unsent = self._unsent or next(self._request, b"")
        if not self._unsent:
            self._request = None
            return False
        try:
            self._unsent = self._unsent[self._connection.send_some(self._unsent) :]
        except BrokenPipeError:
            self._request = None  # the daemon has heard enough: its answer says why
        return self._request is not None

    def _wait(self) -> None:
        offer: Offer | None = self._environ.get(context.HANDOVER)
        if offer:
            offer.about_to_wait()
        self._connection.wait(offer.client_fd if offer else None)


class Tunnel(Exchange):
    """An exchange that goes to the relay when it is handed over; its offer is a must."""

    def hand_over(self) -> Iterable[bytes]:
        """Give both connections to the relay, with whatever is left of the request's body."""
        assert self.offer  # it was made with one
        if not self.offer.has_body_of(self._environ):
            self._send_rest()
        self._ended = True
        client, read_ahead = self.offer.take()
        self.offer.hand_over(Stream(client, self._connection.sock, to_upstream=read_ahead,
                                    call=_name_of(self._environ), through=self._environ.get(context.FILTER)))
        return nothing(self._start_response)


def is_hijacked(environ: WSGIEnvironment) -> bool:
    """Whether the call is one whose connection stops being HTTP; old clients attach without asking for an upgrade."""
    return _name_of(environ) in _HIJACKS


def _name_of(environ: WSGIEnvironment) -> str:
    call = routes.call_of(environ)
    return call.name if call else ""


def upgrade_of(environ: WSGIEnvironment) -> str:
    """The protocol that a client asks to go on with, empty if none.

    Calls that we know, and that the daemon never upgrades, are not asked to
    (RFC 9110 section 7.8): what changes their answer must get to see it.
    """
    call = routes.call_of(environ)
    wanted: str = environ.get("HTTP_UPGRADE", "")
    return wanted if call is None or call.name in _HIJACKS else ""


def is_for_relay(environ: WSGIEnvironment, offer: Offer) -> bool:
    """Whether this request is better off without a thread. A server with one thread can't wait for anything."""
    call = routes.call_of(environ)
    return not offer.may_block or call is None or not call.answers_shortly


def is_endless(environ: WSGIEnvironment) -> bool:
    """Whether a call may end only when something else is done, or never."""
    name, query = _name_of(environ), routes.query_of(environ)
    follows = query.get("follow", "").strip().lower() not in _FALSE
    return name in _ENDLESS or (name == "container_logs" and follows)


def is_repeatable(environ: WSGIEnvironment) -> bool:
    """Whether the request may be sent again if a connection breaks under it."""
    return environ["REQUEST_METHOD"] in _SAFE and not has_body(environ)


def has_body(environ: WSGIEnvironment) -> bool:
    """Whether the request says that a body follows."""
    return "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH") not in (None, "", "0")


def head_of(environ: WSGIEnvironment, *, close: bool) -> bytes:
    """The head to send to the daemon: the client's, but for what concerns the connection."""
    upgrade = upgrade_of(environ)
    headers = [("Host", "docker"), *forwarded_headers(environ), *framing(environ)]
    if upgrade:
        # Alone: with "Upgrade, close" Podman does not upgrade.
        headers += [("Connection", "Upgrade"), ("Upgrade", upgrade)]
    elif close:
        headers.append(("Connection", "close"))
    return request_head(environ["REQUEST_METHOD"], routes.target_of(environ), headers, environ["SERVER_PROTOCOL"])


def forwarded_headers(environ: WSGIEnvironment) -> Headers:
    """The end-to-end headers; those that the server kept one by one stay so, unless a middleware changed them."""
    found: Headers = [("Content-Type", environ["CONTENT_TYPE"])] if environ.get("CONTENT_TYPE") else []
    one_by_one = _grouped(environ.get(context.HEADERS, ()))
    for key in [key for key in environ if key.startswith("HTTP_")]:
        if name := _header_name(key):
            values, joined = one_by_one.get(name, ()), environ[key]
            found += [(name, value) for value in values] if ",".join(values) == joined else [(name, joined)]
    return found


def _grouped(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(_title(name), []).append(value)
    return values


@functools.lru_cache(1024)
def _header_name(key: str) -> str:
    """The header that such a key of ``environ`` stands for; empty for what is not forwarded."""
    name = _title(key[5:].replace("_", "-"))
    return "" if name.lower() in _OURS else name


@functools.lru_cache(1024)
def _title(name: str) -> str:
    return name.title()


def framing(environ: WSGIEnvironment) -> Headers:
    """How the body is delimited towards the daemon: as it is towards us."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return [("Transfer-Encoding", "chunked")]
    length = environ.get("CONTENT_LENGTH")
    return [("Content-Length", length)] if length else []


def body_pieces(environ: WSGIEnvironment) -> Iterator[bytes]:
    """The request's body in the framing that :func:`framing` announces, block by block."""
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    left = None if chunked else int(environ["CONTENT_LENGTH"])
    while left is None or left > 0:
        data = _read(environ, _BLOCK if left is None else min(_BLOCK, left))
        if not data:
            break
        left = left if left is None else left - len(data)
        yield b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
    if chunked:
        yield b"0\r\n\r\n"


def _read(environ: WSGIEnvironment, size: int) -> bytes:
    try:
        return payload.read_input(environ, size)
    except ConnectionError as error:
        raise ClientGone from error


def is_plain(head: ResponseHead) -> bool:
    """Whether a response's head can go to a client as it is."""
    return head.version == "1.1" and "connection" not in head and "," not in head.get("content-length")


def is_plain_json(head: ResponseHead | None) -> bool:
    """Whether a response is a 200 with JSON that is not packed."""
    return head is not None and head.status == HTTPStatus.OK and "content-encoding" not in head and \
        head.get("content-type").partition(";")[0].strip().lower() == "application/json"


def end_to_end(head: ResponseHead) -> Headers:
    """A response's headers without those that speak of the daemon's connection, with its length at most once."""
    dropped = HOP_BY_HOP | {token.strip().lower() for token in head.get("connection").split(",")}
    length = head.get("content-length").partition(",")[0]
    found = [(name, value) for name, value in head.headers if name.lower() not in dropped | {"content-length"}]
    return found if not length or "transfer-encoding" in head else [*found, ("Content-Length", length)]
