"""Keeps web pages from calling Docker through a visitor's browser."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from weavemw.errors import Forbidden
from weavemw.transport.origin import BROWSERS_SAY, is_address, is_origin, other_page, strange_name

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["OriginGuard", "objection"]


class OriginGuard:
    """Refuses what a browser was made to send; raises :class:`~weavemw.errors.Forbidden`.

    What that is, :mod:`weavemw.transport.origin` says. ``Host`` must be an address,
    one of ``names()`` or, where no browser asks, a name without a dot; with ``None``
    for ``names``, anything: a certificate settles it on listeners with TLS. Pages of
    the origins ``allowed`` may call, and clients that say they were such.

    Only TCP is looked at: no browser reaches a unix socket, and old clients
    write all sorts of things into ``Host`` there.
    """

    def __init__(self, app: WSGIApplication, *, names: Callable[[], Collection[str]] | None = None,
                 allowed: Iterable[str] = ()) -> None:
        self.app = app
        self._names = names
        self._allowed = frozenset(map(str.lower, allowed))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_address(environ.get("REMOTE_ADDR", "")) and (why := objection(environ, self._names, self._allowed)):
            raise Forbidden(why)
        return self.app(environ, start_response)


def objection(environ: WSGIEnvironment, names: Callable[[], Collection[str]] | None,
              allowed: Collection[str] = ()) -> str:
    """Why a request must not be served, empty if it may be. ``names`` is asked only if it matters."""
    host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
    if header := other_page(host, origin, environ.get("HTTP_SEC_FETCH_SITE"), allowed):
        may = f"; `weave launch-proxy --allow-origin {origin}` lets it" if origin and is_origin(origin) else ""
        return f"web pages may not call Docker ({header}){may}"
    name = strange_name(host, names, strict=_is_browsers(environ)) if names else ""
    return f"{name} is not known as a name of this host: `weave launch-proxy --allow-host {name}` makes it one" \
        if name else ""


def _is_browsers(environ: WSGIEnvironment) -> bool:
    return any(f"HTTP_{header.upper().replace('-', '_')}" in environ for header in BROWSERS_SAY)
