"""The wait program as Docker starts it: in images, as users and under restrictions of every kind."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from host import TestHost

from weavemw.dockerapi.wait_mount import bind_of
from weavemw.wait import install

pytestmark = pytest.mark.engine

Create = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def create(engine_host: TestHost) -> Iterator[Create]:
    """A function that creates a wrapped container, as the proxy will have Docker do it."""
    mount = bind_of(str(install(engine_host.state_dir)), "/dev/w")
    made = []

    def create(*arguments: str, options: tuple[str, ...] = ()) -> str:
        created = engine_host.docker("create", "--volume", mount, "--entrypoint", "/dev/w", *options, *arguments)
        made.append(created.stdout.strip())
        return made[-1]

    yield create
    engine_host.docker("rm", "--force", *made)


def start(host: TestHost, container: str) -> int:
    """Start a container and return the process in it that waits."""
    host.docker("start", container)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for pid in host.docker("top", container, "-o", "pid").stdout.split()[1:]:
            if os.readlink(f"/proc/{pid}/exe").endswith("/w"):
                return int(pid)
    raise AssertionError(host.docker("logs", container).stderr)


def attach(host: TestHost, pid: int) -> None:
    """Give a container's process the interface it waits for; the host's end goes up last."""
    name = f"wait{next(_numbers)}"
    host.ip("link", "add", name, "type", "veth", "peer", "name", "ethwe", "netns", str(pid))
    host.run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "set", "ethwe", "up")
    host.ip("link", "set", name, "up")


def result(host: TestHost, container: str) -> tuple[int, str]:
    """A container's exit status, and all it printed, once it has ended."""
    status = int(host.docker("wait", container).stdout)
    logs = host.docker("logs", container)
    return status, logs.stdout + logs.stderr


STRICT = ("--read-only", "--user", "65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


@pytest.mark.parametrize("options", [
    pytest.param((), id="plain"),
    pytest.param(("--user", "65534"), id="user"),
    pytest.param(("--read-only",), id="read-only"),
    pytest.param(("--cap-drop", "ALL"), id="no capabilities"),
    pytest.param(("--security-opt", "no-new-privileges"), id="no new privileges"),
    pytest.param(STRICT, id="all of these"),
    pytest.param((*STRICT, "--init", "--tty"), id="and an init and a terminal"),
    pytest.param(("--network", "none"), id="no other network"),
    pytest.param(("--memory", "6m"), id="next to no memory"),
])
def test_the_command_runs_once_attached(engine_host: TestHost, create: Create, options: tuple[str, ...]) -> None:
    """However a container is restricted, it waits, and then runs its command."""
    container = create("busybox", "sh", "-c", "ip link show ethwe >/dev/null && echo attached; exit 7",
                       options=options)
    attach(engine_host, start(engine_host, container))
    status, output = result(engine_host, container)
    assert (status, output.split()) == (7, ["attached"])


@pytest.mark.parametrize("options", [(), STRICT])
def test_an_image_with_nothing_in_it_will_do(engine_host: TestHost, create: Create, options: tuple[str, ...]) -> None:
    """No shell, no libc and no directories are needed."""
    container = create("scratch-true", "/true", options=options)
    attach(engine_host, start(engine_host, container))
    assert result(engine_host, container) == (0, "")


def test_a_restarted_container_waits_again(engine_host: TestHost, create: Create) -> None:
    """With a new network namespace comes a new wait."""
    container = create("busybox", "echo", "ran")
    for times in (1, 2):
        attach(engine_host, start(engine_host, container))
        assert result(engine_host, container) == (0, "ran\n" * times)


@pytest.mark.parametrize(("options", "number"), [
    pytest.param((), signal.SIGTERM, id="default"),
    pytest.param(("--user", "65534", "--cap-drop", "ALL"), signal.SIGTERM, id="user"),
    pytest.param(("--init",), signal.SIGTERM, id="init"),
    pytest.param(("--stop-signal", "SIGQUIT"), signal.SIGQUIT, id="SIGQUIT"),
    pytest.param(("--stop-signal", "SIGWINCH"), signal.SIGWINCH, id="a web server's"),
    pytest.param(("--stop-signal", "SIGWINCH", "--init"), signal.SIGWINCH, id="that of one below an init"),
    pytest.param(("--stop-signal", "SIGRTMIN+3"), signal.SIGRTMIN + 3, id="SIGRTMIN+3"),
])
def test_stopping_ends_the_wait(engine_host: TestHost, create: Create, options: tuple[str, ...], number: int) -> None:
    """``docker stop`` needs no grace period: the status tells the stop signal, not SIGKILL."""
    container = create("busybox", "echo", "ran", options=options)
    start(engine_host, container)
    engine_host.docker("stop", "--time", "50", container)
    assert result(engine_host, container) == (128 + number, "")


@pytest.mark.parametrize("command", [
    "/no/such/command", "no-such-command", "/etc", "/etc/passwd", "./etc/passwd", "group",
])
def test_exit_codes_are_dockers(engine_host: TestHost, create: Create, command: str) -> None:
    """A command that can't be run gives the status that it gives without the wait program, and Docker's own reason."""
    options = ("--env", "PATH=/etc:/bin")
    plain = engine_host.docker("run", "--rm", *options, "--entrypoint", command, "busybox", check=False)
    container = create("busybox", command, options=options)
    engine_host.docker("start", container)
    status, output = result(engine_host, container)
    assert status == plain.returncode
    assert output.count("\n") == 1
    assert output.strip() in plain.stderr


@pytest.mark.parametrize("content", ["true\n", "#!/no/such/interpreter\n"])
def test_what_is_found_and_can_not_be_executed(engine_host: TestHost, create: Create, content: str) -> None:
    """Once it is attached, and with Docker's words; the status is runc's, 1 up to its version 1.1."""
    write = ("sh", "-c", f"printf '{content}' >/bin/odd; chmod 755 /bin/odd")
    engine_host.docker("run", "--name", "odd", "busybox", *write)
    engine_host.docker("commit", "odd", "odd")
    try:
        plain = engine_host.docker("run", "--rm", "odd", "odd", check=False)
        container = create("odd", "odd")
        attach(engine_host, start(engine_host, container))
        assert result(engine_host, container) == (1, plain.stderr)
    finally:
        engine_host.docker("rm", "odd")
