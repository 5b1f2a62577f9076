from __future__ import annotations

from ipaddress import ip_interface

import pytest

from weavemw.attaching import allocation
from weavemw.attaching.allocation import allocate, has_run
from weavemw.attaching.decision import Lease
from weavemw.dockerapi.container import Container
from weavemw.errors import ClientGone, RouterBusy, RouterError, RouterUnreachable
from weavemw.network.addresses import parse
from weavemw.testing import FakeRouter

NEW = Container("a" * 64, started_at="0001-01-01T00:00:00Z")
OLD = Container("a" * 64, started_at="2026-01-01T00:00:00Z")
OTHER = "b" * 64


def addresses(*texts):
    return tuple(map(ip_interface, texts))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(allocation, "_STEP", 0.01)
    monkeypatch.setattr(allocation, "_GRACE", 0.05)


@pytest.mark.parametrize(("value", "expected"), [
    ("", ("10.32.0.1/24",)),
    ("10.2.1.1/24", ("10.2.1.1/24",)),
    ("net:10.40.0.0/24", ("10.40.0.1/24",)),
    ("net:default 10.2.1.1/24 net:10.40.0.0/24 fd00::1/64",
     ("10.32.0.1/24", "10.2.1.1/24", "10.40.0.1/24", "fd00::1/64")),
    ("10.32.0.1/24 net:default", ("10.32.0.1/24",)),
])
def test_all_that_is_wanted_in_order(value, expected):
    """The container holds what it wanted, in that order; asked again it is the same."""
    router = FakeRouter()
    lease = allocate(router, NEW, parse(value), timeout=1)
    assert lease == Lease(addresses(*expected), fresh=addresses(*expected))
    assert allocate(router, NEW, parse(value), timeout=1) == lease
    assert router.owners == {NEW.id: lease.addresses}


@pytest.mark.parametrize(("value", "expected"), [
    ("", ("10.32.0.1/24", "fd00::1/64")),
    ("net:default 10.2.1.1/24", ("10.32.0.1/24", "fd00::1/64", "10.2.1.1/24")),
    ("net:10.40.0.0/24", ("10.40.0.1/24",)),
    ("net:fd00::/64", ("fd00::1/64",)),
])
def test_default_is_both_families_where_the_router_has_both(value, expected):
    """By default a container gets an address of each family; a subnet or address is of the family it is of."""
    lease = allocate(FakeRouter(subnet6="fd00::/64"), NEW, parse(value), timeout=1)
    assert lease.addresses == addresses(*expected)


def test_container_that_has_run_keeps_everything():
    """One that has run has what it was given besides, and nothing of it is fresh."""
    router = FakeRouter()
    router.claim(OLD.id, *addresses("10.9.0.1/24"))
    lease = allocate(router, OLD, parse(""), timeout=1)
    assert lease == Lease(addresses("10.32.0.1/24", "10.9.0.1/24"))


@pytest.mark.parametrize(("container", "held"), [(NEW, {}), (OLD, {OLD.id: addresses("10.32.0.1/24")})])
def test_if_one_fails_nothing_new_is_held(container, held):
    """Of several wanted addresses all or none; what a container that has run got stays its own."""
    router = FakeRouter()
    router.claim(OTHER, *addresses("10.2.1.1/24"))
    with pytest.raises(RouterError, match="already owned"):
        allocate(router, container, parse("net:default 10.2.1.1/24"), timeout=1)
    del router.owners[OTHER]
    assert router.owners == held


def test_router_that_refuses_is_asked_once():
    """A refusal is final: the router's words, at once."""
    router = FakeRouter()
    router.failures["allocate"] = RouterError("range 192.168.3.0/24 out of bounds: 10.32.0.0/12")
    with pytest.raises(RouterError, match=r"^range 192.168.3.0/24 out of bounds"):
        allocate(router, NEW, parse("net:192.168.3.0/24"), timeout=30)
    assert len(router.called("allocate")) == 1


def test_router_that_is_not_there_is_given_a_moment():
    """A router that can't be reached may be restarting; soon that is the error, with its address."""
    router = FakeRouter()
    router.failures["allocate"] = RouterUnreachable("the weave router at 127.0.0.1:6784 did not answer: refused")
    with pytest.raises(RouterUnreachable, match=r"no address for container a{12}: .*127\.0\.0\.1:6784"):
        allocate(router, NEW, parse(""), timeout=30)
    assert len(router.called("allocate")) > 1


def test_router_that_comes_back_is_in_time():
    """What was allocated by a router that came back is as good as any."""
    router = FakeRouter()
    router.failures["allocate"] = RouterUnreachable("restarting")

    def back():
        router.failures.clear()
        return False

    assert allocate(router, NEW, parse(""), timeout=30, client_gone=back).addresses == addresses("10.32.0.1/24")


def test_router_that_waits_for_its_peers_has_all_the_time():
    """A router that takes the question but can't answer yet is asked until the time is over, and no longer."""
    router = FakeRouter()
    router.ready.clear()
    with pytest.raises(RouterBusy, match="no address for container"):
        allocate(router, NEW, parse(""), timeout=0.3)
    assert len(router.called("allocate")) > 3
    assert router.called("release") == [(NEW.id, None)]


def test_without_time_there_is_one_question():
    """With no time to wait the router is asked once."""
    router = FakeRouter()
    router.ready.clear()
    with pytest.raises(RouterBusy):
        allocate(router, OLD, parse(""), timeout=0)
    assert len(router.called("allocate")) == 1


def test_client_that_has_gone_ends_the_wait():
    """Nobody waits for somebody who doesn't."""
    router = FakeRouter()
    router.ready.clear()
    with pytest.raises(ClientGone):
        allocate(router, NEW, parse(""), timeout=30, client_gone=lambda: True)
    assert len(router.called("allocate")) == 1


@pytest.mark.parametrize(("started_at", "so"), [("", False), ("0001-01-01T00:00:00Z", False),
                                                ("2026-11-24T13:38:00.123Z", True)])
def test_has_run(started_at, so):
    """A container has run if it was ever started."""
    assert has_run(Container("a", started_at=started_at)) is so
