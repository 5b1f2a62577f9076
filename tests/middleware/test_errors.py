"""Exceptions as answers that a docker client shows."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from weavemw import context
from weavemw.errors import (
    AddressTaken,
    BadRequest,
    DockerError,
    DockerUnreachable,
    InvalidCidr,
    PayloadTooLarge,
    RouterBusy,
    RouterError,
    RouterUnreachable,
    WeaveError,
)
from weavemw.middleware.errors import ErrorResponder


class Failing:
    """An app that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.environ = environ
        raise self.error


@pytest.mark.parametrize(("error", "status", "message"), [
    pytest.param(BadRequest("no such thing"), "400 Bad Request", "weave: no such thing", id="bad request"),
    pytest.param(InvalidCidr("x", "so"), "400 Bad Request", 'weave: invalid WEAVE_CIDR "x": so', id="cidr"),
    pytest.param(PayloadTooLarge("too large"), "413", "weave: too large", id="too large"),
    pytest.param(DockerUnreachable("gone"), "502 Bad Gateway", "gone", id="no daemon"),
    pytest.param(DockerError(404, "No such image: x"), "404 Not Found", "No such image: x", id="daemon's"),
    pytest.param(DockerError(499, "odd"), "499 Error", "odd", id="a status without a name"),
    pytest.param(DockerError(301, "moved"), "502 Bad Gateway", "moved", id="no error at all"),
    pytest.param(WeaveError("broken \u00e9\n"), "500 Internal Server Error", "weave: broken \u00e9\n", id="any text"),
    pytest.param(RouterUnreachable("weave router?"), "500", "weave: weave router?", id="begins like that by chance"),
    pytest.param(RouterUnreachable("weave: no"), "500", "weave: no", id="says so by itself"),
    pytest.param(RouterError("full", hint="make room"), "500", "weave: full; make room", id="what would help"),
])
def test_our_errors_say_what_is_wrong(ask: Any, error: WeaveError, status: str, message: str) -> None:
    """An error comes as JSON with its own status and message."""
    response = ask(ErrorResponder(Failing(error)), "POST", "/containers/create")
    assert response.status.startswith(status)
    assert (response.content_type, response.get_json()) == ("application/json", {"message": message})
    assert response.content_length == len(response.data)


@pytest.mark.parametrize(("error", "level"), [
    (BadRequest("no such thing"), "INFO"), (RouterError("range out of bounds", mistaken=True), "INFO"),
    (AddressTaken("10.2.1.1/24", "a"), "INFO"), (RouterError("disk full"), "WARNING"), (RouterBusy("late"), "WARNING"),
    (DockerUnreachable("gone"), "WARNING")])
def test_mistakes_of_users_are_no_trouble(ask: Any, caplog: pytest.LogCaptureFixture, error: WeaveError,
                                          level: str) -> None:
    """Whatever status the original answers with: what is a warning stays among the last errors of the host."""
    caplog.set_level("INFO")
    ask(ErrorResponder(Failing(error)), "POST", "/containers/create")
    assert [record.levelname for record in caplog.records] == [level]


def test_a_head_request_gets_no_body(ask: Any) -> None:
    """HEAD is answered by the head alone."""
    response = ask(ErrorResponder(Failing(DockerUnreachable("gone"))), "HEAD", "/_ping")
    assert (response.status, response.data) == ("502 Bad Gateway", b"")


def test_other_exceptions_are_logged_not_shown(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns where to look, the log has the traceback; neither has query or headers."""
    app = Failing(KeyError("internals"))
    response = ask(ErrorResponder(app), "POST", "/build?buildargs=secret", HTTP_X_REGISTRY_AUTH="secret")
    assert response.status_code == 500
    assert response.get_json()["message"].endswith(f"for request {app.environ[context.REQUEST_ID]}")
    assert "internals" not in response.text
    assert "internals" in caplog.text
    assert f"[{app.environ[context.REQUEST_ID]}] POST /build failed" in caplog.text
    assert "secret" not in caplog.text + response.text


@pytest.mark.parametrize("error", [BrokenPipeError(), ConnectionResetError(), StopIteration(), KeyboardInterrupt(),
                                   SystemExit()])
def test_what_is_meant_for_the_server_goes_on_to_it(error: BaseException) -> None:
    """A connection that was taken or lost is not answered."""
    with pytest.raises(type(error)):
        ErrorResponder(Failing(error))({"REQUEST_METHOD": "GET"}, lambda *args: None)  # type: ignore[arg-type,return-value]


def test_the_response_is_the_very_object() -> None:
    """What the app returns is handed on unwrapped, so that a connection can be handed over."""
    response = iter([b""])
    assert ErrorResponder(lambda environ, start_response: response)({"REQUEST_METHOD": "GET"}, None) is response  # type: ignore


@pytest.mark.parametrize(("given", "kept"), [
    ("abc-1.2_3", True), ("a" * 64, True), ("", False), ("a" * 65, False), ("a b", False), ("a\n", False), ("é", False),
])
def test_request_ids(ask: Any, daemon: Any, given: str, kept: bool) -> None:
    """The client's own id is kept if it is fit for a log line."""
    ask(ErrorResponder(daemon), "GET", "/info", HTTP_X_REQUEST_ID=given)
    found = daemon.request.environ[context.REQUEST_ID]
    assert (found == given) is kept
    assert found.isprintable()
    assert found


def test_a_log_line_stays_one_line(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A path can't forge log lines."""
    with caplog.at_level(logging.INFO):
        ask(ErrorResponder(Failing(BadRequest("no"))), "GET", "/a%0Ab%1b/%C3%A9")
    assert "GET /a\\nb\\x1b/" in caplog.text
