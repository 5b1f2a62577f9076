from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import FakeDaemon, Request

from weavemw.cli import run
from weavemw.cli.options import router_settings
from weavemw.cli.supervisor import ROUTER, container_body
from weavemw.errors import SettingsError

_ROUTER, _PROXY = "/containers/weave/json", "/containers/weaveproxy/json"


def _not_found(request: Request) -> None:
    request.answer(b'{"message": "no such container"}', "404 Not Found")


def _container(*arguments: str, **environ: str) -> Any:
    body = container_body(ROUTER, arguments, environ)
    config = {name: body[name] for name in ("Cmd", "Env", "Labels")}
    return lambda request: request.answer(json.dumps({"Config": config, "State": {"Running": True}}).encode())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "docker.sock", {_ROUTER: _not_found, _PROXY: _not_found}) as daemon:
        yield daemon


def _relaunch(daemon: FakeDaemon) -> int:
    return run(["relaunch"], {"DOCKER_HOST": f"unix://{daemon.path}", "WEAVEMW_RUN_DIR": str(daemon.path.parent)})


def test_where_nothing_runs_it_says_how_to_start(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 1."""
    assert _relaunch(daemon) == 1
    assert capsys.readouterr() == ("", "weave: weave is not running: `weave launch` starts it\n")


@pytest.mark.parametrize(("path", "container", "words"), [
    pytest.param(_ROUTER, _container("--dns-domian=x"), "weave router can't be launched as before: No such option",
                 id="an option of another version"),
    pytest.param(_ROUTER, _container("--http-addr=nonsense"), "write HOST:PORT", id="a value of another version"),
    pytest.param(_PROXY, _container(WEAVEMW_THREADS="many"), "weave proxy can't be launched as before: threads 'many'",
                 id="a setting of another version"),
    pytest.param(_PROXY, _container(WEAVEMW_TLS="true", WEAVEMW_TLS_CERT="/nowhere.pem", WEAVEMW_TLS_KEY="/nowhere"),
                 "can't read /nowhere", id="certificates that are gone"),
])
def test_settings_that_can_not_be_had_again_stop_nothing(daemon: FakeDaemon, path: str, container: Any, words: str,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong, and what to do; Docker is only asked."""
    daemon.handlers[path] = container
    assert _relaunch(daemon) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "nothing was changed: `weave stop`, then `weave launch`" in said
    assert {request.line.split()[0] for request in daemon.requests} == {"GET"}


def test_the_routers_settings_are_read_from_its_command_line() -> None:
    """As the router itself reads it, defaults included."""
    settings = router_settings(("--http-addr=127.0.0.1:7000", "--dns-domain=corp.internal"))
    assert (settings.http_address, settings.dns_domain) == ("127.0.0.1:7000", "corp.internal")
    with pytest.raises(SettingsError):
        router_settings(("--help-me",))
