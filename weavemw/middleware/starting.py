"""Which requests start a container that is to be attached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weavemw.attaching.decision import Attach
from weavemw.context import DECISION
from weavemw.dockerapi import routes
from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["container_of", "to_attach"]

_STARTS = ("container_start", "container_restart")


def to_attach(environ: WSGIEnvironment) -> Attach | None:
    """The decision to attach the container that this request starts or restarts; ``None`` for any other request."""
    decision = environ.get(DECISION)
    if decision is None:
        return None
    call = routes.call_of(environ)
    starts = call is not None and call.name in _STARTS
    return decision if starts and isinstance(decision, Attach) else None


def container_of(environ: WSGIEnvironment, decision: Attach, docker: Docker) -> Container:
    """The container that is started: as it was when that was decided, or as the daemon shows it now."""
    call = routes.call_of(environ)
    return decision.container or docker.inspect(call.container if call else "")
