"""Lets containers resolve names by weaveDNS, and be found by theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from weavemw import context
from weavemw.attaching import hostnames
from weavemw.attaching.decision import Attach
from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config, network_mode, set_host_config
from weavemw.dockerapi.payload import Object, body_of
from weavemw.errors import RouterError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.container import Container
    from weavemw.dockerapi.routes import Call
    from weavemw.router.client import Router

__all__ = ["DnsInjector"]

_log = logging.getLogger(__name__)


class DnsInjector:
    """Resolver, search list and hostname on create; :data:`weavemw.context.NAMES` on start and restart.

    ``with_dns``: ``None`` uses weaveDNS where it runs, ``False`` never, ``True``
    raises :class:`~weavemw.errors.RouterError` where it does not. A create
    without hostname gets one in the DNS domain: that of the label
    ``hostname_from_label``, else of ``--name``, after each match of the regular
    expression ``hostname_match`` was replaced by ``hostname_replacement``. It
    follows the container's name, at each start and rename.
    """

    def __init__(self, app: WSGIApplication, *, router: Router, with_dns: bool | None = None,
                 hostname_from_label: str = "", hostname_match: str = "(.*)", hostname_replacement: str = "$1") -> None:
        self.app = app
        self.router = router
        self.with_dns = with_dns
        self.naming = hostnames.Naming(hostname_from_label, hostname_match, hostname_replacement)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call, decision = routes.call_of(environ), environ.get(context.DECISION)
        if call and isinstance(decision, Attach) and (dns := self._dns(_network(environ, decision))):
            self._inject(environ, call, decision, *dns)
        return self.app(environ, start_response)

    def _dns(self, network: str) -> tuple[str, str] | None:
        """The server's address as the container reaches it, and the domain; ``None`` if there is to be no DNS."""
        if self.with_dns is False:
            return None
        try:
            address = self.router.dns_address(network)
            if address:
                return address, self.router.domain()
        except RouterError as error:
            if self.with_dns:
                raise
            _log.warning("going on without weaveDNS: %s", error)
            return None
        if self.with_dns:
            raise RouterError("--with-dns is set, but the weave router serves no DNS")
        return None

    def _inject(self, environ: WSGIEnvironment, call: Call, decision: Attach, address: str,
                domain: str) -> None:
        if decision.container:
            environ[context.NAMES] = partial(self._names, domain=domain)
            if call.name == "container_start" and call.is_older_than("1.24"):
                self._on_old_start(environ, decision.container.hostname, address, domain)
        else:
            self._on_create(environ, decision, address, domain)

    def _names(self, container: Container, domain: str) -> tuple[str, ...]:
        for name in hostnames.names_left_out(container, domain, self.naming):
            _log.warning("container %s (%s) can't be found by the name %r: DNS holds no such names",
                         container.short_id, container.name, name)
        return hostnames.names_for(container, domain, self.naming)

    def _on_create(self, environ: WSGIEnvironment, decision: Attach, address: str, domain: str) -> None:
        body = body_of(environ)
        if body.document is None:
            return
        host = host_config(body.document) or Object(path="HostConfig.")
        if host.string("UTSMode") != "host":
            self._give_hostname(body.document, self._derived(environ, body.document, decision), domain)
        use_resolver(host, address, hostnames.search_domains(body.document.string("Hostname"), domain))
        set_host_config(body.document, host)
        body.store(environ)

    def _on_old_start(self, environ: WSGIEnvironment, hostname: str, address: str, domain: str) -> None:
        body = body_of(environ)
        host = host_config(body.document) if body.document else None
        if body.document and host:
            use_resolver(host, address, hostnames.search_domains(hostname, domain))
            set_host_config(body.document, host)
            body.store(environ)

    def _derived(self, environ: WSGIEnvironment, document: Object, decision: Attach) -> str:
        name = routes.query_of(environ).get("name", "").lstrip("/")
        return self.naming.derived(name, {**_labels(decision.image.get("Labels")), **document.labels("Labels")})

    def _give_hostname(self, document: Object, hostname: str, domain: str) -> None:
        given, given_domain = document.string("Hostname"), document.string("Domainname")
        if given and given != hostname and given_domain.lower() == hostnames.folded(domain):
            document.set("Domainname", f"{given_domain}.")  # by which it is told from ours: see hostnames.is_derived
        if given or given_domain or not hostname:
            return
        if not hostnames.fits_as_hostname(hostname, domain):
            _log.info('"%s" does not fit as a hostname in %s: the container gets none', hostname, domain)
        else:
            document.set("Hostname", hostname)
            document.set("Domainname", hostnames.folded(domain))


def use_resolver(host: Object, address: str, search: list[str]) -> None:
    """Put our server first, and a search list where there is none."""
    host.set("Dns", [address, *(server for server in host.strings("Dns") or () if server != address)])
    if not host.strings("DnsSearch"):
        host.set("DnsSearch", search)


def _network(environ: WSGIEnvironment, decision: Attach) -> str:
    """The network by which the container reaches the server: Docker's, unless the weave network is its only one."""
    if decision.container:
        mode = decision.container.network_mode
    else:
        document = body_of(environ).document
        mode = network_mode(host_config(document) if document else None)
    return "weave" if mode == "none" else ""


def _labels(value: object) -> dict[str, str]:
    return dict(value) if isinstance(value, dict) else {}
