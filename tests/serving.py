"""Stacks around the passthrough app, served by several WSGI servers, for tests of the transport.

``gunicorn serving:plain`` and friends read the daemon's socket from ``UPSTREAM``.
"""

from __future__ import annotations

import logging
import os

from weavemw.dockerapi import payload
from weavemw.middleware.errors import ErrorResponder
from weavemw.middleware.readers import TraceRemover
from weavemw.transport.hijack import Handover
from weavemw.transport.passthrough import Passthrough
from weavemw.transport.relay import Relay
from weavemw.transport.upstream import Upstream

logging.basicConfig(level=logging.INFO)


class WrapsStartResponse:
    """An embedding application's middleware that adds a header."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        def respond(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Embedded", "yes")], exc_info)

        return self.app(environ, respond)


class WrapsIterable:
    """An embedding application's middleware that looks at the body only."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        return self._copied(self.app(environ, start_response))

    @staticmethod
    def _copied(response):
        try:
            yield from response
        finally:
            if hasattr(response, "close"):
                response.close()


class ReadsCreates:
    """What the whole stack does with a create: its body is read, and another put in its place."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/containers/create":
            payload.body_of(environ).store(environ)
        return self.app(environ, start_response)


def stack(upstream, *middlewares):
    app = ErrorResponder(Passthrough(Upstream(upstream)))
    for middleware in middlewares:
        app = middleware(app)
    return Handover(app, relay=Relay())


_upstream = os.environ.get("UPSTREAM", "/nowhere")
plain = stack(_upstream)
wrapped = stack(_upstream, WrapsStartResponse)
iterated = stack(_upstream, WrapsIterable)
reading = Handover(ErrorResponder(ReadsCreates(Passthrough(Upstream(_upstream)))), relay=Relay())
hiding = stack(_upstream, TraceRemover)
bare = Passthrough(Upstream(_upstream))
