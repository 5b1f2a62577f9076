"""Somebody else's judgement of calls of Docker's API, as a middleware."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from weavemw import context
from weavemw.dockerapi.request import Request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.dockerapi.payload import Body

__all__ = ["Hook"]


class Hook:
    """Calls a function before a call of Docker's API goes on. ::

        def no_privileged(call):
            if call.body.boolean("HostConfig", "Privileged"):
                raise errors.Forbidden("no privileged containers here")

        app = Hook(app, calls={"container_create"}, judge=no_privileged)

    What the function raises of :mod:`weavemw.errors` is the answer, given by
    :class:`~weavemw.middleware.errors.ErrorResponder`. What it changes in ``call.body``
    is what Docker is sent. ``calls`` are names as in :mod:`weavemw.dockerapi.routes`;
    ``None`` means every request, also those that are no known call (``call.name`` is empty).
    The answer is not touched, so that streams are handed over as ever.
    """

    def __init__(self, app: WSGIApplication, *, calls: Collection[str] | None,
                 judge: Callable[[Request], object]) -> None:
        self.app = app
        self.calls = calls
        self.judge = judge

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if self.calls is None or request.name in self.calls:
            self.judge(request)
            _store_changes(environ)
        return self.app(environ, start_response)


def _store_changes(environ: WSGIEnvironment) -> None:
    body: Body | None = environ.get(context.BODY)
    if body and body.document and body.document.changed:
        body.store(environ)
