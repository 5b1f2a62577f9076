"""The attach itself: a client hears that its container has started when it has its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weavemw.attaching.attachment import Attachment
from weavemw.attaching.starting import Start
from weavemw.context import LEASE, NAMES, RUNNING, START
from weavemw.middleware.captured import capture
from weavemw.middleware.starting import container_of, to_attach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.container import Container

__all__ = ["Attacher"]


class Attacher:
    """On ``start`` and ``restart`` attaches the container after the daemon started it, then passes its answer on.

    If that fails the container is killed, before its command has run, and the
    reason is raised. It needs a lease, IpamClient's or another.
    """

    def __init__(self, app: WSGIApplication, *, attachment: Attachment) -> None:
        self.app = app
        self.attachment = attachment

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision, lease = to_attach(environ), environ.get(LEASE)
        if decision is None or lease is None:
            return self.app(environ, start_response)
        start = environ.get(START) or Start(
            self.attachment, container_of(environ, decision, self.attachment.docker), lease)
        with start.locked():
            answer = capture(self.app, environ)
            start.answered(answer.code)
            start.attach(environ.get(NAMES, _no_names), environ.get(RUNNING))
        return answer.send(start_response)


def _no_names(_: Container) -> tuple[str, ...]:
    return ()
