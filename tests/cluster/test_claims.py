from __future__ import annotations

from ipaddress import ip_interface

from weavemw.cluster.claims import Claims
from weavemw.cluster.peers import RemoteContainer

IP = bytes((10, 32, 0, 5))
NUMBERS = {"a": 1, "b": 2}


def container(peer, mac, owner="c1"):
    return RemoteContainer(owner, peer, mac, (ip_interface("10.32.0.5/12"),))


OLD, NEW = container("a", "02:00:00:00:00:01"), container("b", "02:00:00:00:00:02")
OLD_MAC, NEW_MAC = bytes((2, 0, 0, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 2))


def test_only_what_is_new_makes_a_difference():
    """What is said again touches nothing."""
    claims = Claims()
    assert claims.say("a", [OLD]) == ({OLD_MAC}, {IP})
    assert claims.say("a", [OLD]) == (set(), set())
    assert claims.say("a", []) == ({OLD_MAC}, {IP})


def test_who_said_it_last_has_it():
    """An address is its latest owner's, also if the older one is said again, and after its end."""
    claims = Claims()
    claims.say("a", [OLD])
    claims.say("b", [NEW])
    claims.say("a", [OLD, container("a", "02:00:00:00:00:03", "c3")])
    assert claims.hosts([OLD_MAC, NEW_MAC], NUMBERS) == {OLD_MAC: 1, NEW_MAC: 2}
    claims.say("a", [OLD])
    assert claims.neighbours([IP], NUMBERS) == {IP: NEW_MAC}
    claims.say("a", [])
    assert claims.neighbours([IP], NUMBERS) == {IP: NEW_MAC}
    assert claims.hosts([OLD_MAC], NUMBERS) == {OLD_MAC: 0}


def test_claims_of_hosts_that_are_not_known_count_for_nothing():
    """Of two claims the one whose host is known counts."""
    claims = Claims()
    claims.say("a", [OLD])
    claims.say("b", [NEW])
    assert claims.neighbours([IP], {"a": 1}) == {IP: OLD_MAC}
    assert claims.neighbours([IP], {}) == {IP: b""}
