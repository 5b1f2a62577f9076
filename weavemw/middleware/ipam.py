"""Addresses before the start: the daemon is not asked to start a container for which there is none."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from weavemw.attaching.allocation import still_there
from weavemw.attaching.attachment import Attachment
from weavemw.attaching.starting import Start
from weavemw.context import CLIENT_GONE, LEASE, START
from weavemw.errors import Overloaded
from weavemw.middleware.captured import capture
from weavemw.middleware.starting import container_of, to_attach

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["IpamClient"]


class IpamClient:
    """Allocates on ``start`` and ``restart``, leaves a :class:`~weavemw.attaching.decision.Lease`, gives back in vain.

    ``start_timeout`` is how long a client waits for an address, in seconds. As many requests wait as there are
    ``places``, so that a router that does not answer leaves the server threads for everything else. Raises
    :class:`~weavemw.errors.Overloaded` for those that are one too many.
    """

    def __init__(self, app: WSGIApplication, *, attachment: Attachment, start_timeout: float = 30.0,
                 places: BoundedSemaphore | None = None) -> None:
        self.app = app
        self.attachment = attachment
        self.start_timeout = start_timeout
        self._places = places or BoundedSemaphore(1000)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = to_attach(environ)
        if decision is None:
            return self.app(environ, start_response)
        start = Start(self.attachment, container_of(environ, decision, self.attachment.docker))
        client_gone = environ.get(CLIENT_GONE, still_there)
        with ExitStack() as held:
            with self._place():
                held.enter_context(start.locked(self.start_timeout))
                environ[LEASE] = held.enter_context(
                    start.reserved(decision.wanted, timeout=self.start_timeout, client_gone=client_gone))
            environ[START] = start
            answer = capture(self.app, environ)
            start.answered(answer.code)
        return answer.send(start_response)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places of those that wait: for the container's lock, and for the router."""
        if not self._places.acquire(blocking=False):
            raise Overloaded("too many containers wait for an address already: `weave status` says for what")
        try:
            yield
        finally:
            self._places.release()
