"""Docker's health check of our containers: ``python -m weavemw.probe``, with what the program was launched with.

The router's arguments name its API, the environment holds the proxy's
settings. The answer is the exit status, and one line for ``docker inspect``.
It is asked for every half a minute, so it imports little.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.client import HTTPConnection, HTTPException

from weavemw.dockerapi import hosts
from weavemw.errors import WeaveError
from weavemw.ops import health
from weavemw.ops.watcher_state import read_state
from weavemw.serving import listeners
from weavemw.settings import Settings

__all__ = ["complaint"]

_API = "--http-addr="
_LIMIT = 5.0


def complaint(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """What does not serve; empty if all does."""
    for argument in arguments:
        if argument.startswith(_API):
            return _of_router(argument.removeprefix(_API))
    return _of_proxy(Settings.from_environ(environ))


def _of_router(address: str) -> str:
    """What the router says of itself; one of Weave Net's, which does not, is asked for its status."""
    try:
        status, words = _asked(address, "/health")
        if status == 404:
            status, words = _asked(address, "/status")
    except (OSError, HTTPException) as error:
        return f"http://{address}: {error}"
    return "" if status == 200 else words if status == 503 else f"http://{address} answers {status}"


def _asked(address: str, path: str) -> tuple[int, str]:
    connection = HTTPConnection(address, timeout=_LIMIT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode(errors="replace").strip()
    finally:
        connection.close()


def _of_proxy(settings: Settings) -> str:
    guarded = settings.uses_tls or bool(settings.allow_from)
    silent = [each for each in settings.listeners
              if not listeners.serves(hosts.parse(each), guarded=guarded, timeout=_LIMIT)]
    if silent:
        return f"nothing answers at {' '.join(silent)}"
    return "; ".join(filter(None, (*_of_watcher(settings), _of_router(settings.router_address))))


def _of_watcher(settings: Settings) -> list[str]:
    try:
        state = read_state(settings.run_dir)
    except WeaveError as error:
        return [error.message]
    return health.of_watcher(asdict(state) if state else None)


def main() -> None:
    """``python -m weavemw.probe``; doesn't return."""
    sys.exit(complaint(sys.argv[1:], os.environ) or 0)
