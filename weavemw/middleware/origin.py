"""Keeps web pages from calling Docker through a visitor's browser."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from weavemw.errors import Forbidden
from weavemw.transport.origin import is_address, other_page, strange_name

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["OriginGuard", "objection"]


class OriginGuard:
    """Refuses what a browser was made to send; raises :class:`~weavemw.errors.Forbidden`.

    What that is, :mod:`weavemw.transport.origin` says. ``Host`` must be an address,
    one of ``names()`` or, where no page asks (without ``Origin``), a name without a
    dot; with ``None`` for ``names``, anything: a certificate settles it on
    listeners with TLS.

    Only TCP is looked at: no browser reaches a unix socket, and old clients
    write all sorts of things into ``Host`` there.
    """

    def __init__(self, app: WSGIApplication, *, names: Callable[[], Collection[str]] | None = None) -> None:
        self.app = app
        self._names = names

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_address(environ.get("REMOTE_ADDR", "")) and (why := objection(environ, self._names)):
            raise Forbidden(why)
        return self.app(environ, start_response)


def objection(environ: WSGIEnvironment, names: Callable[[], Collection[str]] | None) -> str:
    """Why a request must not be served, empty if it may be. ``names`` is asked only if it matters."""
    host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
    if header := other_page(host, origin, environ.get("HTTP_SEC_FETCH_SITE")):
        return f"web pages may not call Docker ({header})"
    name = strange_name(host, names, strict=origin is not None) if names else ""
    return f"{name} is not known as a name of this host: `weave launch-proxy --allow-host {name}` makes it one" \
        if name else ""
