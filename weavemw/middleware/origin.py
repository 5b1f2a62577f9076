"""Keeps web pages from calling Docker through a visitor's browser."""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from weavemw.errors import Forbidden

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["OriginGuard", "objection", "own_names"]


class OriginGuard:
    """Refuses what a browser was made to send; raises :class:`~weavemw.errors.Forbidden`.

    A page of another origin says so in ``Origin`` or ``Sec-Fetch-Site`` (Fetch
    standard). A page whose name was made to point here (DNS rebinding) says its
    name in ``Host``: that must be an address, a name without a dot, or one of
    ``names()``; ``None`` for listeners with TLS, whose certificate settles it.

    Only TCP is looked at: no browser reaches a unix socket, and old clients
    write all sorts of things into ``Host`` there.
    """

    def __init__(self, app: WSGIApplication, *, names: Callable[[], Collection[str]] | None = None) -> None:
        self.app = app
        self._names = names

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _is_address(environ.get("REMOTE_ADDR", "")) and (why := objection(environ, self._names)):
            raise Forbidden(why)
        return self.app(environ, start_response)


def objection(environ: WSGIEnvironment, names: Callable[[], Collection[str]] | None) -> str:
    """Why a request must not be served, empty if it may be. ``names`` is asked only if it matters."""
    host = environ.get("HTTP_HOST", "").lower()
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return f"web pages may not call Docker (Origin: {origin})"
    if environ.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site"):
        return "web pages may not call Docker (Sec-Fetch-Site)"
    name = _host_name(host)
    if names is None or _is_plain(name) or name in {each.lower() for each in names()}:
        return ""
    return f"{name} is not known as a name of this host: `weave launch-proxy --allow-host {name}` makes it one"


def own_names(further: Iterable[str] = ()) -> frozenset[str]:
    """This host's names, as far as it knows, and ``further`` ones. May ask the DNS."""
    return frozenset([socket.gethostname(), socket.getfqdn(), *further])


def _is_plain(name: str) -> bool:
    # Nobody can have a name without a dot registered, and make it point here.
    return "." not in name or name.endswith(".localhost") or _is_address(name)


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


@functools.lru_cache(1024)
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
