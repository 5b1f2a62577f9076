"""Tells who creates a container what to expect of its network: by the ``Warnings`` that every Docker client shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from ipaddress import ip_network
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, TypeVar

from weavemw import context
from weavemw.attaching import advice
from weavemw.attaching.allocation import owner_of
from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.attaching.policy import is_built_in
from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config, network_mode
from weavemw.dockerapi.payload import body_of, encode, parse
from weavemw.errors import DockerError, InvalidCidr, WeaveError
from weavemw.middleware.captured import Captured, capture
from weavemw.network.addresses import Claim, Default, Interface, Wanted

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.client import Docker
    from weavemw.router.client import Router

__all__ = ["CreateAdviser"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class CreateAdviser:
    """Adds to the ``Warnings`` of what create answers (201), each beginning with "weave: ".

    They are of a container that is left alone though nobody asked for that, and
    of addresses that will not do what they seem to. What can't be found out is
    not said.

    Raises :class:`~weavemw.errors.InvalidCidr` for what no start will get, whoever
    holds which address; an address that is held is to be had when its holder ends.

    Whoever asks the router takes one of ``places``, those of :class:`~weavemw.middleware.ipam.IpamClient`; where
    none is free, nothing is asked.
    """

    def __init__(self, app: WSGIApplication, *, docker: Docker, router: Router,
                 places: BoundedSemaphore | None = None) -> None:
        self.app = app
        self.docker = docker
        self.router = router
        self._places = places or BoundedSemaphore(1000)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call, decision = routes.call_of(environ), environ.get(context.DECISION)
        if call is None or call.name != "container_create" or decision is None:
            return self.app(environ, start_response)
        if isinstance(decision, Attach):
            self._refuse(decision)
        warnings = [f"weave: {each}" for each in self._warnings(environ, decision)]
        if not warnings:
            return self.app(environ, start_response)
        return with_warnings(capture(self.app, environ), warnings).send(start_response)

    def _refuse(self, decision: Attach) -> None:
        for one in (one for one in decision.wanted if not isinstance(one, Default)):
            for why in self._found(self._objection, one):
                raise InvalidCidr(str(one).removeprefix("ip:"), f"{why}; choose another")

    def _objection(self, wanted: Wanted) -> Iterator[str]:
        if why := self.router.objection(wanted):
            yield why

    def _warnings(self, environ: WSGIEnvironment, decision: Attach | LeaveAlone) -> Iterator[str]:
        document = body_of(environ).document
        yield from advice.misspelled(document.strings("Env") or () if document else ())
        if isinstance(decision, Attach):
            mode = network_mode(host_config(document)) if document else ""
            yield from self._found(self._in_the_way, mode) if mode and not is_built_in(mode) else ()
        if isinstance(decision, LeaveAlone):
            if decision.is_surprising:
                yield f"the container is not on the weave network, because {decision.reason}"
            return
        wanted = [one for one in decision.wanted if not isinstance(one, Default)]
        for find in (self._narrow, self._overlapping, self._held) if wanted else ():
            yield from self._found(find, wanted)

    def _in_the_way(self, mode: str) -> Iterator[str]:
        """Of the network of Docker's that the container will be on; the watcher tells of the others."""
        subnets = self.router.default_subnet(), self.router.default_subnet6()
        networks = self.docker.all_networks()
        own = [one for one in networks if one.name == mode] or [one for one in networks if one.id.startswith(mode)]
        yield from advice.in_the_way(own, [ip_network(subnet) for subnet in subnets if subnet])

    def _narrow(self, wanted: Sequence[Wanted]) -> Iterator[str]:
        if default := self.router.default_subnet():
            yield from advice.narrow(wanted, ip_network(default))

    def _overlapping(self, wanted: Sequence[Wanted]) -> Iterator[str]:
        yield from advice.overlapping(wanted, self.docker.bridge_subnets())

    def _held(self, wanted: Sequence[Wanted]) -> Iterator[str]:
        """By a running container; that is no reason to refuse: who replaces one creates the new one before it stops."""
        for claim in (one for one in wanted if isinstance(one, Claim)):
            if name := self._holder(claim.interface):
                yield f"{claim.interface.ip} is held by {name}, which runs: stop it before you start this container"

    def _found(self, find: Callable[[T], Iterator[str]], what: T) -> list[str]:
        """What there is to say; nothing if it can't be found out, or too many are asking."""
        if not self._places.acquire(blocking=False):
            return []
        try:
            return list(find(what))
        except (WeaveError, ValueError) as error:
            _log.info("a create may lack a warning: %s", error)
            return []
        finally:
            self._places.release()

    def _holder(self, address: Interface) -> str:
        owner = owner_of(self.router, address)
        try:
            container = self.docker.inspect(owner) if owner else None
        except DockerError:
            return ""
        return container.name if container and container.running else ""


def with_warnings(reply: Captured, warnings: list[str]) -> Captured:
    """A create's answer with these warnings after Docker's own; any other answer as it is."""
    document, rest = parse(reply.body) if reply.code == HTTPStatus.CREATED else (None, b"")
    if document is None:
        return reply
    document.set("Warnings", [*(document.strings("Warnings") or ()), *warnings])
    return reply.with_body(encode(document) + rest)
