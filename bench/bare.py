"""An app that does nothing under the proxy's own server: what can be had at most. ``python -m bench.bare``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from weavemw.serving.program import serve
from weavemw.settings import Settings

_HEADERS = [("Content-Type", "application/json"), ("Content-Length", "2")]


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer ``OK`` to everything."""
    start_response("200 OK", _HEADERS)
    return [b"OK"]


if __name__ == "__main__":
    serve(Settings.from_environ(os.environ), lambda: app)
