"""A command that can't be found fails its start, as it does without us."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from weavemw.context import RUNNING
from weavemw.dockerapi.wait_mount import PLACES
from weavemw.errors import DockerError
from weavemw.middleware.captured import capture
from weavemw.middleware.processes import Progress, progress_of
from weavemw.middleware.starting import container_of, to_attach

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.client import Docker
    from weavemw.dockerapi.container import Container

__all__ = ["CommandChecker"]

_STARTED = 204
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005  # seconds between two looks: most wait programs need one, or two
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


class CommandChecker:
    """Answers a ``start`` or ``restart`` in Docker's words if the container ended because its command can't be found.

    The daemon only sees that the wait program can be executed; the wait program looks the command up before it waits,
    and ends with Docker's status if it can't be. Then the container is stopped, so that no restart policy starts it
    again, and a :class:`~weavemw.errors.DockerError` is raised. Where ``--init`` is asked for, it is init that
    fails, with or without us.

    ``progress_of`` tells how far a process is; it is waited for at most ``patience`` seconds.
    """

    def __init__(self, app: WSGIApplication, *, docker: Docker, progress_of: Callable[[int], Progress] = progress_of,
                 patience: float = 10.0) -> None:
        self.app = app
        self.docker = docker
        self.patience = patience
        self._progress_of = progress_of

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = to_attach(environ)
        if decision is None:
            return self.app(environ, start_response)
        container, before = container_of(environ, decision, self.docker), time.time()
        answer = capture(self.app, environ)
        if answer.code == _STARTED and is_checked(container) and self._has_ended(container.id, environ):
            self._refuse_wrong_command(container, before)
        return answer.send(start_response)

    def _has_ended(self, container_id: str, environ: WSGIEnvironment) -> bool:
        """Whether its process ended before it waited, or executed anything else."""
        try:
            environ[RUNNING] = running = self.docker.inspect(container_id)
        except DockerError as error:
            if error.status != 404:
                raise
            return True  # removed, by AutoRemove
        looks = (self._progress_of(running.pid) for _ in self._pauses())
        return next((progress for progress in looks if progress is not Progress.STARTING), None) is Progress.ENDED

    def _pauses(self) -> Iterator[None]:
        """At once, and then after pauses that grow, as long as there is patience."""
        end, pause = time.monotonic() + self.patience, _FIRST_PAUSE
        yield
        while time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            yield

    def _refuse_wrong_command(self, container: Container, since: float) -> None:
        """Raise if that is what it ended of."""
        answers = (self.docker.exit_statuses(container.id, since) for _ in self._pauses())
        message = next((complaint(container.command, status) for status in next(filter(None, answers), ())
                        if status in (_NOT_EXECUTABLE, _NOT_FOUND)), "")
        if message:
            self.docker.stop(container.id, 0)
            raise DockerError(400, message)


def is_checked(container: Container) -> bool:
    """Whether its first process is a wait program that looks commands up (those of earlier versions did not)."""
    return not container.init and container.program in PLACES


def complaint(command: str, status: int) -> str:
    """What the daemon says of a command that it can't execute (20.10 to 25, with runc); a docker CLI reads it too."""
    if status == _NOT_EXECUTABLE:
        reason = "permission denied"
    elif "/" in command:
        reason = f"stat {command}: no such file or directory"
    else:
        reason = "executable file not found in $PATH"
    return ("failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
            f'process: exec: "{command}": {reason}: unknown')
