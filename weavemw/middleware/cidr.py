"""Decides for each container whether it is to be on the weave network, and with which addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from weavemw import context
from weavemw.attaching.decision import Attach, Decision, LeaveAlone
from weavemw.attaching.policy import promised_to, shared_network, unsuitable_network, wanted_by
from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config, merged_env, network_mode
from weavemw.dockerapi.payload import Object, body_of
from weavemw.errors import BadRequest, DockerError
from weavemw.network.addresses import value_in
from weavemw.ops import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.client import Docker
    from weavemw.dockerapi.container import Container
    from weavemw.dockerapi.routes import Call

__all__ = ["CidrParser"]

_log = logs.summed(__name__)


class CidrParser:
    """Leaves :data:`weavemw.context.DECISION` in ``environ`` for create, start and restart.

    On create the request's and the image's ``WEAVE_CIDR`` and the network mode
    decide. That decision is kept by the container itself, whose entrypoint is
    wrapped; on start it is read back, whatever the settings are by then.

    No decision is left where the daemon is to give its own answer: a body that
    is no object, one with neither image nor command, an unknown container. ``default_ipalloc`` decides about containers
    without ``WEAVE_CIDR``. Raises :class:`~weavemw.errors.InvalidCidr`,
    :class:`~weavemw.errors.BadRequest` for fields of a wrong type, and
    :class:`~weavemw.errors.DockerError` (404) for a missing image.
    """

    def __init__(self, app: WSGIApplication, *, docker: Docker, default_ipalloc: bool = True) -> None:
        self.app = app
        self.docker = docker
        self.default_ipalloc = default_ipalloc

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = self._decision(environ)
        if decision is not None:
            environ[context.DECISION] = decision
        return self.app(environ, start_response)

    def _decision(self, environ: WSGIEnvironment) -> Decision | None:
        call = routes.call_of(environ)
        if call is None:
            return None
        if call.name == "container_create":
            return self._on_create(environ)
        if call.name in ("container_start", "container_restart"):
            return self._on_start(environ, call)
        return None

    def _on_create(self, environ: WSGIEnvironment) -> Decision | None:
        document = body_of(environ).document
        if document is None or not _has_something_to_run(document):
            return None
        decision = self._judge(document)
        if isinstance(decision, LeaveAlone):
            name = routes.query_of(environ).get("name", "")
            _log.info("leaving container %salone because %s", f"{name} " if name else "", decision.reason)
        return decision

    def _judge(self, document: Object) -> Decision:
        mode = network_mode(host_config(document))
        reason = shared_network(mode)
        if reason:
            return LeaveAlone(reason)
        env = document.strings("Env") or ()
        if value_in(env) is not None and isinstance(wanted := wanted_by(env), LeaveAlone):
            return wanted  # whatever the image says
        name = document.string("Image")
        image = self._image(name) if name else {}
        wanted = wanted_by(merged_env(env, _strings(image.get("Env"))), default_ipalloc=self.default_ipalloc)
        if isinstance(wanted, LeaveAlone):
            return wanted
        reason = unsuitable_network(self.docker, mode)
        return LeaveAlone(reason, is_surprising=True) if reason else Attach(wanted, image=image)

    def _image(self, name: str) -> dict[str, Any]:
        try:
            return self.docker.image_config(name)
        except DockerError as error:
            raise _as_create_says(error) from error

    def _on_start(self, environ: WSGIEnvironment, call: Call) -> Decision | None:
        try:
            container = self.docker.inspect(call.container)
        except DockerError as error:
            if error.status < 500:
                return None
            raise
        if not container.is_ours:
            return LeaveAlone("it was not created to be attached")
        if call.name == "container_start" and call.is_older_than("1.24"):
            self._refuse_other_network(environ, container)
        return Attach(promised_to(container), container=container)

    def _refuse_other_network(self, environ: WSGIEnvironment, container: Container) -> None:
        document = body_of(environ).document
        mode = network_mode(host_config(document) if document else None)
        reason = shared_network(mode) or unsuitable_network(self.docker, mode)
        if reason:
            raise BadRequest(f"container {container.name} was created to be attached to the weave network, "
                             f"and can't be: {reason}")


def _has_something_to_run(document: Object) -> bool:
    """Whether there may be; else the daemon refuses. Up to Engine 20.10 a root needs no image: binds can fill it."""
    return bool(document.string("Image") or document.command("Entrypoint") or document.command("Cmd"))


def _as_create_says(error: DockerError) -> DockerError:
    """An image's inspect error in the words of create, by which clients know that they are to pull."""
    match = re.search(r"No such image: .*", str(error), re.DOTALL)
    return DockerError(error.status, match[0]) if match and error.status == 404 else error


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value or ()))
