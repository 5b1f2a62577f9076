from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import weavemw
from weavemw import wait
from weavemw.cli import supervisor
from weavemw.cli.supervisor import (
    PROXY,
    ROUTER,
    Launch,
    Supervisor,
    cause,
    complaint,
    container_body,
    is_made_here,
    our_images,
    python_environ,
)
from weavemw.errors import Conflict


@pytest.mark.parametrize("program", [PROXY, ROUTER], ids=lambda program: program.name)
def test_a_container_of_ours_has_the_hosts_eyes_but_few_rights(program: supervisor.Program) -> None:
    """Host's network, processes and files; every capability dropped but those named; restarted always, log rotated."""
    body = container_body(program, ("--option",), {"A": "b"})
    host = body["HostConfig"]
    assert (host["NetworkMode"], host["PidMode"], host["Binds"][0][:7]) == ("host", "host", "/:/host")
    assert host["CapDrop"] == ["ALL"]
    assert tuple(host["CapAdd"]) == program.capabilities
    assert not host.get("Privileged")
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"] == {"Name": "always"}
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


@pytest.mark.parametrize(("optional", "bind"), [
    ("shared:1", "/:/host:rslave"), ("master:1", "/:/host:rslave"), ("shared:1 master:7", "/:/host:rslave"),
    ("", "/:/host"), ("unbindable", "/:/host"),
])
def test_a_container_of_ours_keeps_no_mount_of_the_host(optional: str, bind: str) -> None:
    """What the host unmounts goes there too, where Docker can have that; the last mount at / counts."""
    lines = ["22 1 0:1 / / rw - rootfs rootfs rw", f"27 1 8:1 / / rw,relatime {optional} - ext4 /dev/vda rw",
             "28 27 0:21 / /proc rw shared:5 - proc proc rw"]
    assert supervisor._root_bind("\n".join(lines)) == bind


@pytest.mark.parametrize("program", [PROXY, ROUTER], ids=lambda program: program.name)
def test_docker_asks_whether_a_container_of_ours_serves(program: supervisor.Program) -> None:
    """By this Python, with what the program was launched with."""
    check = container_body(program, ("--http-addr=127.0.0.1:1",), {})["Healthcheck"]
    assert check["Test"] == ["CMD", "/enter", sys.executable, "-P", "-m", "weavemw.probe", "--http-addr=127.0.0.1:1"]
    assert check["Interval"] == 30 * 10**9


class FakeEngine:
    """Containers by name, as ``GET /containers/{id}/json`` shows them."""

    def __init__(self, **containers: dict[str, Any]) -> None:
        self.containers = containers

    def find(self, name: str) -> dict[str, Any] | None:
        return self.containers.get(name)

    def stop(self, name: str, grace: int) -> None:
        self.containers[name]["State"]["Running"] = False

    def logs(self, name: str, lines: int) -> str:
        return "weave router: range x overlaps: y\n"

    def remove(self, name: str) -> None:
        del self.containers[name]


class Interrupted(FakeEngine):
    """Makes a container, and is interrupted before it can say so."""

    def image(self, name: str) -> dict[str, Any]:
        return _image(supervisor._image_root(wait.program("enter")))

    def create(self, name: str, body: dict[str, Any]) -> str:
        self.containers[name] = _inspected(body)
        os.kill(os.getpid(), signal.SIGINT)
        return name


def _image(root: bytes, **config: Any) -> dict[str, Any]:
    return {"RootFS": {"Layers": [f"sha256:{hashlib.sha256(root).hexdigest()}"]},
            "Config": {"Entrypoint": ["/enter"], "Env": None, "Cmd": [], "Labels": {"weavemw": "1"}, **config}}


def test_an_image_is_known_by_what_it_holds() -> None:
    """Not by its name or labels, which anybody's image may have that is loaded or pulled: it would run as root here."""
    root = supervisor._image_root(b"\x7fELF")
    assert is_made_here(_image(root), root)
    assert not is_made_here({}, root)
    assert not is_made_here(_image(b"another"), root)
    extended = _image(root)
    extended["RootFS"]["Layers"].append("sha256:00")
    for other in (extended, _image(root, Env=["PYTHONPATH=/tmp/evil"]), _image(root, Entrypoint=["/evil"]),
                  _image(root, Cmd=["x"]), _image(root, User="1"), _image(root, Volumes={"/host": {}})):
        assert not is_made_here(other, root)


def test_only_images_of_ours_are_removed() -> None:
    """One that has our label has it from somebody else."""
    class Images:
        def labelled_images(self, label: str) -> tuple[str, ...]:
            assert label == "weavemw"
            return ("weavemw/host:0.0.1", "precious:latest", "weavemw/hosting:1")

    engine: Any = Images()
    assert our_images(engine) == ["weavemw/host:0.0.1"]


def test_interrupted_while_a_container_is_made() -> None:
    """Nothing is left of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    engine: Any = Interrupted()
    try:
        with pytest.raises(KeyboardInterrupt):
            Supervisor(engine).launch(PROXY, {}, lambda: True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert engine.containers == {}


def _inspected(body: dict[str, Any]) -> dict[str, Any]:
    return {"State": {"Running": True}, "Config": {name: body.get(name) for name in ("Cmd", "Env", "Labels")}}


def test_what_a_program_was_launched_with_is_read_back_from_its_container() -> None:
    """Arguments and environment; nothing if there is no such container."""
    engine: Any = FakeEngine(weaveproxy=_inspected(container_body(PROXY, ("--a", "b=c"), {"X": "y=z"})))
    assert Supervisor(engine).launched_with(PROXY) == Launch(("--a", "b=c"), {"X": "y=z", "WEAVE_CIDR": "none"})
    assert Supervisor(engine).launched_with(ROUTER) is None


@pytest.mark.parametrize(("state", "trouble"), [
    pytest.param({"Running": True, "Restarting": False}, "", id="it runs"),
    pytest.param({"Running": True, "Restarting": True, "ExitCode": 1}, "range x overlaps: y", id="over and over"),
    pytest.param({"Running": False, "Restarting": False, "ExitCode": 1}, "range x overlaps: y", id="ended"),
    pytest.param({"Running": False, "Restarting": False, "ExitCode": 0},
                 "its container weave was stopped: `weave relaunch` starts it", id="stopped"),
])
def test_a_container_that_does_not_stay_up_says_why(state: dict[str, Any], trouble: str) -> None:
    """In the program's last words; one that is not there says nothing."""
    engine: Any = FakeEngine(weave=_inspected(container_body(ROUTER, (), {})) | {"State": state})
    assert Supervisor(engine).trouble(ROUTER) == trouble
    assert Supervisor(engine).trouble(PROXY) == ""


@pytest.mark.parametrize("labels", [None, {}, {"com.docker.compose.project": "x"}])
def test_a_container_of_others_is_never_touched(labels: dict[str, str] | None) -> None:
    """A Weave Net router's has the same name; ours are known by their label."""
    engine: Any = FakeEngine(weave=_inspected({"Labels": labels}))
    theirs = Supervisor(engine)
    assert not theirs.is_running(ROUTER)
    assert not theirs.stop(ROUTER)
    assert theirs.launched_with(ROUTER) is None
    with pytest.raises(Conflict, match="another container has the name weave"):
        theirs.launch(ROUTER, {}, lambda: True)
    assert engine.containers["weave"]["State"]["Running"]


def test_a_container_of_ours_runs_this_python_and_stays_off_the_weave_network() -> None:
    """It executes the interpreter that makes it, with the program's module, and carries WEAVE_CIDR=none."""
    body = container_body(PROXY, ("--option",), {"A": "b"})
    assert body["Cmd"] == [sys.executable, "-P", "-m", "weavemw.server", "--option"]
    assert body["Env"] == ["A=b", "WEAVE_CIDR=none"]


def test_the_image_holds_one_program_and_a_place_for_the_host() -> None:
    """Nothing else is in it: no shell, no library."""
    with tarfile.open(fileobj=io.BytesIO(supervisor._image_root(b"\x7fELF"))) as tar:
        entries = {(each.name, each.mode, each.isdir()) for each in tar}
    assert entries == {("host", 0o755, True), ("enter", 0o555, False)}


def test_a_fresh_interpreter_finds_this_very_package(tmp_path: Path) -> None:
    """From any directory, with the environment that containers get, ``weavemw`` is the one that runs here."""
    found = subprocess.run([sys.executable, "-P", "-c", "import weavemw; print(weavemw.__file__)"], cwd=tmp_path,
                           env=python_environ({}), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == weavemw.__file__


def test_paths_of_the_callers_python_are_kept_if_they_mean_the_same_elsewhere() -> None:
    """Absolute ones are taken along, in order; relative ones are not."""
    path = python_environ({"PYTHONPATH": "/a:b::/c"})["PYTHONPATH"]
    assert path.split(":")[:2] == ["/a", "/c"]


_GUNICORN = """\
[2026-01-01 10:00:00 +0000] [7] [INFO] Starting gunicorn
[2026-01-01 10:00:01 +0000] [8] [ERROR] Exception in worker process
Traceback (most recent call last):
  File "x.py", line 1, in <module>
ValueError: y
[2026-01-01 10:00:01 +0000] [8] [INFO] Worker exiting (pid: 8)
[2026-01-01 10:00:02 +0000] [7] [ERROR] Shutting down: Master
"""


@pytest.mark.parametrize(("log", "reason"), [
    pytest.param("", "", id="silence"),
    pytest.param("starting\nweave: can't listen on tcp://1.2.3.4:5: no\nbye\n", "can't listen on tcp://1.2.3.4:5: no",
                 id="our own complaint"),
    pytest.param("INFO a\nweave router: range x overlaps: y\n", "range x overlaps: y", id="the router's complaint"),
    pytest.param("weave: warning: anybody gets in\n", "", id="a warning is none"),
    pytest.param("Traceback (most recent call last):\n  File x\nValueError: y\n\n", "ValueError: y", id="exception"),
    pytest.param(_GUNICORN, "ValueError: y", id="an exception, and what followed of it"),
    pytest.param("[d] [7] [ERROR] Worker failed to boot.\n[d] [7] [ERROR] Shutting down: Master\n",
                 "Worker failed to boot.", id="the first error"),
    pytest.param("[d] [7] [INFO] watching containers\n", "", id="the last line is of anything"),
])
def test_a_line_of_a_log_is_a_complaint_only_if_it_says_so(log: str, reason: str) -> None:
    """What is shown for a failed launch is a reason, not a log."""
    assert complaint(log) == reason


@pytest.mark.parametrize(("log", "state", "limit", "why"), [
    ("[d] [7] [INFO] watching containers\n", {"ExitCode": 137}, 0, "it was ended by SIGKILL"),
    ("weave: an old complaint\n", {"ExitCode": 137, "OOMKilled": True}, 0, "it ran out of memory, and was killed"),
    ("", {"ExitCode": 143}, 0, "it was ended by SIGTERM"),
    ("", {"ExitCode": 255}, 0, "it was ended by signal 127"),
    ("weave: no\n", {"ExitCode": 1}, 0, "no"),
    ("", {"ExitCode": 1, "Error": "no such device"}, 0, "no such device"),
    ("hello\n\n", {"ExitCode": 3}, 0, "it ended with status 3, without saying why; its last line was: hello"),
    ("", {}, 0, "it ended with status 0, without saying why"),
    ("[d] [7] [INFO] watching containers\n", {"Running": True}, 30, "it runs, but does not serve after 30 s"),
    (_GUNICORN, {"Running": True}, 30, "it runs, but does not serve after 30 s; it said: ValueError: y"),
])
def test_how_it_ended_is_why_before_what_it_said(log: str, state: dict[str, Any], limit: float, why: str) -> None:
    """The last line that a program logged is rarely what it died of."""
    assert cause(log, state, limit) == why
