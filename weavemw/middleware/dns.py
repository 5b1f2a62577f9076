"""Lets containers resolve names by weaveDNS, and be found by theirs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from weavemw import context
from weavemw.attaching import hostnames
from weavemw.attaching.decision import Attach
from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config, set_host_config
from weavemw.dockerapi.payload import Object, body_of
from weavemw.dockerapi.wait_mount import with_name
from weavemw.errors import RouterError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.container import Container
    from weavemw.router.client import Router

__all__ = ["DnsInjector"]

_log = logging.getLogger(__name__)

#: The hostname that Docker gives where none is asked for: the container's short id. Who makes a container anew from
#: inspect, as Watchtower does, asks for that of another one.
_DOCKERS_OWN = "[0-9a-f]{12}"


class DnsInjector:
    """:data:`weavemw.context.NAMES` on start and restart; on create, it is kept that a hostname is to be made.

    ``with_dns``: ``None`` uses weaveDNS where it runs, ``False`` never, ``True``
    raises :class:`~weavemw.errors.RouterError` where it does not. A container
    created with a name and without a hostname has one in the DNS domain while it
    runs: that of the label ``hostname_from_label``, else of its name, after each
    match of the regular expression ``hostname_match`` was replaced by
    ``hostname_replacement``. Nothing about DNS is set at create: hostname and
    resolver are given at each start, see :class:`~weavemw.attaching.attachment.Attachment`.
    """

    def __init__(self, app: WSGIApplication, *, router: Router, with_dns: bool | None = None,
                 hostname_from_label: str = "", hostname_match: str = "(.*)", hostname_replacement: str = "$1") -> None:
        self.app = app
        self.router = router
        self.with_dns = with_dns
        self.naming = hostnames.Naming(hostname_from_label, hostname_match, hostname_replacement)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call, decision = routes.call_of(environ), environ.get(context.DECISION)
        if call and isinstance(decision, Attach):
            if decision.container:
                self._on_start(environ, decision.container)
            else:
                self._on_create(environ)
        return self.app(environ, start_response)

    def _domain(self) -> str:
        """The DNS domain; empty if there is to be no DNS."""
        if self.with_dns is False:
            return ""
        try:
            if self.router.dns_address():
                return self.router.domain()
        except RouterError as error:
            if self.with_dns:
                raise
            _log.warning("going on without weaveDNS: %s", error)
            return ""
        if self.with_dns:
            raise RouterError("--with-dns is set, but the weave router serves no DNS")
        return ""

    def _on_start(self, environ: WSGIEnvironment, container: Container) -> None:
        if self.with_dns:
            self._domain()
        if self.with_dns is not False:
            environ[context.NAMES] = self._names
        if container.is_named:
            _mark(environ)  # before API 1.24 a HostConfig in the body takes the place of that of create

    def _on_create(self, environ: WSGIEnvironment) -> None:
        if self.with_dns:
            self._domain()
        document = body_of(environ).document
        if document and routes.query_of(environ).get("name") and not _says_hostname(document):
            _mark(environ)

    def _names(self, container: Container) -> tuple[str, ...]:
        """Asked when the container has its addresses: who waits for the router waits there, where few may."""
        domain = self._domain()
        if not domain:
            return ()
        for name in hostnames.names_left_out(container, domain, self.naming):
            _log.warning("container %s (%s) can't be found by the name %r: DNS holds no such names",
                         container.short_id, container.name, name)
        return hostnames.names_for(container, domain, self.naming)


def _says_hostname(document: Object) -> bool:
    """Whether a create says anything about the hostname, which is the host's with ``--uts=host``."""
    host, hostname = host_config(document), document.string("Hostname")
    return bool((hostname and not re.fullmatch(_DOCKERS_OWN, hostname)) or document.string("Domainname")
                or (host and host.string("UTSMode") == "host"))


def _mark(environ: WSGIEnvironment) -> None:
    """Let the mount of the wait program say that the container has a name of its own."""
    body = body_of(environ)
    host = host_config(body.document) if body.document else None
    binds = (host.strings("Binds") if host else None) or []
    marked = with_name(binds)
    if body.document and host and marked != list(binds):
        host.set("Binds", marked)
        set_host_config(body.document, host)
        body.store(environ)
