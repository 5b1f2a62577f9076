"""Shows containers as their creators asked for them: the wait program is seen only past the proxy."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from weavemw import context
from weavemw.dockerapi import routes
from weavemw.dockerapi.traces import READERS, EventFilter, without_traces
from weavemw.middleware.captured import capture

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TraceRemover"]


class TraceRemover:
    """Takes the wait program out of what inspect, list and their kin answer (200 only), and out of events.

    Answers without it pass byte for byte. Where the client's connection is offered
    (:mod:`weavemw.transport.hijack`), they are revised by the innermost app, by way of
    :data:`weavemw.context.REVISER`, so that waiting for them costs no thread. So it is
    with events, which pass as they come, by :data:`weavemw.context.FILTER`.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = routes.call_of(environ)
        if call and call.name == "events":
            environ[context.FILTER] = EventFilter()
        if call is None or call.name not in READERS:
            return self.app(environ, start_response)
        offer = environ.get(context.HANDOVER)
        if offer and offer.is_untouched_by(start_response):
            environ[context.REVISER] = functools.partial(without_traces, call.name)
            return self.app(environ, start_response)
        answer = capture(self.app, environ)
        if answer.is_plain_json:
            answer = answer.with_body(without_traces(call.name, answer.body))
        return answer.send(start_response)
