"""Holds containers back until their network is there: the wait program goes before their entrypoint."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weavemw import context
from weavemw.attaching.decision import Attach
from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config, merged_command, set_host_config, unwrapped
from weavemw.dockerapi.container import WAIT_PATH
from weavemw.dockerapi.payload import Object, body_of
from weavemw.errors import BadRequest, DockerError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.client import Docker
    from weavemw.dockerapi.container import Container
    from weavemw.dockerapi.payload import Body
    from weavemw.dockerapi.routes import Call

__all__ = ["EntrypointWrapper", "still_waiting"]

_log = logging.getLogger(__name__)

_MOUNT_POINT = posixpath.dirname(WAIT_PATH)
_CLEARS_ENTRYPOINT = re.compile(r"\s*ENTRYPOINT\s+\[\s*\]\s*", re.IGNORECASE)


def still_waiting(container: Container) -> bool:
    """Whether a running container's command has not begun: its process, or that of its ``--init``, is the wait program.

    Looks into ``/proc`` of this pid namespace, which must be the daemon's.
    """
    children = _read(f"/proc/{container.pid}/task/{container.pid}/children").split()
    processes = [str(container.pid).encode(), *children] if container.pid else []
    return any(_read(f"/proc/{pid.decode()}/cmdline").partition(b"\0")[0] == WAIT_PATH.encode() for pid in processes)


class EntrypointWrapper:
    """Wraps what is to be attached (create), what is executed meanwhile (exec), and unwraps images (commit).

    ``wait_dir`` is the directory of the host that holds the wait program, or a
    function that puts it there and returns it. ``still_waiting`` tells whether a
    container's command has yet to begin. Raises
    :class:`~weavemw.errors.BadRequest` if the container has a mount of its own at ``/w``.
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
        if body.document and wrap(body.document, decision.image):
            self._mount(body.document, host_config(body.document) or Object(path="HostConfig."))
            body.store(environ)

    def _on_start(self, environ: WSGIEnvironment, call: Call) -> None:
        # Before API 1.24 a HostConfig in the body of start takes the place of that of create.
        is_merged = call.is_older_than("1.24") and isinstance(environ.get(context.DECISION), Attach)
        body = body_of(environ) if is_merged else None
        host = host_config(body.document) if body and body.document else None
        if body and body.document and host:
            self._mount(body.document, host)
            body.store(environ)

    def _mount(self, document: Object, host: Object) -> None:
        source = str(self._wait_dir() if callable(self._wait_dir) else self._wait_dir)
        binds = [bind for bind in host.strings("Binds") or () if not is_ours(bind, source)]
        refuse_own_mount(document, host, binds)
        host.set("Binds", [*binds, f"{source}:{_MOUNT_POINT}:ro"])
        set_host_config(document, host)

    def _on_exec(self, environ: WSGIEnvironment, call: Call) -> None:
        container = self._ours(call.container)
        if container is None or not self._still_waiting(container):
            return
        body = body_of(environ)
        command = body.document.strings("Cmd") if body.document else None
        if body.document and command:
            body.document.set("Cmd", [WAIT_PATH, *command])
            body.store(environ)

    def _on_commit(self, environ: WSGIEnvironment, call: Call) -> None:
        container = self._ours(routes.query_of(environ).get("container", ""))
        body = body_of(environ)
        if container is None or not unwrap(body, container.config):
            return
        environ["CONTENT_TYPE"] = "application/json"
        routes.drop_from_query(environ, "changes", lambda change: bool(_CLEARS_ENTRYPOINT.fullmatch(change)))
        body.store(environ)

    def _ours(self, name: str) -> Container | None:
        try:
            container = self.docker.inspect(name) if name else None
        except DockerError as error:
            if error.status < 500:
                return None
            raise
        return container if container and container.is_ours else None


def wrap(document: Object, image: dict[str, Any]) -> bool:
    """Put the wait program before what a create would run; False if that is nothing, which the daemon refuses."""
    given = document.command("Cmd")
    entrypoint, cmd = merged_command(unwrapped(document.command("Entrypoint")), given,
                                     unwrapped(image.get("Entrypoint")), image.get("Cmd"))
    if not entrypoint and not cmd:
        return False
    document.set("Entrypoint", [WAIT_PATH, *entrypoint])
    if cmd != (given or []):
        document.set("Cmd", cmd)
    return True


def unwrap(body: Body, config: Any) -> bool:
    """Make the body of a commit say what the image is to run; False for a body that the daemon refuses.

    The daemon completes a body's fields with the container's, and takes all of the container's if there are none.
    """
    document = body.document
    if document is None and body.raw.strip(b" \t\r\n") not in (b"", b"null"):
        return False
    if document is None or not document.pairs:
        document = body.replace(Object(config.items()))
    entrypoint, cmd = merged_command(unwrapped(document.command("Entrypoint")), document.command("Cmd"),
                                     unwrapped(config.get("Entrypoint")), config.get("Cmd"))
    # An empty list stays, where null would be completed with the container's entrypoint.
    document.set("Entrypoint", entrypoint)
    document.set("Cmd", cmd)
    return True


def is_ours(bind: str, source: str) -> bool:
    """Whether a bind mounts a wait program of ours, of this or another version (clients copy it from inspect)."""
    return bool(re.fullmatch(rf"{re.escape(posixpath.dirname(source))}/[^/:]+:{_MOUNT_POINT}:ro", bind))


def refuse_own_mount(document: Object, host: Object, binds: Sequence[str]) -> None:
    """Raise :class:`~weavemw.errors.BadRequest` for a mount of the user's where the wait program is to be."""
    targets = [*map(_target, binds), *(mount.string("Target") for mount in host.objects("Mounts")),
               *host.keys("Tmpfs"), *document.keys("Volumes")]
    for target in targets:
        if f"{posixpath.normpath('/' + target.lstrip('/'))}/".startswith(f"{_MOUNT_POINT}/"):
            raise BadRequest(f"{target} can't be mounted: {_MOUNT_POINT} is where the weave network's wait program is "
                             "mounted. Mount it elsewhere, or leave the container off the network by WEAVE_CIDR=none")


def _target(bind: str) -> str:
    parts = bind.split(":", 2)
    return parts[1] if len(parts) > 1 else parts[0]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
