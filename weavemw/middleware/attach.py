"""The attach itself: a client hears that its container has started when it has its network."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from weavemw.attaching.attachment import Attachment, NotRunning
from weavemw.attaching.decision import Lease
from weavemw.context import LEASE, NAMES
from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, DockerUnreachable
from weavemw.middleware.captured import Captured, capture
from weavemw.middleware.starting import ALREADY_STARTED, STARTED, container_of, to_attach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Attacher"]

_log = logging.getLogger(__name__)


class Attacher:
    """On ``start`` and ``restart`` attaches the container after the daemon started it, then passes its answer on.

    If that fails the container is killed, before its command has run, and the
    reason is raised. Its lock is held all the while, so that the watcher
    doesn't attach what is being refused.
    """

    def __init__(self, app: WSGIApplication, *, attachment: Attachment) -> None:
        self.app = app
        self.attachment = attachment

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision, lease = to_attach(environ), environ.get(LEASE)
        if decision is None or lease is None:
            return self.app(environ, start_response)
        container = container_of(environ, decision, self.attachment.docker)
        with self.attachment.lock(container.id):
            answer = capture(self.app, environ)
            if answer.code in STARTED:
                self._attach(container, lease, environ.get(NAMES, ()), answer)
        return answer.send(start_response)

    def _attach(self, container: Container, lease: Lease, names: tuple[str, ...], answer: Captured) -> None:
        try:
            self.attachment.attach(container.id, lease.addresses, names)
        except NotRunning:
            _log.info("container %s ended before it was attached", container.short_id)
        except BaseException:
            if answer.code != ALREADY_STARTED:  # else its command may have run for long
                self._refuse(container)
            raise

    def _refuse(self, container: Container) -> None:
        docker = self.attachment.docker
        try:
            docker.kill(container.id)
            if container.auto_remove:
                docker.remove(container.id)
        except (DockerError, DockerUnreachable) as error:
            _log.error("container %s, whose start was refused, still waits: %s", container.short_id, error)
