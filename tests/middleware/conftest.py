"""A daemon that is a WSGI app, and a client that asks through werkzeug's lint middleware."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from weavemw.testing import FakeDocker, FakeRouter

Ask = Callable[..., TestResponse]


@dataclass
class Received:
    """A request as it came to the daemon."""

    environ: dict[str, Any]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Daemon:
    """Answers everything alike and remembers what it was asked."""

    status: str = "201 CREATED"
    body: bytes = b'{"Id":"c1","Warnings":[]}\n'
    content_type: str = "application/json"
    requests: list[Received] = field(default_factory=list)

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        length = environ.get("CONTENT_LENGTH") or 0
        self.requests.append(Received(environ, environ["wsgi.input"].read(int(length))))
        start_response(self.status, [("Content-Type", self.content_type), ("Content-Length", str(len(self.body)))])
        return [self.body]

    @property
    def request(self) -> Received:
        """The last request."""
        return self.requests[-1]


def _ask(app: Any, method: str, target: str, body: object = None, **environ: object) -> TestResponse:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    builder = EnvironBuilder(path=target.partition("?")[0], query_string=target.partition("?")[2], method=method,
                             data=raw or None, content_type="application/json" if raw else None)
    made = builder.get_environ() | {"RAW_URI": target, "REQUEST_URI": target} | environ
    chunks, status, headers = run_wsgi_app(LintMiddleware(app), made, buffered=True)
    return TestResponse(chunks, status, headers, builder.get_request())


@pytest.fixture
def daemon() -> Daemon:
    """A daemon that says that it created something."""
    return Daemon()


@pytest.fixture
def docker() -> FakeDocker:
    """A Docker with the image busybox."""
    made = FakeDocker()
    made.images = {"busybox": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}}
    return made


@pytest.fixture
def router() -> FakeRouter:
    """A router with DNS."""
    return FakeRouter()


@pytest.fixture
def ask() -> Ask:
    """``ask(app, method, target, body)`` sends a request through the lint middleware."""
    return _ask
