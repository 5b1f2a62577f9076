"""Holds containers back until their network is there: the wait program goes before their entrypoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weavemw import context
from weavemw.attaching.decision import Attach
from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config, merged_command, set_host_config, unwrapped, wrapped
from weavemw.dockerapi.payload import Object, body_of
from weavemw.dockerapi.wait_mount import FORMER, PLACES, free_place, path_in, program_of, with_program, without_program
from weavemw.errors import DockerError
from weavemw.middleware.processes import still_waiting

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.client import Docker
    from weavemw.dockerapi.container import Container
    from weavemw.dockerapi.payload import Body
    from weavemw.dockerapi.routes import Call

__all__ = ["EntrypointWrapper"]

_log = logging.getLogger(__name__)

_CLEARS_ENTRYPOINT = re.compile(r"\s*ENTRYPOINT\s+\[\s*\]\s*", re.IGNORECASE)


class EntrypointWrapper:
    """Wraps what is to be attached (create), what is executed meanwhile (exec), and unwraps images (commit).

    ``wait_dir`` is the directory of the host that holds the wait program, as :func:`weavemw.wait.install` makes it,
    or a function that puts it there and returns it. ``still_waiting`` tells whether a container's command has yet to
    begin. Raises :class:`~weavemw.errors.BadRequest` if the container has mounts of its own wherever the program could
    be.
    """

    def __init__(self, app: WSGIApplication, *, wait_dir: Path | Callable[[], Path], docker: Docker,
                 still_waiting: Callable[[Container], bool] = still_waiting) -> None:
        self.app = app
        self.docker = docker
        self._wait_dir = wait_dir
        self._still_waiting = still_waiting
        self._changes = {"container_create": self._on_create, "container_start": self._on_start,
                         "exec_create": self._on_exec, "container_commit": self._on_commit}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = routes.call_of(environ)
        change = self._changes.get(call.name) if call else None
        if call and change:
            change(environ, call)
        return self.app(environ, start_response)

    def _on_create(self, environ: WSGIEnvironment, call: Call) -> None:
        decision = environ.get(context.DECISION)
        if not isinstance(decision, Attach):
            return
        body = body_of(environ)
        if body.document:
            host = host_config(body.document) or Object(path="HostConfig.")
            place = free_place(self._targets(body.document, host, decision.image))
            if wrap(body.document, decision.image, place, programs_in(host)):
                self._mount(body.document, host, place)
                body.store(environ)

    def _on_start(self, environ: WSGIEnvironment, call: Call) -> None:
        # Before API 1.24 a HostConfig in the body of start takes the place of that of create.
        decision = environ.get(context.DECISION)
        if not (call.is_older_than("1.24") and isinstance(decision, Attach) and decision.container):
            return
        body = body_of(environ)
        host = host_config(body.document) if body.document else None
        if body.document and host:
            self._mount(body.document, host, path_in(decision.container.entrypoint[0]))
            body.store(environ)

    def _mount(self, document: Object, host: Object, place: str) -> None:
        source = str(self._wait_dir() if callable(self._wait_dir) else self._wait_dir)
        host.set("Binds", with_program(without_program(host.strings("Binds")), source, place))
        set_host_config(document, host)

    def _targets(self, document: Object, host: Object, image: dict[str, Any]) -> Iterator[str]:
        """All paths in the container at which something of the user's or the image's is put."""
        yield from map(_target, without_program(host.strings("Binds")) or ())
        yield from (mount.string("Target") for mount in host.objects("Mounts"))
        yield from (device.string("PathInContainer") for device in host.objects("Devices"))
        yield from (*host.keys("Tmpfs"), *document.keys("Volumes"), *(image.get("Volumes") or ()))
        for other in host.strings("VolumesFrom") or ():
            yield from self._targets_of(other.partition(":")[0])

    def _targets_of(self, name: str) -> set[str]:
        container = self._known(name)
        return set(container.mount_targets).difference(map(program_of, container.binds)) if container else set()

    def _on_exec(self, environ: WSGIEnvironment, call: Call) -> None:
        container = self._ours(call.container)
        if container is None or not self._still_waiting(container):
            return
        body = body_of(environ)
        command = body.document.strings("Cmd") if body.document else None
        if body.document and command:
            body.document.set("Cmd", [container.program, *command])
            body.store(environ)

    def _on_commit(self, environ: WSGIEnvironment, call: Call) -> None:
        container = self._ours(routes.query_of(environ).get("container", ""))
        body = body_of(environ)
        if container is None or not unwrap(body, container.config, {*PLACES, container.program}):
            return
        environ["CONTENT_TYPE"] = "application/json"
        routes.drop_from_query(environ, "changes", lambda change: bool(_CLEARS_ENTRYPOINT.fullmatch(change)))
        body.store(environ)

    def _ours(self, name: str) -> Container | None:
        container = self._known(name)
        return container if container and container.is_ours else None

    def _known(self, name: str) -> Container | None:
        try:
            return self.docker.inspect(name) if name else None
        except DockerError as error:
            if error.status < 500:
                return None
            raise


def wrap(document: Object, image: dict[str, Any], place: str = PLACES[0], programs: Collection[str] = PLACES) -> bool:
    """Put the wait program before what a create would run; False if that is nothing, which the daemon refuses.

    ``place`` is its path. ``programs`` are those at which an entrypoint in the request means it.
    """
    given = document.command("Cmd")
    entrypoint, cmd = merged_command(unwrapped(document.command("Entrypoint"), programs), given,
                                     unwrapped(image.get("Entrypoint")), image.get("Cmd"))
    if not entrypoint and not cmd:
        return False
    document.set("Entrypoint", wrapped(entrypoint, place))
    if cmd != given:
        document.set("Cmd", cmd)
        if image.get("ArgsEscaped"):  # which goes with the image's command
            document.set("ArgsEscaped", True)
    return True


def unwrap(body: Body, config: Any, programs: Collection[str] = PLACES) -> bool:
    """Make the body of a commit say what the image is to run; False for a body that the daemon refuses.

    ``programs`` are the paths at which an entrypoint means the wait program.
    The daemon completes a body's fields with the container's, and takes all of the container's if there are none.
    """
    document = body.document
    if document is None and body.raw.strip(b" \t\r\n") not in (b"", b"null"):
        return False
    if document is None or not document.pairs:
        document = body.replace(Object(config.items()))
    entrypoint, cmd = merged_command(unwrapped(document.command("Entrypoint"), programs), document.command("Cmd"),
                                     unwrapped(config.get("Entrypoint"), programs), config.get("Cmd"))
    # An empty list stays, where null would be completed with the container's entrypoint.
    document.set("Entrypoint", entrypoint or [])
    document.set("Cmd", cmd)
    return True


def programs_in(host: Object) -> tuple[str, ...]:
    """The paths at which an entrypoint means the wait program, if it comes with this HostConfig (clients copy both)."""
    return (*PLACES, FORMER) if FORMER in map(program_of, host.strings("Binds") or ()) else PLACES


def _target(bind: str) -> str:
    parts = bind.split(":", 2)
    return parts[1] if len(parts) > 1 else parts[0]
