"""Sockets that the proxy listens on, and whether something answers there.

Sockets are bound here and not by the WSGI server, because
a unix socket through which Docker is reached must never, not for a moment, be
open to more people than Docker's own socket.
"""

from __future__ import annotations

import errno
import os
import socket

from weavemw.dockerapi.hosts import Host, Tcp, Unix
from weavemw.errors import SettingsError
from weavemw.transport import ports
from weavemw.transport.unix_socket import bind_unix, listening

__all__ = ["bind", "complaint", "connect", "ping", "serves"]


def ping(listener: Host, timeout: float = 5.0) -> bool:
    """Whether Docker answers ``GET /_ping`` with 200 through a listener, within ``timeout`` seconds."""
    try:
        return _pinged(listener, timeout) == b"HTTP/1.1 200"
    except OSError:
        return False


def _pinged(listener: Host, timeout: float) -> bytes:
    with connect(listener, timeout) as sock:
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        return sock.recv(12)


def complaint(listener: Host, *, guarded: bool = False, timeout: float = 5.0) -> str:
    """Why a listener does not serve (see :func:`serves`); empty if it does."""
    if guarded and isinstance(listener, Tcp):
        return "" if serves(listener, guarded=True, timeout=timeout) else "does not answer"
    try:
        found = _pinged(listener, timeout)
    except OSError as error:
        return f"does not answer: {error.strerror or error}"
    return "" if found == b"HTTP/1.1 200" else f"answers with status {found[9:].decode(errors='replace') or 'none'}"


def serves(listener: Host, *, guarded: bool = False, timeout: float = 5.0) -> bool:
    """Like :func:`ping`; ``guarded`` TCP listeners, which may not let us in, are only knocked at.

    One that serves ends a connection on which nothing comes.
    """
    if not guarded or isinstance(listener, Unix):
        return ping(listener, timeout)
    try:
        with connect(listener, timeout) as sock:
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True


def connect(listener: Host, timeout: float) -> socket.socket:
    """A connection to a listener, with a limit in seconds for all that is done on it. Raises ``OSError``."""
    if isinstance(listener, Tcp):
        there = listener.seen_from()
        return socket.create_connection((there.host, there.port), timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(listener.path)
    except BaseException:
        sock.close()
        raise
    return sock


def bind(listener: Host, like: os.stat_result) -> socket.socket:
    """A listening socket; a unix socket has owner, group and mode of ``like`` from the moment it exists.

    Must be called before threads are started: the umask and the effective
    group, which are the process's own, are changed while the socket is bound.
    A socket file on which nobody listens is replaced. Raises
    :class:`~weavemw.errors.SettingsError` if the address can't be had.
    """
    try:
        return bind_unix(listener.path, like) if isinstance(listener, Unix) else _bind_tcp(listener)
    except OSError as error:
        raise SettingsError(f"can't listen on {listener}: {_why_not(listener, error)}") from error


def _why_not(listener: Host, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE and isinstance(listener, Tcp) and (who := ports.holder(*_at(listener))):
        return f"{who} listens there already; choose another by -H"
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this host has that address"
    return error.strerror or str(error)


def _at(listener: Tcp) -> tuple[str, int]:
    return listener.host, listener.port


def _bind_tcp(listener: Tcp) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with listening(socket.socket(family, kind, protocol)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
    return sock
