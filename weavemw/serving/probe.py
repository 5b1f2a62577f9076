"""Docker's health check of our containers: ``python -m weavemw.probe``, with what the program was launched with.

The router's arguments name its API, the environment holds the proxy's
settings. The answer is the exit status, and one line for ``docker inspect``.
It is asked for every half a minute, so it imports little.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException

from weavemw.dockerapi import hosts
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
    connection = HTTPConnection(address, timeout=_LIMIT)
    try:
        connection.request("GET", "/status")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"http://{address}: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"http://{address} answers {status}"


def _of_proxy(settings: Settings) -> str:
    guarded = settings.uses_tls or bool(settings.allow_from)
    silent = [each for each in settings.listeners
              if not listeners.serves(hosts.parse(each), guarded=guarded, timeout=_LIMIT)]
    return f"nothing answers at {' '.join(silent)}" if silent else ""


def main() -> None:
    """``python -m weavemw.probe``; doesn't return."""
    sys.exit(complaint(sys.argv[1:], os.environ) or 0)
