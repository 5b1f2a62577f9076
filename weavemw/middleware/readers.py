"""Shows containers as their creators asked for them: the wait program is seen only past the proxy."""

from __future__ import annotations

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

    Answers without it pass byte for byte. Events pass as they come, by way of
    :data:`weavemw.context.FILTER`, and still cost no thread.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = routes.call_of(environ)
        if call and call.name == "events":
            environ[context.FILTER] = EventFilter()
        if call is None or call.name not in READERS:
            return self.app(environ, start_response)
        answer = capture(self.app, environ)
        if answer.is_plain_json:
            answer = answer.with_body(without_traces(call.name, answer.body))
        return answer.send(start_response)
