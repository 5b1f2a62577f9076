"""Call a WSGI app and hold its whole answer back: for answers that are short, and must not be sent yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Captured", "capture"]


@dataclass(frozen=True, slots=True)
class Captured:
    """An answer: its status line, headers and body, as the app gave them."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status.split(" ", 1)[0])

    def send(self, start_response: StartResponse) -> list[bytes]:
        """Answer with it."""
        start_response(self.status, self.headers)
        return [self.body] if self.body else []


def capture(app: WSGIApplication, environ: WSGIEnvironment) -> Captured:
    """The answer of ``app``, read to its end (``write``, ``close``, a second ``start_response``: as in PEP 3333)."""
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
    return Captured(*started[0], b"".join(written) + body)
