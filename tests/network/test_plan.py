from __future__ import annotations

import re

import pytest

from weavemw.network.plan import HostInterface, Plan, host_names, is_host_name, mac_for, orphans

ID, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def test_host_names_fit_and_come_from_the_id():
    """Names of host interfaces have at most 15 characters, are distinct, and the same for the same container."""
    names = host_names(ID)
    assert names[0] == "vethwe012345678"
    assert len(set(names)) == len(names) == 7
    assert all(len(name) <= 15 and is_host_name(name) for name in names)
    assert names == host_names(ID)
    assert not set(names) & set(host_names(OTHER))


@pytest.mark.parametrize("name", ["vethwe-bridge", "vethwe-datapath", "vethwepl12345", "vethwe01234567", "weave",
                                  "eth0", "vethwe0123456789", "vethwe0123456g8"])
def test_other_peoples_interfaces_are_not_ours(name):
    """What a Weave Net router, its command line or Docker call their interfaces is never taken for ours."""
    assert not is_host_name(name)


def test_mac_is_stable_local_and_unicast():
    """A container keeps its MAC address, which is no vendor's and no group's."""
    assert re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", mac_for(ID))
    assert int(mac_for(ID)[:2], 16) & 3 == 2
    assert Plan(ID, ()).mac == mac_for(ID) != mac_for(OTHER)


@pytest.mark.parametrize(("interface", "is_orphan"), [
    pytest.param(HostInterface(host_names(ID)[0], ID), False, id="committed, runs"),
    pytest.param(HostInterface(host_names(OTHER)[0], OTHER), True, id="committed, gone"),
    pytest.param(HostInterface(host_names(ID)[0]), False, id="being made, runs"),
    pytest.param(HostInterface(host_names(ID)[2]), False, id="being made under another name, runs"),
    pytest.param(HostInterface(host_names(OTHER)[0]), True, id="never committed, gone"),
    pytest.param(HostInterface(host_names(ID)[0], OTHER), True, id="gone, its name collides with one that runs"),
])
def test_orphans_belong_to_nobody_who_runs(interface, is_orphan):
    """An interface is an orphan if no running container is its owner."""
    assert orphans([interface], [ID]) == ((interface,) if is_orphan else ())
