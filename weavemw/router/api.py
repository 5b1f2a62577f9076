"""The router's HTTP API, as a Weave Net router 2.8 answers it.

Bodies are text/plain unless they are JSON. What is malformed gets 400 and the
reason. Who may call it, :mod:`weavemw.router.listening` says: it has no password.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from weavemw.errors import BadRequest, WeaveError
from weavemw.network.addresses import parse_one
from weavemw.ops.tally import Tally
from weavemw.router.allocator import parse_address, parse_interface, parse_subnet
from weavemw.router.client import Interface
from weavemw.router.metrics import API_REQUESTS
from weavemw.router.network_status import connections_text, ipam_text, peers_text, targets_text
from weavemw.router.service import DnsFacts, RouterService
from weavemw.router.status import columns, formatted, overview
from weavemw.router.store import Network

__all__ = ["make_app"]

_PATIENCE = 300.0  # seconds that `weave prime` waits
_OWNER = re.compile(r"[!-$&-~]{1,255}")  # printable, but no "%": what was no UTF-8 comes here still quoted

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(service: RouterService, *middlewares: Middleware) -> web.Application:
    """The API of a router as an aiohttp application; what the middlewares refuse is counted too."""
    app = web.Application(client_max_size=65536, middlewares=[_counting(service.tally), *middlewares])
    for method, path, handler in _routes(service):
        app.router.add_route(method, path, _answering(handler))
    return app


def _routes(service: RouterService) -> list[tuple[str, str, Handler]]:
    addresses, names, router = _Addresses(service), _Names(service), _Router(service)
    one, subnet = "/ip/{id}/{address}", "/ip/{id}/{address}/{prefix}"
    return [
        ("GET", "/ipinfo/defaultsubnet", addresses.default_subnet),
        ("GET", "/ipinfo/defaultsubnet6", addresses.default_subnet6),
        ("GET", "/ipinfo/objection", addresses.objection),
        ("GET", "/ip", addresses.owned),
        ("POST", "/ip/{id}", addresses.allocate),
        ("POST", subnet, addresses.allocate),
        ("PUT", subnet, addresses.claim),
        ("GET", "/ip/{id}", addresses.held),
        ("GET", subnet, addresses.held),
        ("DELETE", one, addresses.free),
        ("DELETE", "/ip/{id}", addresses.free),
        ("GET", "/domain", names.domain),
        ("GET", "/dns-address", names.dns_address),
        ("GET", "/dns-address-port", names.dns_address_port),
        ("GET", "/name", names.all),
        ("PUT", "/name/{id}/{address}", names.add),
        ("DELETE", "/name/{id}/{address}", names.remove),
        ("DELETE", "/name/{id}", names.remove),
        ("DELETE", "/name", names.remove),
        ("POST", "/connect", router.connect),
        ("POST", "/forget", router.forget),
        ("DELETE", "/peer/{id}", router.remove_peer),
        ("GET", "/ring", router.ring),
        ("GET", "/status", router.status),
        ("GET", "/status/targets", router.targets),
        ("GET", "/status/connections", router.connections),
        ("GET", "/status/peers", router.peers),
        ("GET", "/status/dns", router.dns),
        ("GET", "/status/ipam", router.ipam),
        ("GET", "/report", router.report),
        ("GET", "/health", router.health),
        ("GET", "/metrics", router.metrics),
    ]


def _counting(tally: Tally) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource, status = request.match_info.route.resource, 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            method, path = (request.method, resource.canonical) if resource else ("other", "other")
            tally.add(API_REQUESTS, (method, path, str(status)))

    return count


def _answering(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except WeaveError as error:
            return web.Response(status=error.status, text=error.message + "\n")

    return answer


class _Addresses:
    """``/ip`` and ``/ipinfo``."""

    def __init__(self, service: RouterService) -> None:
        self._service = service

    async def default_subnet(self, request: web.Request) -> web.Response:
        return web.Response(text=str(self._service.allocator.default_subnet))

    async def default_subnet6(self, request: web.Request) -> web.Response:
        subnet = self._service.allocator.range6
        return web.Response(text=str(subnet)) if subnet else web.Response(status=404, text="no range of IPv6\n")

    async def objection(self, request: web.Request) -> web.Response:
        # The call is ours: a Weave Net router has none of it.
        return web.Response(text=await self._service.objection_to(parse_one(request.query.get("wanted", ""))))

    async def allocate(self, request: web.Request) -> web.Response:
        owner, subnet = _owner(request), _subnet(request)
        if _flag(request, "check-alive") and not await self._service.is_running(owner):
            return web.Response(text="cancelled")
        return web.Response(text=str(await self._service.allocate(owner, subnet)))

    async def claim(self, request: web.Request) -> web.Response:
        owner, interface = _owner(request), _interface(request)
        if _flag(request, "check-alive") and not await self._service.is_running(owner):
            return web.Response(text="cancelled")
        await self._service.claim(owner, interface)
        return web.Response(status=204)

    async def held(self, request: web.Request) -> web.Response:
        interfaces = await self._service.held(_owner(request), _subnet(request))
        return web.Response(text=" ".join(map(str, interfaces)))

    async def owned(self, request: web.Request) -> web.Response:
        # "containerid" is ours: a Weave Net router ignores it, and answers with all.
        rows = [{"containerid": owner, "addrs": [str(interface) for interface in interfaces]}
                for owner, interfaces in (await self._service.owned(request.query.get("containerid"))).items()]
        return web.json_response({"owned": rows})

    async def free(self, request: web.Request) -> web.Response:
        address = request.match_info.get("address")
        await self._service.free(_owner(request), parse_address(address) if address else None)
        return web.Response(status=204)


class _Names:
    """``/name``, ``/domain`` and ``/dns-address``."""

    def __init__(self, service: RouterService) -> None:
        self._service = service

    async def domain(self, request: web.Request) -> web.Response:
        return web.Response(text=self._service.names.zone.domain)

    async def dns_address(self, request: web.Request) -> web.Response:
        # "network" is ours: a Weave Net router ignores it.
        on_bridge = request.query.get("network") == "weave"
        return _dns_answer(self._service.dns(), lambda facts: str((on_bridge and facts.on_bridge) or facts.address))

    async def dns_address_port(self, request: web.Request) -> web.Response:
        return _dns_answer(self._service.dns(), lambda facts: host_port(str(facts.address), facts.port))

    async def all(self, request: web.Request) -> web.Response:
        records = self._service.names.records()
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response([self._service.entry(record) for record in records])
        return web.Response(text=_name_table(self._service))

    async def add(self, request: web.Request) -> web.Response:
        owner, address = _owner(request), parse_address(request.match_info["address"])
        form = await _form(request)
        fqdn = (form.get("fqdn") or [""])[0]
        if not fqdn:
            raise BadRequest("fqdn is missing")
        checked = form.get("check-alive") == ["true"]
        if checked and not await self._service.is_running(owner):
            await self._service.remove_names(owner, address, fqdn)
        else:
            await self._service.add_name(owner, address, fqdn)
        return web.Response(status=204)

    async def remove(self, request: web.Request) -> web.Response:
        owner = _owner(request) if "id" in request.match_info else None
        address = request.match_info.get("address")
        await self._service.remove_names(owner, parse_address(address) if address else None, request.query.get("fqdn"))
        return web.Response(status=204)


class _Router:
    """Peers and status. This router has no peers: it serves a single host, and says so."""

    def __init__(self, service: RouterService) -> None:
        self._service = service

    async def connect(self, request: web.Request) -> web.Response:
        form = await _form(request)
        if form.get("replace") == ["true"]:
            self._service.targets.clear()
        self._service.targets.update(dict.fromkeys(form.get("peer", [])))
        return web.Response(text="")

    async def forget(self, request: web.Request) -> web.Response:
        for peer in (await _form(request)).get("peer", []):
            self._service.targets.pop(peer, None)
        return web.Response(text="")

    async def remove_peer(self, request: web.Request) -> web.Response:
        taken, peer = 0, request.match_info["id"]
        if self._service.shared:
            taken = await self._service.shared.remove(peer, force=_flag(request, "force"))
        return web.Response(text=f"{taken} IPs taken over from {peer}\n")

    async def ring(self, request: web.Request) -> web.Response:
        """Wait until there are addresses to give. A router that serves a single host has no ring."""
        shared = self._service.shared
        if shared is None:
            return web.Response(status=404, text="this router serves a single host\n")
        if not await shared.ready(_PATIENCE):
            return web.Response(status=503, text=f"no block of addresses yet: {shared.why}\n")
        return web.Response(text=f"{len(shared.book.blocks())} blocks\n")

    async def status(self, request: web.Request) -> web.Response:
        return web.Response(text=overview(await self._service.report()))

    async def targets(self, request: web.Request) -> web.Response:
        if self._service.shared:
            return web.Response(text=targets_text(await self._network()))
        return web.Response(text="".join(f"{target}\n" for target in self._service.targets))

    async def _network(self) -> dict[str, Any]:
        router: dict[str, Any] = (await self._service.report())["Router"]
        return router

    async def connections(self, request: web.Request) -> web.Response:
        if self._service.shared:
            return web.Response(text=connections_text(await self._network()))
        return web.Response(text="".join(f"-> {target} failed (this router serves a single host)\n"
                                         for target in self._service.targets))

    async def peers(self, request: web.Request) -> web.Response:
        if self._service.shared:
            return web.Response(text=peers_text(await self._network()))
        return web.Response(text=f"{self._service.peer}({self._service.nickname})\n")

    async def dns(self, request: web.Request) -> web.Response:
        return web.Response(text=_name_table(self._service))

    async def ipam(self, request: web.Request) -> web.Response:
        report = await self._service.report()
        ipam = report["IPAM"]
        if self._service.shared:
            return web.Response(text=ipam_text(report["Router"], ipam))
        who = f"{self._service.peer}({self._service.nickname})"
        return web.Response(text=f"{who} {ipam['RangeNumIPs']} IPs (100.0% of total) ({ipam['InUse']} active)\n")

    async def report(self, request: web.Request) -> web.Response:
        report, template = await self._service.report(), request.query.get("format")
        return web.Response(text=formatted(report, template)) if template else web.json_response(report)

    async def health(self, request: web.Request) -> web.Response:
        # Ours: a Weave Net router has no such call.
        problems = await self._service.health()
        return web.Response(status=503 if problems else 200, text="; ".join(problems) or "healthy")

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._service.metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def host_port(host: str, port: int) -> str:
    """Host and port as one text, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name_table(service: RouterService) -> str:
    suffix = "." + service.names.zone.domain.lower()
    records = [(service.peer, record) for record in service.names.records()]
    records += [(peer, record) for peer, each in service.names.remote().items() for record in each]
    return columns((record.fqdn.lower().removesuffix(suffix), record.address, record.owner[:12], peer)
                   for peer, record in sorted(records, key=lambda each: (each[1].fqdn.lower(), each[1].owner)))


def _dns_answer(facts: DnsFacts | None, text: Callable[[DnsFacts], str]) -> web.Response:
    if facts is None:
        return web.Response(status=404, text="DNS is off\n")
    if facts.address is None:
        return web.Response(status=404, text="no address for DNS yet: there is neither Docker's bridge nor ours\n")
    return web.Response(text=text(facts))


def _owner(request: web.Request) -> str:
    owner = request.match_info["id"]
    if not _OWNER.fullmatch(owner):
        raise BadRequest(f"invalid container identifier: {owner[:255]!a}")
    return owner


def _cidr(request: web.Request) -> str:
    return f"{request.match_info['address']}/{request.match_info['prefix']}"


def _subnet(request: web.Request) -> Network | None:
    return parse_subnet(_cidr(request)) if "address" in request.match_info else None


def _interface(request: web.Request) -> Interface:
    return parse_interface(_cidr(request))


def _flag(request: web.Request, name: str) -> bool:
    return bool(request.query_string) and request.query.get(name) == "true"


async def _form(request: web.Request) -> dict[str, list[str]]:
    """The fields of the query and of the body, as Go's FormValue finds them: the body's first."""
    try:
        body: Any = await request.post()
    except (ValueError, LookupError) as error:
        raise BadRequest(f"malformed form: {error}") from error
    fields = [(name, value) for source in (body, request.query) for name, value in source.items()]
    form: dict[str, list[str]] = {}
    for name, value in fields:
        if isinstance(value, str):
            form.setdefault(name, []).append(value)
    return form
