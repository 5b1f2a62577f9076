"""Settings made of an environment: which engine it means."""

from __future__ import annotations

import logging

import pytest

from weavemw.settings import Engine, Settings, engine_in, points_at

_FACTS = {"listeners": ["unix:///run/w.sock", "tcp://0.0.0.0:12375"], "docker_host": "unix:///run/docker.real"}


@pytest.mark.parametrize(("environ", "running", "engine"), [
    pytest.param({}, True, Engine(""), id="nothing said"),
    pytest.param({"DOCKER_HOST": "unix:///run/other.sock"}, True, Engine("unix:///run/other.sock"), id="an engine"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:12375"}, True, Engine("unix:///run/docker.real"), id="the proxy"),
    pytest.param({"DOCKER_HOST": "unix:///run/w.sock"}, True, Engine("unix:///run/docker.real"),
                 id="the proxy's unix socket"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:9", "ORIG_DOCKER_HOST": "unix:///o"}, False, Engine("unix:///o"),
                 id="a proxy that has stopped"),
    pytest.param({"DOCKER_HOST": "unix:///var/run/weave.sock", "ORIG_DOCKER_HOST": ""}, False, Engine(""),
                 id="a stopped proxy's unix socket"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:12375"}, False, Engine("", ignored="tcp://127.0.0.1:12375"),
                 id="a stopped proxy, set by hand"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:9", "ORIG_DOCKER_HOST": "tcp://vm:2376"}, False,
                 Engine("", ignored="tcp://vm:2376"), id="another machine before"),
    pytest.param({"DOCKER_HOST": "unix:///mine", "ORIG_DOCKER_HOST": "unix:///o"}, False, Engine("unix:///mine"),
                 id="set anew since"),
    pytest.param({"DOCKER_HOST": "unix:///to/be", "ORIG_DOCKER_HOST": ""}, False, Engine(""),
                 id="where the proxy is to listen"),
    pytest.param({"DOCKER_HOST": "unix:///to/be"}, False, Engine("unix:///to/be"), id="an engine, or a mistake"),
    pytest.param({"DOCKER_HOST": "ssh://vm"}, False, Engine("ssh://vm"), id="what can't be used"),
])
def test_our_own_calls_go_to_the_engine(environ: dict[str, str], running: bool, engine: Engine) -> None:
    """Where DOCKER_HOST is the proxy, the engine is what the proxy says, or what DOCKER_HOST was before."""
    assert engine_in(environ, ["unix:///to/be"], _FACTS if running else None) == engine


@pytest.mark.parametrize(("docker_host", "ours"), [
    ("tcp://127.0.0.1:12375", True), ("tcp://10.0.0.1:12375", True), ("unix:///run/w.sock", True),
    ("tcp://127.0.0.1:2375", False), ("unix:///run/docker.sock", False), ("", False), ("ssh://host", False),
])
def test_it_is_seen_where_a_docker_host_points(docker_host: str, ours: bool) -> None:
    """Also for what is no listener of ours at all."""
    assert points_at(docker_host, _FACTS["listeners"]) is ours


@pytest.mark.parametrize(("environ", "engine", "warned"), [
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:12375"}, "unix:///var/run/docker.sock", True, id="the proxy"),
    pytest.param({"DOCKER_HOST": "unix:///var/run/weave.sock"}, "unix:///var/run/docker.sock", True, id="its socket"),
    pytest.param({"DOCKER_HOST": "unix:///w", "ORIG_DOCKER_HOST": "unix:///d", "WEAVEMW_LISTENERS": "unix:///w tcp://:1"},
                 "unix:///d", False, id="its own listener"),
    pytest.param({"DOCKER_HOST": "tcp://x:1", "WEAVEMW_DOCKER_HOST": "unix:///d"}, "unix:///d", False, id="both"),
    pytest.param({"DOCKER_HOST": "unix:///d"}, "unix:///d", False, id="an engine"),
    pytest.param({}, "unix:///var/run/docker.sock", False, id="nothing"),
])
def test_a_program_started_in_a_shell_led_to_the_proxy_serves(
        caplog: pytest.LogCaptureFixture, environ: dict[str, str], engine: str, warned: bool) -> None:
    """With Docker's own socket, and one line of warning."""
    with caplog.at_level(logging.WARNING):
        assert Settings.from_environ(environ).docker_host == engine
    said = f"DOCKER_HOST is {environ.get('DOCKER_HOST')}, which is no Docker Engine's socket on this machine: "
    assert [record.getMessage() for record in caplog.records] == [f"{said}{engine} is used"] * warned
