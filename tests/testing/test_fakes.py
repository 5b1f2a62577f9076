from __future__ import annotations

import threading
from ipaddress import ip_interface

import pytest

from weavemw.dockerapi.client import Docker
from weavemw.errors import DockerError, RouterError
from weavemw.network.plan import Network, Plan
from weavemw.router.client import Router
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork, await_true

A = ip_interface("10.32.0.1/24")


def test_fakes_are_what_they_stand_for():
    """Each fake has every method of what it stands for (mypy compares their types)."""
    docker: Docker = FakeDocker()
    router: Router = FakeRouter()
    network: Network = RecordingNetwork()
    for fake, protocol in ((docker, Docker), (router, Router), (network, Network)):
        assert not {name for name in vars(protocol) if not name.startswith("_")} - set(dir(fake))


def test_docker_tells_listeners_what_happens():
    """A listener hears what happens from then on, and what happened since a time."""
    docker = FakeDocker()
    container = docker.run()
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(event["Action"] for event in docker.events(since=0)))
    listener.start()
    docker.await_listeners()
    docker.die(container.id)
    docker.destroy(container.id)
    docker.disconnect()
    listener.join(5)
    assert heard == ["create", "start", "die", "destroy"]


def test_docker_finds_containers_as_the_daemon_does():
    """By id, by name, by the beginning of an id; others are a 404."""
    docker = FakeDocker()
    container = docker.create(name="web")
    assert docker.inspect(container.id) == docker.inspect("web") == docker.inspect(container.short_id) == container
    with pytest.raises(DockerError) as error:
        docker.inspect("other")
    assert error.value.status == 404


def test_router_gives_the_lowest_free_address():
    """Addresses come in order, are kept, and can be claimed once."""
    router = FakeRouter("10.32.0.0/30")
    assert router.allocate("a") == router.allocate("a") == ip_interface("10.32.0.1/30")
    assert router.allocate("b") == ip_interface("10.32.0.2/30")
    with pytest.raises(RouterError, match="no free addresses"):
        router.allocate("c")
    with pytest.raises(RouterError, match="already owned"):
        router.claim("c", ip_interface("10.32.0.2/30"))
    router.release("a")
    router.release("a")
    assert router.allocate("c") == ip_interface("10.32.0.1/30")


@pytest.mark.parametrize("address", [A, None])
def test_router_releases_one_or_all(address):
    """One address goes, or all."""
    router = FakeRouter()
    router.claim("a", A)
    router.claim("a", ip_interface("10.9.0.1/24"))
    router.release("a", address)
    assert router.owners == ({"a": (ip_interface("10.9.0.1/24"),)} if address else {})


def test_network_attaches_in_memory():
    """What is prepared has no carrier, what is committed has, what is undone is gone."""
    network = RecordingNetwork()
    with network.namespace(5) as namespace:
        namespace.prepare(Plan("a" * 64, (A,)))
        assert not namespace.ethwe().attached
        namespace.commit()
        assert namespace.ethwe().attached
        namespace.undo()
        assert namespace.ethwe() is None
    assert network.steps == ["namespace", "prepare", "commit", "undo"]


def test_failures_are_raised():
    """An error under a method's name is raised by it."""
    router = FakeRouter()
    router.failures["allocate"] = RouterError("no")
    with pytest.raises(RouterError, match="no"):
        router.allocate("a")
    assert router.called("allocate") == [("a", "")]


def test_await_true_has_an_end():
    """What does not come true is a TimeoutError."""
    with pytest.raises(TimeoutError):
        await_true(lambda: False, timeout=0.01)
