"""Addresses before the start: the daemon is not asked to start a container for which there is none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from weavemw.attaching.allocation import has_run, still_there
from weavemw.attaching.attachment import Attachment
from weavemw.attaching.decision import Attach, Lease
from weavemw.context import CLIENT_GONE, LEASE
from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, DockerUnreachable
from weavemw.middleware.captured import Captured, capture
from weavemw.middleware.starting import STARTED, container_of, to_attach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["IpamClient"]

_log = logging.getLogger(__name__)


class IpamClient:
    """Allocates on ``start`` and ``restart``, leaves a :class:`~weavemw.context.Lease`, gives back what was in vain.

    ``start_timeout`` is how long a client waits for an address, in seconds.
    """

    def __init__(self, app: WSGIApplication, *, attachment: Attachment, start_timeout: float = 30.0) -> None:
        self.app = app
        self.attachment = attachment
        self.start_timeout = start_timeout

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = to_attach(environ)
        if decision is None:
            return self.app(environ, start_response)
        container = container_of(environ, decision, self.attachment.docker)
        with self.attachment.lock(container.id, self.start_timeout):
            environ[LEASE] = self._allocated(environ, decision, container)
            return self._started(environ, container, environ[LEASE]).send(start_response)

    def _allocated(self, environ: WSGIEnvironment, decision: Attach, container: Container) -> Lease:
        try:
            return self.attachment.allocate(container, decision.wanted, timeout=self.start_timeout,
                                            client_gone=environ.get(CLIENT_GONE, still_there))
        except BaseException:
            self._remove(container)
            raise

    def _started(self, environ: WSGIEnvironment, container: Container, lease: Lease) -> Captured:
        try:
            answer = capture(self.app, environ)
        except BaseException:
            self.attachment.give_back(container.id, lease.fresh)
            raise
        if answer.code not in STARTED:
            self.attachment.give_back(container.id, lease.fresh)
        return answer

    def _remove(self, container: Container) -> None:
        """``docker run --rm`` waits until the container is gone, and the daemon, which never started it, won't."""
        if not container.auto_remove or has_run(container):
            return
        try:
            self.attachment.docker.remove(container.id)
        except (DockerError, DockerUnreachable) as error:
            _log.warning("container %s, whose start was refused, is left: %s", container.short_id, error)
