"""Shows the weave network in ``docker inspect`` (``--rewrite-inspect``)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from weavemw.dockerapi import routes
from weavemw.dockerapi.container import Container
from weavemw.dockerapi.payload import Object, encode, parse
from weavemw.errors import RouterError
from weavemw.middleware.captured import capture

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.router.client import Interface, Router

__all__ = ["InspectRewriter"]

_log = logging.getLogger(__name__)


class InspectRewriter:
    """Adds the weave addresses to what inspect answers (200 only) about an attached container.

    They show as a network ``weave`` in ``NetworkSettings.Networks``; and in the old
    fields beside it (``IPAddress``, ``IPPrefixLen``, ``MacAddress``,
    ``SecondaryIPAddresses``, their IPv6 kin) where the daemon's reply has them
    (API below 1.52). ``mac_of`` tells the MAC of a container's ``ethwe``, empty if unknown.
    """

    def __init__(self, app: WSGIApplication, *, router: Router,
                 mac_of: Callable[[Container], str] = lambda container: "") -> None:
        self.app = app
        self.router = router
        self.mac_of = mac_of

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = routes.call_of(environ)
        if call is None or call.name not in ("container_inspect", "exec_inspect"):
            return self.app(environ, start_response)
        reply = capture(self.app, environ)
        if reply.is_plain_json:
            reply = reply.with_body(self._rewritten(reply.body, call.name == "exec_inspect"))
        return reply.send(start_response)

    def _rewritten(self, body: bytes, of_exec: bool) -> bytes:
        document, rest = parse(body)
        inner = document.child("Container") if document and of_exec else document
        if document is None or inner is None or not self._add_weave(inner):
            return body
        if of_exec:
            document.set("Container", inner)
        return encode(document) + rest

    def _add_weave(self, document: Object) -> bool:
        container = Container.from_inspect({"Id": "", **json.loads(encode(document))})
        settings = document.child("NetworkSettings")
        addresses = self._addresses(container) if container.is_ours and container.running and settings else ()
        if not addresses or settings is None:
            return False
        show(settings, addresses, self.mac_of(container))
        document.set("NetworkSettings", settings)
        return True

    def _addresses(self, container: Container) -> tuple[Interface, ...]:
        try:
            return self.router.addresses(container.id)
        except RouterError as error:
            _log.warning("inspect shows no weave addresses: %s", error)
            return ()


def show(settings: Object, addresses: tuple[Interface, ...], mac: str) -> None:
    """Write addresses and MAC into a reply's ``NetworkSettings``."""
    fields = address_fields(addresses) | {"MacAddress": mac}
    for name, value in fields.items():
        if settings.has(name) and value:
            settings.set(name, value)
    networks = settings.child("Networks") or Object()
    others = [pair for pair in networks.pairs if pair[0] != "weave"]
    settings.set("Networks", Object([*others, ("weave", _ENDPOINT | fields)]))


def address_fields(addresses: tuple[Interface, ...]) -> dict[str, object]:
    """Addresses as Docker spells them: one of each family, the others as secondary ones."""
    v4 = [one for one in addresses if one.version == 4]
    v6 = [one for one in addresses if one.version == 6]
    fields: dict[str, object] = {"IPAddress": "", "IPPrefixLen": 0, "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0}
    if v4:
        fields |= {"IPAddress": str(v4[0].ip), "IPPrefixLen": v4[0].network.prefixlen}
    if v6:
        fields |= {"GlobalIPv6Address": str(v6[0].ip), "GlobalIPv6PrefixLen": v6[0].network.prefixlen}
    return fields | {"SecondaryIPAddresses": _secondary(v4), "SecondaryIPv6Addresses": _secondary(v6)}


def _secondary(addresses: list[Any]) -> list[dict[str, object]] | None:
    return [{"Addr": str(one.ip), "PrefixLen": one.network.prefixlen} for one in addresses[1:]] or None


_ENDPOINT: dict[str, object] = {"IPAMConfig": None, "Links": None, "Aliases": None, "NetworkID": "", "EndpointID": "",
                                "Gateway": "", "IPv6Gateway": "", "DriverOpts": None}
