"""Call a WSGI app and hold its whole answer back: for answers that are short, and must not be sent yet."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from weavemw import context

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.transport.hijack import Reviser

__all__ = ["Captured", "capture"]


@dataclass(frozen=True, slots=True)
class Captured:
    """An answer: its status line, headers and body, as the app gave them."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    revise: Reviser | None = None

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status.split(" ", 1)[0])

    @property
    def is_plain_json(self) -> bool:
        """Whether it is a 200 with JSON that is not packed."""
        headers = {name.lower(): value for name, value in self.headers}
        return (self.code == HTTPStatus.OK and "content-encoding" not in headers
                and headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json")

    def with_body(self, body: bytes) -> Captured:
        """The same answer with another body and its length; itself if that is the body that it has."""
        if body == self.body:
            return self
        kept = [pair for pair in self.headers if pair[0].lower() not in ("content-length", "transfer-encoding")]
        return Captured(self.status, [*kept, ("Content-Length", str(len(body)))], body, self.revise)

    def send(self, start_response: StartResponse) -> list[bytes]:
        """Answer with it, after what an outer layer wanted to revise in it."""
        answer = self.with_body(self.revise(self.body)) if self.revise and self.is_plain_json else self
        start_response(answer.status, answer.headers)
        return [answer.body] if answer.body else []


def capture(app: WSGIApplication, environ: WSGIEnvironment) -> Captured:
    """The answer of ``app``, read to its end (``write``, ``close``, a second ``start_response``: as in PEP 3333)."""
    revise: Reviser | None = environ.pop(context.REVISER, None)
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        started[:] = [(status, headers)]
        return written.append

    answer = app(environ, start_response)
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return Captured(*started[0], b"".join(written) + body, revise)
