"""A command that can't be found, through the proxy and past it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

WRONG = ["nosuch", "/no/such", "./nosuch", "/etc", "/etc/passwd", "group", "--help", "--version", "-x"]


@pytest.fixture(scope="module")
def weave(engine_host: TestHost) -> Iterator[Launched]:
    """Weave on the host that all share."""
    launched = Launched(engine_host)
    yield launched
    launched.weave("stop")


Docker = Callable[..., subprocess.CompletedProcess[str]]


def _said(docker: Docker, *arguments: str) -> tuple[int, str]:
    """Status and what docker itself says, without ids; not what the wait program logs."""
    done = docker("run", "-e", "PATH=/etc:/bin", "--name", "wrong", *arguments, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("docker: ")]
    return done.returncode, re.sub(r"[0-9a-f]{64}", "ID", "\n".join(said))


@pytest.fixture(autouse=True)
def _nothing_left(weave: Launched) -> Iterator[None]:
    """Whatever fails, the next test begins anew."""
    yield
    weave.host.docker("rm", "-f", "wrong", check=False)


@pytest.mark.parametrize("command", WRONG)
@pytest.mark.parametrize("options", [(), ("-d",), ("--rm",), ("-d", "--restart=always")])
def test_a_wrong_command_fails_as_in_docker(weave: Launched, options: tuple[str, ...], command: str) -> None:
    """The client's status and words are those that it has without us; nothing restarts it, nothing is left of it."""
    host = weave.host.docker
    before = weave.left()
    direct = _said(host, *options, "busybox", command)
    host("rm", "-f", "wrong", check=False)
    assert _said(weave.docker, *options, "busybox", command) == direct
    shown = host("inspect", "-f", "{{.State.Running}} {{.State.Restarting}} {{.State.ExitCode}}", "wrong", check=False)
    if "--rm" in options:
        assert eventually(lambda: host("inspect", "wrong", check=False).returncode)
    else:
        assert shown.stdout.strip() == f"false false {direct[0]}"
        host("rm", "-f", "wrong")
    assert direct[0] in (126, 127)
    assert eventually(lambda: weave.left() == before)


@pytest.mark.parametrize("options", [("--init",), ("-d", "--init")])
def test_below_an_init_it_is_init_that_fails(weave: Launched, options: tuple[str, ...]) -> None:
    """With or without us, after the start."""
    seen = []
    for docker in (weave.host.docker, weave.docker):
        seen.append(_said(docker, *options, "busybox", "nosuch"))
        weave.host.docker("wait", "wrong")
        seen.append((int(weave.host.docker("inspect", "-f", "{{.State.ExitCode}}", "wrong").stdout), ""))
        weave.host.docker("rm", "-f", "wrong")
    assert seen[:2] == seen[2:]


def test_a_restart_says_it_too(weave: Launched) -> None:
    """When the command went away meanwhile."""
    weave.docker("run", "-d", "--name", "wrong", "busybox", "sh", "-c", "cp /bin/busybox /sleep; mv /bin/sh /s; /s")
    weave.docker("wait", "wrong")
    done = weave.docker("restart", "wrong", check=False)
    assert done.returncode == 1
    assert 'exec: "sh": executable file not found in $PATH' in done.stderr
    weave.host.docker("rm", "-f", "wrong")
