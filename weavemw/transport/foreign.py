"""Connections of WSGI servers that don't give theirs away by themselves: gunicorn's own workers, and Werkzeug's server.

They leave the client's socket in ``environ``, for looking at. To take it, its
descriptor is duplicated, and replaced under the server by a connection whose
peer is gone: the server closes that one, in its own time, and writes nothing to
the real one. What the server has read ahead is asked of its reader.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from weavemw import context

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ForeignConnection", "connection_of", "is_patched", "serves_others"]


def connection_of(environ: WSGIEnvironment, start_response: StartResponse) -> ForeignConnection | None:
    """The client's connection, if this server is one of those; gunicorn's workers also tell the headers one by one."""
    server: Any = getattr(start_response, "__self__", None)
    if "gunicorn.socket" in environ and hasattr(server, "req"):
        environ[context.HEADERS] = list(server.req.headers)
        return None if is_patched() else _Gunicorn(environ, server)
    return _Werkzeug(environ) if "werkzeug.socket" in environ else None


def is_patched() -> bool:
    """Whether gevent has put its own, cooperative calls in the place of blocking ones: epoll, which has none, is gone.

    There are no threads then for a relay to run in, and streams need none.
    """
    return not hasattr(select, "epoll")


def serves_others(environ: WSGIEnvironment) -> bool:
    """Whether the server answers other requests while the app waits in this one."""
    return bool(environ["wsgi.multithread"] or environ["wsgi.multiprocess"]) or is_patched()


class ForeignConnection:
    """A connection of which only the descriptor is known: a :class:`~weavemw.transport.hijack.ClientConnection`."""

    can_send = can_wait = False

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor."""
        return int(self._sock.fileno())

    def answer(self, pieces: Iterator[bytes]) -> None:
        """Not possible, and neither are the next two: see ``can_send`` and ``can_wait``."""
        raise NotImplementedError

    def ask(self, sock: socket.socket | None) -> None:
        """See :meth:`answer`."""
        raise NotImplementedError

    def framed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """See :meth:`answer`."""
        raise NotImplementedError

    def about_to_wait(self) -> None:
        """These servers give each request a thread anyway."""

    def take(self) -> tuple[socket.socket, bytes]:
        """The connection, and what the server had read of it beyond the request's head."""
        read_ahead = self._read_ahead()
        connection = socket.socket(fileno=os.dup(self.fileno()))
        ours, peer = socket.socketpair()
        with ours, peer:
            os.dup2(ours.fileno(), self.fileno(), inheritable=False)
        return connection, read_ahead

    def _read_ahead(self) -> bytes:
        raise NotImplementedError


class _Gunicorn(ForeignConnection):
    def __init__(self, environ: WSGIEnvironment, server: Any) -> None:
        super().__init__(environ["gunicorn.socket"])
        self._server = server

    def _read_ahead(self) -> bytes:
        return bytes(self._server.req.unreader.take_buffered())


class _Werkzeug(ForeignConnection):
    def __init__(self, environ: WSGIEnvironment) -> None:
        super().__init__(environ["werkzeug.socket"])
        # A middleware may put another in its place. Chunked bodies are read through a wrapper.
        self._reader: Any = getattr(environ["wsgi.input"], "_rfile", environ["wsgi.input"])

    def _read_ahead(self) -> bytes:
        self._sock.setblocking(False)
        return bytes(self._reader.read1(len(self._reader.peek())))
