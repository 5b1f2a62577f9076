from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from weavemw.attaching.attachment import NotRunning
from weavemw.cli.command import Invocation
from weavemw.cli.mistakes import explained
from weavemw.errors import (
    AddressTaken,
    DockerError,
    DockerUnreachable,
    InvalidCidr,
    NetworkError,
    NoAnswer,
    NoSuchContainer,
    NotARouter,
    RouterError,
    RouterUnreachable,
    SettingsError,
    WeaveError,
)

_ID = "1c7d23a8028b" + "0" * 52


class _Docker:
    """An engine with two containers."""

    def get(self, path: str) -> list[dict[str, Any]]:
        assert path == "/containers/json?all=1"
        return [{"Id": _ID, "Names": ["/web"]}, {"Id": "f" * 64, "Names": ["/db", "/web/alias"]}]

    def find(self, container: str) -> dict[str, Any] | None:
        return {"Name": "/web"} if container == _ID else None


class _Weave(Invocation):
    """A run of the command beside that engine."""

    def docker(self) -> Any:
        return _Docker()


def _weave(**environ: str) -> Invocation:
    return _Weave({"WEAVEMW_RUN_DIR": "/nonexistent", "WEAVE_HTTP_ADDR": "127.0.0.1:1", **environ})


@pytest.mark.parametrize(("error", "said"), [
    pytest.param(InvalidCidr("10.2.1.300/24", "so"), 'invalid address "10.2.1.300/24": so', id="malformed"),
    pytest.param(AddressTaken("10.2.1.1/8", _ID),
                 "address 10.2.1.1/8 is taken by web (1c7d23a8028b): choose another, or `weave detach 10.2.1.1/8 web`",
                 id="taken by a container"),
    pytest.param(AddressTaken("10.2.1.1/8", "weave:expose"),
                 "address 10.2.1.1/8 is taken by this host: choose another, or `weave hide 10.2.1.1/8`", id="host"),
    pytest.param(AddressTaken("10.2.1.1/8", "a" * 64), "address 10.2.1.1/8 is taken by aaaaaaaaaaaa: choose another",
                 id="taken by one that is gone"),
    pytest.param(NoSuchContainer("wbe", "whatever"), "whatever: did you mean web?", id="near"),
    pytest.param(NoSuchContainer("x", "whatever"), "whatever: `docker ps -a` lists them all", id="not near"),
    pytest.param(DockerError(500, "broken"), "broken", id="Docker's own words"),
    pytest.param(NotRunning("web", "web is not running"),
                 "web is not running: `weave start web` starts it, and attaches it", id="not running"),
    pytest.param(RouterUnreachable("whatever", absent=True),
                 "weave router is not running (nothing answers at 127.0.0.1:1): `weave launch` starts it", id="none"),
    pytest.param(RouterUnreachable("the weave router at x did not answer: no answer in time"),
                 "the weave router at x did not answer: no answer in time", id="a slow router"),
    pytest.param(NotARouter("127.0.0.1:1"),
                 "what answers at 127.0.0.1:1 is no weave router; correct WEAVE_HTTP_ADDR, or end it", id="other"),
    pytest.param(SettingsError("can't write /r/proxy.json: No", hint="--run-dir names another directory"),
                 "can't write /r/proxy.json: No; --run-dir names another directory", id="a hint"),
    pytest.param(RouterError("no\nmore"), "no more", id="the router's own words"),
    pytest.param(DockerUnreachable("Docker at /x did not answer: no answer in time"),
                 "Docker at /x did not answer: no answer in time", id="a slow Docker"),
])
def test_it_is_said_what_to_do(error: WeaveError, said: str) -> None:
    """The error's own words, as one line, and what helps."""
    assert explained(error, _weave()) == said


def _caused(error: WeaveError, cause: OSError) -> WeaveError:
    """The error as it is where the system's was translated, by way of another of ours."""
    error.__cause__ = NoAnswer("whatever")
    error.__cause__.__cause__ = cause
    return error


@pytest.mark.parametrize(("environ", "hint"), [
    ({"DOCKER_HOST": "unix:///x"}, "start Docker, or correct DOCKER_HOST"),
    ({"WEAVEMW_DOCKER_HOST": "unix:///x"}, "start Docker, or correct WEAVEMW_DOCKER_HOST"),
    ({}, "start Docker, or name its socket by DOCKER_HOST"),
])
def test_who_named_the_engine_that_does_not_answer_is_said(environ: dict[str, str], hint: str) -> None:
    """That is where the mistake may be."""
    error = _caused(DockerUnreachable("whatever"), FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert explained(error, _weave(**environ)) == f"{error.message}: {hint}"


@pytest.mark.parametrize("error", [
    DockerUnreachable("whatever"), NetworkError("whatever"),
])
def test_who_is_not_root_is_told(error: WeaveError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refused for that reason."""
    _caused(error, PermissionError(errno.EPERM, "Operation not permitted"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert explained(error, _weave()) == f"{error.message}: try again as root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "as root" not in explained(error, _weave())
