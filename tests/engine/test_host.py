"""The test bed itself, before anything is built on it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import host as bed
import pytest
from host import TestHost

pytestmark = pytest.mark.engine


def running(host: TestHost) -> str:
    return str(host.docker("ps", "--quiet", "--no-trunc").stdout).strip()


def test_a_container_runs(engine_host: TestHost) -> None:
    """A host's engine runs containers from the image made on the spot."""
    done = engine_host.docker("run", "--rm", "-i", "busybox", "tr", "a-z", "A-Z", input="hello")
    assert done.stdout == "HELLO"


def test_the_minimal_image_holds_one_program_and_nothing_else(engine_host: TestHost) -> None:
    """scratch-true runs its one program; there is no shell in it."""
    engine_host.docker("run", "--rm", "scratch-true")
    refused = engine_host.docker("run", "--rm", "scratch-true", "sh", check=False)
    assert refused.returncode == 127


def test_bytes_are_kept(engine_host: TestHost) -> None:
    """With text=False, input and output are the bytes themselves."""
    data = bytes(range(256))
    assert engine_host.docker("run", "--rm", "-i", "busybox", "cat", input=data, text=False).stdout == data


def test_a_failure_says_what_the_command_said(engine_host: TestHost) -> None:
    """A command that fails raises, with its stderr."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        engine_host.docker("inspect", "nobody")
    assert "nobody" in caught.value.stderr


def test_commands_run_on_the_host(engine_host: TestHost) -> None:
    """run, popen and links are the host's own view: its docker0, its loopback, its engine's socket."""
    assert {"lo", "docker0"} <= set(engine_host.links())
    assert engine_host.run("docker", "info", "--format", "{{.DockerRootDir}}").stdout.startswith(str(engine_host.dir))
    with engine_host.popen("ip", "-oneline", "address", stdout=subprocess.PIPE, text=True) as child:
        assert "docker0" in child.communicate()[0]


def test_the_callers_docker_is_out_of_reach(engine_host: TestHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever engine the caller's environment names, commands on the host talk to the host's."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    engine_host.docker("version")


def test_joined_hosts_reach_each_other(make_host: Callable[..., TestHost]) -> None:
    """Two hosts at once, joined by a cable, ping each other from host and container."""
    a, b = make_host(), make_host()
    _, address = a.join(b)
    a.run("busybox", "ping", "-c", "1", "-W", "5", address)
    a.docker("run", "--rm", "--network", "host", "busybox", "ping", "-c", "1", "-W", "5", address)


def test_a_killed_dockerd_comes_back(fresh_host: TestHost) -> None:
    """dockerd can be killed and started again; it restarts what its policy says."""
    fresh_host.docker("run", "--detach", "--restart", "always", "--stop-signal", "KILL", "busybox", "sleep", "1000")
    container = running(fresh_host)
    fresh_host.kill_dockerd()
    assert fresh_host.docker("ps", check=False).returncode != 0
    fresh_host.start_dockerd()
    assert running(fresh_host) == container


def test_containers_outlive_dockerd_with_live_restore(make_host: Callable[..., TestHost]) -> None:
    """With live-restore, a container is the same process before and after dockerd's restart."""
    host = make_host(live_restore=True)
    host.docker("run", "--detach", "--name", "sleeper", "busybox", "sleep", "1000")
    pid = host.docker("inspect", "--format", "{{.State.Pid}}", "sleeper").stdout
    host.restart_dockerd()
    assert host.docker("inspect", "--format", "{{.State.Pid}}", "sleeper").stdout == pid


@pytest.mark.parametrize("dockerd", ["running", "killed"])
def test_nothing_is_left(make_host: Callable[..., TestHost], dockerd: str) -> None:
    """A closed host leaves no process, mount, cgroup, namespace or file, also after its dockerd was killed."""
    host = make_host()
    host.docker("run", "--detach", "--restart", "always", "--network", "host", "busybox", "sleep", "1000")
    child = host.popen("sleep", "1000")
    if dockerd == "killed":
        host.kill_dockerd()
    host.close()
    host.close()  # closing twice does no harm
    assert child.returncode == -signal.SIGKILL
    assert traces(host) == []


def test_what_a_killed_run_left_is_swept() -> None:
    """The next run clears away the hosts of a run that was killed."""
    script = f"import sys; sys.path.insert(0, {str(Path(bed.__file__).parent)!r}); import host, os; " \
             "os.write(1, host.TestHost(images=False).start().name.encode()); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.decode() in bed.sweep()


def traces(host: TestHost) -> list[str]:
    """All that is still to be seen of a host on this machine."""
    found = [path for path in (Path("/proc/self/mountinfo"), *Path("/proc").glob("[0-9]*/cmdline"))
             if host.name in _text(path)]
    places = [host.dir, Path("/run/netns") / host.name, *Path("/sys/fs/cgroup").glob(f"*/{host.name}")]
    return [*map(str, found), *(str(place) for place in places if place.exists())]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # a process that has ended meanwhile
        return ""
