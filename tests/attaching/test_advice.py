"""What a create's user is told."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from weavemw.attaching.advice import in_the_way, misspelled, narrow, overlapping
from weavemw.dockerapi.container import DockerNetwork
from weavemw.network.addresses import parse


@pytest.mark.parametrize(("name", "is_meant"), [
    ("WEAVE_CDIR", True), ("WEAVE_CIRD", True), ("WEAVECIDR", True), ("weave_cidr", True), ("WEAVE_CIDRS", True),
    ("WEAVE_CIDR", False), ("WEAVE_PORT", False), ("PATH", False), ("CIDR", False), ("", False), ("WEAVE_ENV", False),
])
def test_near_misses(name: str, is_meant: bool) -> None:
    """A variable that is nearly WEAVE_CIDR is named, others are not; once each."""
    assert bool(list(misspelled([f"{name}=10.2.1.1/24", name]))) is is_meant


@pytest.mark.parametrize(("value", "count"), [
    ("10.33.1.1/24", 1), ("10.33.1.1/12", 0), ("10.33.1.1/8", 0), ("192.0.2.1/24", 0), ("net:10.33.1.0/24", 0),
    ("net:default", 0), ("10.33.1.1/24 10.34.1.1/24", 2), ("fd00::1/64", 0),
])
def test_addresses_that_reach_less_than_they_seem_to(value: str, count: int) -> None:
    """One among the automatic addresses with a longer prefix; a subnet is what was asked for."""
    found = list(narrow(parse(value), ip_network("10.32.0.0/12")))
    assert len(found) == count
    assert all("reaches only 10.3" in each and "are in 10.32.0.0/12" in each for each in found)


@pytest.mark.parametrize(("value", "count"), [
    ("172.17.5.5/24", 1), ("net:172.0.0.0/8", 1), ("10.2.1.1/24", 0), ("net:default", 0), ("fd00::1/64", 0),
])
def test_subnets_of_docker(value: str, count: int) -> None:
    """What overlaps is named, of the same family."""
    assert len(list(overlapping(parse(value), ("172.17.0.0/16", "fe80::/64")))) == count


@pytest.mark.parametrize(("subnets", "count"), [
    (("10.32.5.0/24",), 1), (("10.0.0.0/8",), 1), (("172.17.0.0/16",), 0), ((), 0), (("fd00:10::/80",), 1),
    (("172.17.0.0/16", "fd00:10::/80", "10.32.0.0/16"), 2),
])
def test_networks_of_docker_in_the_way_of_automatic_addresses(subnets: tuple[str, ...], count: int) -> None:
    """Each subnet that overlaps is named with its network, of the same family."""
    networks = [DockerNetwork("1", "fine", ("192.168.0.0/24",)), DockerNetwork("2", "shop", subnets)]
    found = list(in_the_way(networks, [ip_network("10.32.0.0/12"), ip_network("fd00:10::/64")]))
    assert len(found) == count
    assert all(each.startswith("Docker's network shop (") for each in found)
