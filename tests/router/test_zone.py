from __future__ import annotations

from ipaddress import ip_address, ip_network

import dns.name
import pytest

from weavemw.errors import BadRequest
from weavemw.router.zone import PTR, A, Zone, canonical, is_within, reverse_name, wire


@pytest.mark.parametrize(("given", "name"), [
    pytest.param("web.weave.local", "web.weave.local.", id="without the final dot"),
    pytest.param("Web.weave.local.", "Web.weave.local.", id="case is kept"),
    pytest.param("my_web-1", "my_web-1.", id="one label"),
    pytest.param("a" * 63, "a" * 63 + ".", id="longest label"),
    pytest.param(".".join(["a" * 63] * 3 + ["a" * 61]), ".".join(["a" * 63] * 3 + ["a" * 61]) + ".", id="longest name"),
])
def test_canonical(given: str, name: str) -> None:
    """A host name gets its final dot, and its wire format is what dnspython makes of it."""
    assert canonical(given) == name
    assert wire(name) == dns.name.from_text(name).to_wire()


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", ".a", "a" * 64, "é", "a b", "a\\.b", "a\0", "\n",
                                  ".".join(["a" * 63] * 3 + ["a" * 62])])
def test_canonical_refused(name: str) -> None:
    """What is no host name is refused, and named."""
    with pytest.raises(BadRequest, match="invalid host name"):
        canonical(name)


@pytest.mark.parametrize(("name", "within"), [
    ("web.weave.local.", True), ("a.b.weave.local.", True), ("weave.local.", True), ("WEB.Weave.Local.", True),
    ("myweave.local.", False), ("local.", False), ("weave.local.example.", False),
])
def test_is_within(name: str, within: bool) -> None:
    """The domain ends at a dot, and has no case."""
    assert is_within(name, "weave.local.") is within


@pytest.mark.parametrize("address", ["10.32.0.1", "fd00::1"])
def test_reverse_name(address: str) -> None:
    """The reverse name of an address is the one that dnspython would ask for."""
    import dns.reversename
    assert reverse_name(ip_address(address)) == dns.reversename.from_address(address).to_wire()


@pytest.mark.parametrize(("name", "of_network"), [
    pytest.param("1.0.32.10.in-addr.arpa.", False, id="an address of ours"),
    pytest.param("255.255.47.10.in-addr.arpa.", False, id="the last one"),
    pytest.param("0.48.10.in-addr.arpa.", None, id="beyond the range"),
    pytest.param("0.32.10.in-addr.arpa.", True, id="a network of ours"),
    pytest.param("33.10.in-addr.arpa.", True, id="a larger one"),
    pytest.param("10.in-addr.arpa.", None, id="one that is not all ours"),
    pytest.param("in-addr.arpa.", None, id="all"),
    pytest.param("1.1.0.32.10.in-addr.arpa.", None, id="too many octets"),
    pytest.param("x.0.32.10.in-addr.arpa.", None, id="no number"),
    pytest.param("300.0.32.10.in-addr.arpa.", None, id="no octet"),
    pytest.param("1." + "0." * 27 + "0.0.d.f.ip6.arpa.", False, id="IPv6"),
    pytest.param("0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", True, id="a network of IPv6"),
    pytest.param("10.0.d.f.ip6.arpa.", None, id="no nibble"),
    pytest.param("-.0.d.f.ip6.arpa.", None, id="no digit"),
    pytest.param("web.weave.local.", None, id="no reverse name"),
])
def test_reverse_of(name: str, of_network: bool | None) -> None:
    """Reverse names within the ranges are ours, all others are not."""
    zone = Zone("weave.local", ranges=[ip_network("10.32.0.0/12"), ip_network("fd00::/48")])
    if name.endswith("ip6.arpa.") and of_network is False:
        name = reverse_name(ip_address("fd00::1")).hex()
        assert zone.reverse_of(bytes.fromhex(name)) is False
    else:
        assert zone.reverse_of(wire(name)) is of_network


def test_publish_and_withdraw() -> None:
    """A name is there in its full and in its unqualified form until it has no address; so is its reverse."""
    zone = Zone("weave.local.")
    empty, nothing_asked = dict(zone.records), dict(zone.plain)
    zone.publish("Web.weave.local.", [ip_address("10.32.0.1"), ip_address("fd00::1")])
    zone.publish_reverse(ip_address("10.32.0.1"), ["Web.weave.local."])
    assert zone.records[wire("web.weave.local.")] == zone.records[wire("web.")]
    assert list(zone.records[reverse_name(ip_address("10.32.0.1"))]) == [PTR]
    zone.publish("web.weave.local.", [])
    zone.publish_reverse(ip_address("10.32.0.1"), [])
    assert zone.records == empty
    assert zone.plain == nothing_asked


def test_names_above_names() -> None:
    """A name exists while names below it exist."""
    zone = Zone("weave.local.")
    for name in ("a.b.c.weave.local.", "x.c.weave.local."):
        zone.publish(name, [ip_address("10.32.0.1")])
        zone.publish(name, [ip_address("10.32.0.2")])
    assert [zone.is_parent(wire(name)) for name in ("b.c.weave.local.", "c.weave.local.", "z.weave.local.")] == [
        True, True, False]
    zone.publish("a.b.c.weave.local.", [])
    assert [zone.is_parent(wire(name)) for name in ("b.c.weave.local.", "c.weave.local.")] == [False, True]
    assert A in zone.records[wire("x.c.weave.local.")]


def test_the_domain_itself_may_have_an_address() -> None:
    """The domain may be a host too, and keeps its SOA record when it is none any more."""
    zone = Zone("weave.local.")
    before = dict(zone.records)
    zone.publish("weave.local.", [ip_address("10.32.0.1")])
    assert A in zone.records[wire("weave.local.")]
    zone.publish("weave.local.", [])
    assert zone.records == before
