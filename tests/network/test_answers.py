from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from weavemw.network.answers import TABLE, Route, Rule, changes, default_routes, routes_for, rules_for

MAIN, ETH0, ETH1, ETHWE = 254, 2, 3, 7
ALL, ALL6 = ip_network("0.0.0.0/0"), ip_network("::/0")
GATEWAY, GATEWAY6 = ip_address("172.17.0.1"), ip_address("fd00::1")
OUT = Route(ALL, ETH0, GATEWAY, MAIN)
OUT6 = Route(ALL6, ETH0, GATEWAY6, MAIN, 1024)
DOCKERS = ip_interface("172.17.0.2/16")


@pytest.mark.parametrize(("routes", "found"), [
    pytest.param([], (), id="no network of Docker's"),
    pytest.param([OUT, OUT6], (OUT, OUT6), id="both families"),
    pytest.param([Route(ip_network("172.17.0.0/16"), ETH0, None, MAIN)], (), id="a network that is internal"),
    pytest.param([Route(ALL, ETH1, GATEWAY, MAIN, 5), OUT], (OUT,), id="the lower metric"),
    pytest.param([Route(ALL, ETHWE, GATEWAY, MAIN)], (), id="by ethwe, as somebody wants it"),
    pytest.param([Route(ALL, ETH0, GATEWAY, TABLE)], (), id="our own"),
])
def test_the_way_out(routes, found):
    """It is the main table's default route, one of each family."""
    assert default_routes(routes, ETHWE) == found


def test_an_answer_leaves_as_without_us():
    """To neighbours directly, to all others by the gateway; each address has a rule, but no link-local one."""
    addresses = (DOCKERS, ip_interface("172.17.0.9/16"), ip_interface("fd00::2/64"), ip_interface("fe80::2/64"))
    assert list(routes_for(OUT, addresses)) == [Route(ip_network("172.17.0.0/16"), ETH0), Route(ALL, ETH0, GATEWAY)]
    assert list(rules_for(OUT, addresses)) == [Rule(ip_network("172.17.0.2/32")), Rule(ip_network("172.17.0.9/32"))]
    assert list(routes_for(OUT6, addresses)) == [Route(ip_network("fd00::/64"), ETH0), Route(ALL6, ETH0, GATEWAY6)]
    assert list(rules_for(OUT6, addresses)) == [Rule(ip_network("fd00::2/128"))]


def test_only_our_own_rules_change():
    """Those of a user's stay; what is there need not come."""
    old, kept, new = (Rule(ip_network(f"172.17.0.{number}/32")) for number in (1, 2, 3))
    theirs = Rule(ip_network("192.0.2.0/24"), 100, 100)
    assert changes([old, kept, theirs], [kept, new]) == ({old}, {new})
