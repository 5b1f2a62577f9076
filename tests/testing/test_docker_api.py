"""The stand-in for Docker, with real clients: docker-py, and docker's own command line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from weavemw import docker_proxy, errors, on
from weavemw.testing import DockerApi, Ran, serve


@pytest.fixture
def api() -> DockerApi:
    return DockerApi()


@pytest.fixture
def socket(api: DockerApi) -> Iterator[Path]:
    with serve(api) as path:
        yield path


@pytest.fixture
def client(socket: Path) -> Iterator[Any]:
    made = docker.DockerClient(f"unix://{socket}", version="1.41")
    yield made
    made.close()


def cli(socket: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Docker's command line at this socket."""
    if not shutil.which("docker"):
        pytest.skip("docker's command line is not installed")
    return subprocess.run(["docker", "-H", f"unix://{socket}", *args], capture_output=True, text=True, timeout=30,
                          check=False, **options)


def test_a_run_gives_its_output(client: Any) -> None:
    """Create, attach, start, wait, logs, remove: as docker-py does it."""
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    assert client.containers.list(all=True) == []


def test_a_failing_command_fails(client: Any) -> None:
    """With its status."""
    with pytest.raises(docker.errors.ContainerError):
        client.containers.run("busybox", "false")


def test_a_container_lives_until_it_is_stopped(client: Any) -> None:
    """What is no short command runs."""
    web = client.containers.run("nginx", name="web", detach=True, labels={"a": "1"})
    web.reload()
    assert (web.status, web.labels) == ("running", {"a": "1"})
    assert web.exec_run(["echo", "inside"]).output == b"inside\n"
    web.stop()
    assert web.wait()["StatusCode"] == 143
    web.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("web")


def test_a_name_is_there_once(client: Any) -> None:
    """409, as Docker's."""
    client.containers.create("busybox", name="web")
    with pytest.raises(docker.errors.APIError, match="already in use"):
        client.containers.create("busybox", name="web")


def test_a_running_container_is_removed_by_force_only(client: Any) -> None:
    """409 else."""
    web = client.containers.run("nginx", detach=True)
    with pytest.raises(docker.errors.APIError, match="running"):
        web.remove()
    web.remove(force=True)


def test_what_a_command_does_can_be_said(tmp_path: Path) -> None:
    """By a function of one's own."""
    with serve(DockerApi(lambda command: Ran(repr(list(command)).encode(), 7))) as path:
        ran = cli(path, "run", "busybox", "make", "it")
    assert (ran.stdout, ran.returncode) == ("['make', 'it']", 7)


def test_dockers_command_line(socket: Path, api: DockerApi) -> None:
    """An attached run, ps and rm."""
    assert cli(socket, "run", "--name", "hello", "busybox", "echo", "hello").stdout == "hello\n"
    assert "hello" in cli(socket, "ps", "-a").stdout
    assert cli(socket, "rm", "hello").returncode == 0
    assert ("container_create", "") in api.requests


def test_what_it_does_not_know_it_says(client: Any) -> None:
    """501, with the call."""
    with pytest.raises(docker.errors.APIError, match="does not know"):
        client.volumes.create("a")


def test_a_policy_in_front_of_it(socket: Path, api: DockerApi) -> None:
    """The whole way: client, policy, daemon, each on its socket."""
    @on("container_create")
    def no_root(call: Any) -> None:
        if call.body.string("User") in ("", "root", "0"):
            raise errors.Forbidden("nobody is root here")

    with serve(docker_proxy(no_root, socket=str(socket))) as path:
        refused = cli(path, "run", "busybox", "true")
        assert "nobody is root here" in refused.stderr
        assert cli(path, "run", "--user", "1000", "busybox", "echo", "x").stdout == "x\n"
    assert [name for name, _ in api.requests].count("container_create") == 1
