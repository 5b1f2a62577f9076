"""`weave` on a real engine: launched, asked, killed, stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host import TestHost

from weavemw.cli.supervisor import PROXY, ROUTER

pytestmark = [pytest.mark.root, pytest.mark.engine]

_TCP = "tcp://127.0.0.1:12375"
_ROOT = Path(__file__).parents[2]


class Weave:
    """The command on a test host, with listeners that are the host's own."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        self.socket = host.dir / "weave.sock"
        self.listeners = ("-H", f"unix://{self.socket}", "-H", _TCP)

    def __call__(self, *arguments: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.host.run("python", "-m", "weavemw.cli", *arguments, check=check,
                             env={"PYTHONPATH": str(_ROOT), **environ})

    def says(self, *arguments: str, **environ: str) -> str:
        """The one line that a failing command prints."""
        done = self(*arguments, check=False, **environ)
        assert (done.returncode, done.stdout) == (1, "")
        return str(done.stderr)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self("status", "--json", check=False).stdout))

    def names(self) -> set[str]:
        """The names of all containers."""
        return set(self.host.docker("ps", "-a", "--format", "{{.Names}}").stdout.split())

    def pid(self) -> int:
        return int(self.status()["proxy"]["pid"])


@pytest.fixture
def weave(engine_host: TestHost) -> Iterator[Weave]:
    """The command; whatever runs at the end is stopped."""
    command = Weave(engine_host)
    yield command
    command("stop")


def _until(ready: Callable[[], bool], limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while not ready():
        assert time.monotonic() < deadline, "not within its time"
        time.sleep(0.05)


def test_launch_returns_when_everything_serves(weave: Weave) -> None:
    """Docker answers through each listener at once; the status and the log are there; stop leaves nothing behind."""
    launched = weave("launch", *weave.listeners)
    assert launched.stdout == ""
    assert "without TLS" in launched.stderr
    for where in (f"unix://{weave.socket}", _TCP):
        assert "weaveproxy" in weave.host.docker("ps", host=where).stdout
    assert weave("status").stdout.splitlines()[-1] == "weave proxy is running"
    assert weave("healthcheck").stdout.startswith("healthy: proxy ")
    assert "Listening at" in weave.host.docker("logs", "weaveproxy").stderr
    assert (weave.socket.stat().st_mode, weave.socket.stat().st_gid) == \
        (weave.host.socket.stat().st_mode, weave.host.socket.stat().st_gid)
    weave("stop")
    assert not weave.names() & {"weave", "weaveproxy"}
    assert not weave.socket.exists()
    assert weave("status", check=False).returncode == 1


def test_a_second_launch_is_refused(weave: Weave) -> None:
    """Each launch says what runs already, and what runs goes on."""
    weave("launch", *weave.listeners)
    before = weave.pid()
    assert "weave proxy is already running" in weave.says("launch", *weave.listeners)
    assert "weave proxy is already running" in weave.says("launch-proxy", *weave.listeners)
    assert "weave router is already running" in weave.says("launch-router")
    assert weave.pid() == before


def test_env_and_config_lead_docker_to_the_proxy(weave: Weave) -> None:
    """What a shell evaluates makes docker go through the proxy, and back; stop says how to mend the shell."""
    weave("launch", *weave.listeners)
    assert weave("env").stdout == f"export DOCKER_HOST={_TCP} ORIG_DOCKER_HOST={weave.host.docker_host}\n"
    assert weave("config").stdout == f"-H={_TCP}\n"
    assert weave("env", "--restore", DOCKER_HOST=_TCP, ORIG_DOCKER_HOST="").stdout == \
        "unset DOCKER_HOST ORIG_DOCKER_HOST\n"
    inside = {"DOCKER_HOST": _TCP, "ORIG_DOCKER_HOST": weave.host.docker_host}
    assert weave("env", "--check", **inside).stdout.startswith(f"docker goes through the proxy at {_TCP} to Docker ")
    assert "not to the proxy" in weave.says("env", "--check")
    assert "`export DOCKER_TLS_VERIFY=1`" not in weave.says("env", "--check", DOCKER_TLS_VERIFY="1", **inside)
    assert "is already running" in weave.says("launch-proxy", **inside)
    stopped = weave("stop", **inside)
    assert 'eval "$(weave env --restore)"' in stopped.stderr
    assert weave.says("env").startswith("weave: weave proxy is not running: ")
    assert weave("env", "--restore", DOCKER_HOST=_TCP).stdout == "unset DOCKER_HOST\n"


def test_stop_stops_both_where_docker_host_is_the_proxy(weave: Weave) -> None:
    """Also in a shell where DOCKER_HOST was set by hand, and nothing remembers what it was before."""
    weave("launch", *weave.listeners)
    stopped = weave("stop", DOCKER_HOST=f"unix://{weave.socket}")
    assert "DOCKER_HOST still points at the proxy" in stopped.stderr
    assert not weave.names() & {"weave", "weaveproxy"}


def test_verbs_follow_the_proxy_that_runs(weave: Weave) -> None:
    """Who launched with another bridge and another port need not say so to every verb."""
    weave("launch", *weave.listeners, "--bridge=w2", "--router-address=127.0.0.1:6799", "--log-level", "debug")
    assert weave("ps", "weave:expose").stdout.split()[1] == weave.host.links()["w2"]["address"]
    assert weave("prime").stdout == ""
    weave("reset")
    assert "w2" not in weave.host.links()


def test_an_interrupted_launch_leaves_nothing(weave: Weave) -> None:
    """Neither router nor proxy; the status is that of an interrupted command, and nothing is said."""
    child = weave.host.popen("python", "-m", "weavemw", "launch", *weave.listeners, stderr=subprocess.PIPE, text=True,
                             env={"PYTHONPATH": str(_ROOT)})
    _until(lambda: "weaveproxy" in weave.names())
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30)[1].strip() == ""
    assert child.returncode == 130
    assert not weave.names() & {"weave", "weaveproxy"}


def test_router_and_proxy_are_launched_one_by_one_too(weave: Weave) -> None:
    """launch-router and launch-proxy, each with its options, and stop-proxy and stop-router."""
    weave("launch-router", "--dns-domain=corp.internal", "--ipalloc-range=10.40.0.0/16")
    weave("launch-proxy", *weave.listeners, "--log-level=debug", "--no-default-ipalloc")
    assert "corp.internal" in weave("status", "dns").stdout or "corp.internal" in weave("status").stdout
    assert "10.40.0.0/16" in weave("status").stdout
    weave("stop-proxy")
    assert weave.names() & {"weave", "weaveproxy"} == {"weave"}
    weave("stop-router")
    assert not weave.names() & {"weave", "weaveproxy"}


@pytest.mark.parametrize(("arguments", "complaint"), [
    pytest.param(["launch-proxy", "-H", "tcp://127.0.0.1:12399"], ") listens there already", id="a port that is taken"),
    pytest.param(["launch-proxy", "-H", "/nowhere/weave.sock"], "No such file or directory", id="no such directory"),
    pytest.param(["launch-router", "--ipalloc-range=172.17.0.0/16"], "overlaps the route", id="Docker's own range"),
    pytest.param(["launch", "-H", "/nowhere/weave.sock"], "No such file or directory", id="the second of two"),
])
def test_a_launch_that_fails_says_why_and_leaves_nothing(weave: Weave, arguments: list[str], complaint: str) -> None:
    """One line with the program's own reason, and no container of it."""
    taken = weave.host.popen("python", "-c", "import socket, time; s = socket.create_server(('127.0.0.1', 12399)); "
                             "print(flush=True); time.sleep(99)", stdout=subprocess.PIPE)
    assert taken.stdout is not None
    taken.stdout.readline()
    said = weave.says(*arguments)
    assert said.startswith("weave: weave ")
    assert complaint in said
    assert said.count("\n") == 1
    assert not weave.names() & {"weave", "weaveproxy"}
    taken.kill()


def test_what_was_left_of_a_proxy_is_no_obstacle(weave: Weave) -> None:
    """A stopped container of its name and a socket file on which nobody listens are replaced."""
    weave("launch-proxy", *weave.listeners)
    weave.host.docker("update", "--restart=no", "weaveproxy")
    weave.host.docker("kill", "weaveproxy")
    assert weave.socket.exists()
    weave("launch-proxy", *weave.listeners)
    assert weave.status()["proxy"]["running"]


def test_in_the_foreground_it_needs_no_container(weave: Weave) -> None:
    """--foreground serves until it is told to stop, also by `weave stop`."""
    options = {"env": {"PYTHONPATH": str(_ROOT)}, "stderr": subprocess.PIPE}
    router = weave.host.popen("python", "-m", "weavemw.cli", "launch-router", "--foreground", **options)
    proxy = weave.host.popen("python", "-m", "weavemw.server", *weave.listeners, **options)
    _until(lambda: weave("healthcheck", check=False).returncode == 0)
    assert not weave.names() & {"weave", "weaveproxy"}
    assert f"already running (pid {proxy.pid})" in weave.says("launch-proxy", *weave.listeners)
    assert "stop it where it was started" in weave("stop").stderr  # the router
    assert proxy.wait(10) == 0
    router.terminate()
    router.wait(10)


def test_gunicorn_itself_serves_with_the_configuration_in_conf(weave: Weave) -> None:
    """`gunicorn -c conf/gunicorn.conf.py weavemw.app:proxy` is the same proxy."""
    gunicorn = weave.host.popen(
        "gunicorn", "-c", str(_ROOT / "conf/gunicorn.conf.py"), "weavemw.app:proxy",
        env={"PYTHONPATH": str(_ROOT), "WEAVEMW_LISTENERS": f"unix://{weave.socket}"}, stderr=subprocess.PIPE)
    _until(lambda: weave.status()["proxy"]["running"]
           and not any(each["error"] for each in weave.status()["proxy"]["listening"]))
    assert weave.host.docker("version", host=f"unix://{weave.socket}").returncode == 0
    gunicorn.terminate()
    assert gunicorn.wait(10) == 0
    assert not weave.socket.exists()


def test_our_containers_have_no_rights_but_those_named(weave: Weave) -> None:
    """The kernel's own word on what the processes may do."""
    weave("launch", *weave.listeners)
    for program in (PROXY, ROUTER):
        pid = int(weave.host.docker("inspect", "-f", "{{.State.Pid}}", program.name).stdout)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["CapEff"], 16).bit_count() == len(program.capabilities)
        assert status["NoNewPrivs"] == "1"
        assert Path(f"/proc/{pid}/ns/net").stat().st_ino == Path(f"/run/netns/{weave.host.name}").stat().st_ino


def test_launching_again_and_again_leaves_nothing_behind(weave: Weave) -> None:
    """One image, however often; no volume."""
    def nameless() -> int:
        return images().count("<none>")

    def images() -> list[str]:
        return str(weave.host.docker("images", "-a", "--format", "{{.Repository}}").stdout).split()

    before = nameless()  # of other tests
    for _ in range(3):
        weave("launch-proxy", *weave.listeners)
        weave("stop-proxy")
    assert images().count("weavemw/host") == 1
    assert nameless() == before
    assert weave.host.docker("volume", "ls", "-q").stdout == ""


