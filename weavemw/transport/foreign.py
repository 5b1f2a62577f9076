"""Connections of WSGI servers that don't give theirs away by themselves: gunicorn's own workers, and Werkzeug's server.

They leave the client's socket in ``environ``, for looking at. To take it, its
descriptor is duplicated, and replaced under the server by a connection whose
peer is gone: the server closes that one, in its own time, and writes nothing to
the real one. What the server has read ahead is asked of its reader.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from weavemw import context

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ForeignConnection", "connection_of"]


def connection_of(environ: WSGIEnvironment, start_response: StartResponse) -> ForeignConnection | None:
    """The client's connection, if this server is one of those; gunicorn's workers also tell the headers one by one."""
    server: Any = getattr(start_response, "__self__", None)
    if "gunicorn.socket" in environ and hasattr(server, "req"):
        environ[context.HEADERS] = list(server.req.headers)
        return _Gunicorn(environ, server)
    return _Werkzeug(environ) if "werkzeug.socket" in environ else None


class ForeignConnection:
    """A connection of which only the descriptor is known: a :class:`~weavemw.transport.hijack.ClientConnection`."""

    can_send = False

    def __init__(self, environ: WSGIEnvironment, sock: Any) -> None:
        self._environ = environ
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor."""
        return int(self._sock.fileno())

    def send(self, response: bytes) -> None:
        """Not possible: see ``can_send``."""
        raise NotImplementedError

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
        super().__init__(environ, environ["gunicorn.socket"])
        self._server = server

    def _read_ahead(self) -> bytes:
        return bytes(self._server.req.unreader.take_buffered())


class _Werkzeug(ForeignConnection):
    def __init__(self, environ: WSGIEnvironment) -> None:
        super().__init__(environ, environ["werkzeug.socket"])

    def _read_ahead(self) -> bytes:
        # Chunked bodies are read through a wrapper.
        reader: Any = getattr(self._environ["wsgi.input"], "_rfile", self._environ["wsgi.input"])
        self._sock.setblocking(False)
        return bytes(reader.read1(len(reader.peek())))
