"""Whom is asked for a container, and from where."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from weavemw.dockerapi.container import Container
from weavemw.errors import NetworkError
from weavemw.network.resolv import Resolver, rewritten
from weavemw.router import container_dns
from weavemw.router.container_dns import ContainerDns
from weavemw.router.forward import Place
from weavemw.testing import FakeDocker

ID, CLIENT, HOSTS = "c" * 64, "10.32.0.1", (("192.0.2.1", 53),)
OURS = Resolver("169.254.53.1")


@pytest.fixture
def docker(tmp_path: Path) -> FakeDocker:
    docker = FakeDocker()
    docker.run(ID, name="web", entrypoint=("/dev/w",), binds=("/wait/0123456789ab/w:/dev/w:ro",),
               resolv_conf_path=str(tmp_path / "resolv.conf"))
    return docker


async def owners_of(address: object) -> tuple[str, ...]:
    return (ID,) if str(address) == CLIENT else ()


def places(docker: FakeDocker, **options: bool) -> ContainerDns:
    return ContainerDns(docker, owners_of, lambda address: address == "172.17.0.1", lambda: HOSTS, **options)


def place(dns: ContainerDns, client: str = CLIENT) -> Place | None:
    return asyncio.run(_once(dns.place_of(client)))


async def _once(asked: Coroutine[Any, Any, Place | None]) -> Place | None:
    return await asked


def write(docker: FakeDocker, text: str, **options: bool) -> None:
    Path(docker.containers[ID].resolv_conf_path).write_text(rewritten(text, OURS, **options))


@pytest.mark.parametrize(("text", "upstreams"), [
    pytest.param("nameserver 192.0.2.1\n", None, id="the host's"),
    pytest.param("", None, id="none"),
    pytest.param("nameserver 172.17.0.1\n", None, id="ours, given at create by an earlier version"),
    pytest.param("nameserver 172.17.0.1\nnameserver 192.0.2.9\n", ["192.0.2.9"], id="its own"),
    pytest.param("nameserver 127.0.0.11\noptions ndots:0\n", ["127.0.0.11"], id="Docker's"),
])
def test_whom_docker_would_have_let_it_ask(docker: FakeDocker, text: str, upstreams: list[str] | None) -> None:
    """Where those are the host's own, or none, the host asks."""
    write(docker, text)
    found = place(places(docker))
    assert (found and [address for address, _ in found.upstreams]) == upstreams
    assert not found or found.knows_names is ("127.0.0.11" in text)


def test_servers_that_were_given_to_the_router(docker: FakeDocker) -> None:
    """They count for all, but for names of Docker's."""
    write(docker, "nameserver 192.0.2.9\n")
    assert place(places(docker, given=True)) is None
    write(docker, "nameserver 127.0.0.11\nnameserver 192.0.2.9\n")
    found = place(places(docker, given=True))
    assert found
    assert found.upstreams == [("127.0.0.11", 53)]


def test_a_resolver_that_asks_us(docker: FakeDocker) -> None:
    """It is known as one."""
    write(docker, "nameserver 127.0.0.11\n", running=True)
    found = place(places(docker))
    assert found
    assert found.asks_us


@pytest.mark.parametrize("spoil", [
    pytest.param(lambda docker: docker.die(ID), id="does not run"),
    pytest.param(lambda docker: docker.destroy(ID), id="is gone"),
    pytest.param(lambda docker: docker.containers.update({ID: Container(ID, running=True, pid=9)}), id="not ours"),
    pytest.param(lambda docker: Path(docker.containers[ID].resolv_conf_path).unlink(), id="no file"),
])
def test_for_all_others_the_host_asks(docker: FakeDocker, spoil: Callable[[FakeDocker], object]) -> None:
    """What can't be known is no trouble."""
    write(docker, "nameserver 192.0.2.9\n")
    spoil(docker)
    assert place(places(docker)) is None
    assert place(places(docker), "10.32.0.2") is None


def test_docker_is_not_asked_for_each_question(docker: FakeDocker) -> None:
    """What was found counts for a moment."""
    write(docker, "nameserver 192.0.2.9\n")

    async def often() -> None:
        dns = places(docker)
        await asyncio.gather(*(dns.place_of(CLIENT) for _ in range(20)))

    asyncio.run(often())
    assert [name for name, *_ in docker.calls].count("inspect") == 1


def test_the_namespace_is_that_of_who_is_there(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart that was not heard of yet, the container is looked at again."""
    write(docker, "nameserver 192.0.2.9\n")
    first = docker.containers[ID].pid
    entered = []

    def inside(pid: int, sandbox: str, action: Callable[[], socket.socket]) -> socket.socket:
        entered.append(pid)
        if pid == first:
            raise NetworkError("process has ended")
        return action()

    monkeypatch.setattr(container_dns, "inside", inside)

    async def ask() -> None:
        found = await places(docker).place_of(CLIENT)
        assert found
        docker.die(ID)
        second = docker.start(ID).pid
        with await found.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            assert not channel.getblocking()
        assert entered == [first, second]

    asyncio.run(ask())
