"""Turns exceptions into answers that a docker client shows to its user."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from weavemw import context
from weavemw.dockerapi.routes import described
from weavemw.errors import DockerError, DockerUnreachable, WeaveError
from weavemw.ops import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ErrorResponder"]

_log = logs.summed(__name__)

_COUNTER = itertools.count(1)
_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ErrorResponder:
    """Answers errors of everything inside as ``{"message": …}``, Docker's form.

    Errors of :mod:`weavemw.errors` carry their own status and message; any other
    exception is logged with its traceback and answered by 500 without details.
    ``StopIteration`` (a connection taken from the server) and ``ConnectionError``
    (a client that left) are not answered: they go on to the server.

    Leaves an id of the request in ``environ`` (:data:`weavemw.context.REQUEST_ID`).
    Logs method and path, never query, headers or body.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[context.REQUEST_ID] = request_id(environ)
        try:
            return self.app(environ, start_response)
        except WeaveError as error:
            level = logging.INFO if error.is_mistake else logging.WARNING
            _log.log(level, "%s: %d %s", described(environ), error.status, error.message)
            return answer(environ, start_response, error.status, worded(error))
        except (StopIteration, ConnectionError):
            raise
        except Exception:  # noqa: BLE001  # whatever it is, the client is to get an answer
            _log.exception("%s failed", described(environ))
            message = f"weave proxy: internal error, see its log for request {environ[context.REQUEST_ID]}"
            return answer(environ, start_response, 500, message)


def worded(error: WeaveError) -> str:
    """The error's message for a client, who sees from its beginning that it isn't about Docker."""
    is_clear = isinstance(error, DockerError | DockerUnreachable) or error.message.startswith("weave: ")
    return error.advice if is_clear else f"weave: {error.advice}"


def request_id(environ: WSGIEnvironment) -> str:
    """The client's ``X-Request-Id`` if it is fit for a log, else one of our own."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    return given if given and _USABLE_ID.fullmatch(given) else f"{os.getpid():x}.{next(_COUNTER):x}"


def answer(environ: WSGIEnvironment, start_response: StartResponse, status: int, message: str) -> Iterable[bytes]:
    """Respond with Docker's form of an error; to HEAD without a body."""
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else json.dumps({"message": message}).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status_line(status), headers)
    return [body]


def status_line(status: int) -> str:
    """``404 Not Found``; a status that is no error becomes 502, as the daemon answered something unexpected."""
    if status < 400:
        status = HTTPStatus.BAD_GATEWAY
    known = status in {*HTTPStatus}
    return f"{int(status)} {HTTPStatus(status).phrase if known else 'Error'}"
