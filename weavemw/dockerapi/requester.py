"""What a client of an HTTP API needs of whoever carries its requests; :mod:`weavemw.transport.http_client` is one.

The clients stand below the transport, so they are given one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Answer", "Requester"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read whole."""

    status: int
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """What the body means as JSON. Raises ``ValueError``."""
        return json.loads(self.body)


class Requester(Protocol):
    """Sends requests to one server. Raises :class:`~weavemw.errors.NoAnswer` where nothing proper comes back."""

    @property
    def where(self) -> str:
        """The server's address, for messages."""

    def ask(self, method: str, path: str, *, timeout: float, body: bytes | None = None,
            headers: Mapping[str, str] | None = None) -> Answer:
        """One request and the whole of its answer, all within ``timeout`` seconds; redirects are not followed."""

    def stream(self, path: str, *, timeout: float) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The status of ``GET path``, which comes within ``timeout`` seconds, and the body as it arrives.

        The body may take any time. It ends with the answer, or with the connection.
        """
