"""Somebody else's look at Docker's answers, as a middleware."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from weavemw.dockerapi.request import Request
from weavemw.middleware.captured import Captured, capture

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["STREAMS", "Answer", "AnswerHook"]

#: Calls whose answers are streams, or begin before they are complete: those can't be held back and changed.
STREAMS = frozenset({
    "build", "container_archive_get", "container_attach", "container_attach_ws", "container_export", "container_logs",
    "container_stats", "container_wait", "events", "exec_start", "grpc", "image_load", "image_pull", "image_push",
    "image_save", "session",
})


class Answer:
    """Docker's answer to one call, whole: to be seen, and to be changed."""

    __slots__ = ("_captured", "status")

    def __init__(self, captured: Captured) -> None:
        self._captured = captured
        self.status = captured.code

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Its headers."""
        return list(self._captured.headers)

    @property
    def data(self) -> bytes:
        """Its body."""
        return self._captured.body

    def json(self) -> Any:
        """Its body as plain values; ``None`` if it is no JSON. Changes take effect by :meth:`replace`."""
        try:
            return json.loads(self._captured.body)
        except ValueError:
            return None

    def replace(self, value: object) -> None:
        """Put these plain values in the body's place, as JSON."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._captured = self._captured.with_body(body)

    def send(self, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with it."""
        return self._captured.send(start_response)


class AnswerHook:
    """Calls a function with a call of Docker's API and its answer, before the client gets it. ::

        def without_secrets(call, answer):
            shown = answer.json()
            shown["Config"]["Env"] = []
            answer.replace(shown)

        app = AnswerHook(app, calls={"container_inspect"}, see=without_secrets)

    ``calls`` are names as in :mod:`weavemw.dockerapi.routes`. The answer is held back whole; raises ``ValueError``
    for calls whose answers are streams (:data:`STREAMS`).
    """

    def __init__(self, app: WSGIApplication, *, calls: Collection[str],
                 see: Callable[[Request, Answer], object]) -> None:
        if streams := STREAMS.intersection(calls):
            raise ValueError(f"answers of {', '.join(sorted(streams))} are streams, and can't be held back")
        self.app = app
        self.calls = calls
        self.see = see

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if request.name not in self.calls or environ["REQUEST_METHOD"] == "HEAD":
            return self.app(environ, start_response)
        answer = Answer(capture(self.app, environ))
        self.see(request, answer)
        return answer.send(start_response)
