from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weavemw.attaching.decision import LeaveAlone
from weavemw.attaching.policy import wanted_by
from weavemw.errors import InvalidCidr
from weavemw.network.addresses import Claim, Default, Subnet, parse, value_in


def claim(text):
    return Claim(ip_interface(text))


def subnet(text):
    return Subnet(ip_network(text))


@pytest.mark.parametrize(("value", "wanted"), [
    pytest.param("", (Default(),), id="empty"),
    pytest.param("  \t", (Default(),), id="blank"),
    pytest.param(",", (Default(),), id="only a comma"),
    pytest.param("none", (), id="none"),
    pytest.param(" none ", (), id="none with spaces"),
    pytest.param("net:default", (Default(),), id="default by name"),
    pytest.param("10.2.1.1/24", (claim("10.2.1.1/24"),), id="address"),
    pytest.param("ip:10.2.1.1/24", (claim("10.2.1.1/24"),), id="ip:"),
    pytest.param("net:10.32.2.0/24", (subnet("10.32.2.0/24"),), id="net:"),
    pytest.param("10.2.1.1/24 10.2.2.1/24", (claim("10.2.1.1/24"), claim("10.2.2.1/24")), id="two by space"),
    pytest.param("10.2.1.1/24,10.2.2.1/24", (claim("10.2.1.1/24"), claim("10.2.2.1/24")), id="two by comma"),
    pytest.param("net:default, net:10.32.2.0/24  ip:10.9.1.1/16",
                 (Default(), subnet("10.32.2.0/24"), claim("10.9.1.1/16")), id="mixed"),
    pytest.param("net:10.32.2.0/24 10.32.2.7/24", (subnet("10.32.2.0/24"), claim("10.32.2.7/24")),
                 id="a subnet and an address of it"),
    pytest.param("10.2.1.1/32", (claim("10.2.1.1/32"),), id="a /32 is one host"),
    pytest.param("10.2.1.0/31", (claim("10.2.1.0/31"),), id="a /31 is two hosts, the lower"),
    pytest.param("10.2.1.1/31", (claim("10.2.1.1/31"),), id="a /31 is two hosts, the upper"),
    pytest.param("net:10.2.1.0/30", (subnet("10.2.1.0/30"),), id="the smallest subnet"),
    pytest.param("fd00::7/64", (claim("fd00::7/64"),), id="IPv6 address"),
    pytest.param("ip:fd00::7/64", (claim("fd00::7/64"),), id="IPv6 ip:"),
    pytest.param("net:fd00:1::/64", (subnet("fd00:1::/64"),), id="IPv6 net:"),
    pytest.param("net:default fd00::7/64", (Default(), claim("fd00::7/64")), id="both families"),
    pytest.param("fd00::ffff:ffff:ffff:ffff/64", (claim("fd00::ffff:ffff:ffff:ffff/64"),), id="IPv6 has no broadcast"),
    pytest.param("fd00::/127", (claim("fd00::/127"),), id="a /127 is two hosts"),
])
def test_each_form_says_what_is_wanted(value, wanted):
    """Every documented form of WEAVE_CIDR is understood, alone and mixed."""
    assert parse(value) == wanted


EXPECTED = 'expected "none", ADDRESS/PREFIX, "ip:ADDRESS/PREFIX", "net:SUBNET/PREFIX" or "net:default"'


@pytest.mark.parametrize(("value", "part", "reason"), [
    pytest.param("nonsense", "nonsense", EXPECTED, id="nonsense"),
    pytest.param("net:", "net:", EXPECTED, id="net: and nothing"),
    pytest.param("ip:", "ip:", EXPECTED, id="ip: and nothing"),
    pytest.param("None", "None", EXPECTED, id="none in capitals"),
    pytest.param("default", "default", EXPECTED, id="default without net:"),
    pytest.param("300.1.1.1/24", "300.1.1.1/24", '"300.1.1.1" is not an IP address', id="300"),
    pytest.param("10.2.1/24", "10.2.1/24", '"10.2.1" is not an IP address', id="three numbers"),
    pytest.param("010.2.1.1/24", "010.2.1.1/24", '"010.2.1.1" is not an IP address', id="octal"),
    pytest.param("/24", "/24", '"" is not an IP address', id="only a prefix"),
    pytest.param("ip:10.2.1.1", "ip:10.2.1.1", 'the prefix length is missing, as in "10.2.1.1/24"', id="no prefix"),
    pytest.param("fd00::1", "fd00::1", 'the prefix length is missing, as in "fd00::1/64"', id="no prefix, IPv6"),
    pytest.param("10.2.1.1/", "10.2.1.1/", 'the prefix length after "/" is to be a number, not ""', id="empty prefix"),
    pytest.param("10.2.1.1/x", "10.2.1.1/x", 'the prefix length after "/" is to be a number, not "x"', id="prefix x"),
    pytest.param("10.2.1.1/255.255.255.0", "10.2.1.1/255.255.255.0",
                 'the prefix length after "/" is to be a number, not "255.255.255.0"', id="netmask"),
    pytest.param("10.2.1.1/24/8", "10.2.1.1/24/8",
                 'the prefix length after "/" is to be a number, not "24/8"', id="two prefixes"),
    pytest.param("10.2.1.1/33", "10.2.1.1/33", "the prefix length 33 is larger than 32", id="prefix 33"),
    pytest.param("fd00::1/129", "fd00::1/129", "the prefix length 129 is larger than 128", id="prefix 129"),
    pytest.param("10.2.1.1/0", "10.2.1.1/0", "a prefix length of 0 takes in every address there is", id="prefix 0"),
    pytest.param("net:10.2.3.4/24", "net:10.2.3.4/24",
                 'bits after the prefix are not zero; the subnet is "net:10.2.3.0/24"', id="host bits"),
    pytest.param("net:10.2.3.0/31", "net:10.2.3.0/31",
                 "a subnet of /31 has no address to give; it may be at most /30", id="net: /31"),
    pytest.param("net:10.2.3.1/32", "net:10.2.3.1/32",
                 "a subnet of /32 has no address to give; it may be at most /30", id="net: /32"),
    pytest.param("10.2.1.0/24", "10.2.1.0/24",
                 '10.2.1.0 is the network\'s own address; any address of it is "net:10.2.1.0/24"',
                 id="network address"),
    pytest.param("10.2.1.255/24", "10.2.1.255/24", "10.2.1.255 is the broadcast address of 10.2.1.0/24",
                 id="broadcast address"),
    pytest.param("fd00::/64", "fd00::/64", 'fd00:: is the network\'s own address; any address of it is "net:fd00::/64"',
                 id="IPv6 network address"),
    pytest.param("127.0.0.1/8", "127.0.0.1/8", "127.0.0.1 is a loopback address", id="loopback"),
    pytest.param("net:224.0.0.0/8", "net:224.0.0.0/8", "224.0.0.0 is a multicast address", id="multicast"),
    pytest.param("169.254.53.1/32", "169.254.53.1/32", "169.254.53.1 is a link-local address, as weaveDNS has",
                 id="weaveDNS's"),
    pytest.param("net:default,169.254.53.1/32", "169.254.53.1/32",
                 "169.254.53.1 is a link-local address, as weaveDNS has", id="weaveDNS's besides another"),
    pytest.param("net:169.254.0.0/16", "net:169.254.0.0/16", "169.254.0.0 is a link-local address, as weaveDNS has",
                 id="link-local subnet"),
    pytest.param("fe80::1/64", "fe80::1/64", "fe80::1 is a link-local address, as weaveDNS has", id="IPv6 link-local"),
    pytest.param("0.0.0.1/8", "0.0.0.1/8", '0.0.0.1 is of "this network" (0.0.0.0/8)', id="this network"),
    pytest.param("255.255.255.254/8", "255.255.255.254/8", "255.255.255.254 is a reserved address", id="reserved"),
    pytest.param("255.255.255.255/32", "255.255.255.255/32", "255.255.255.255 is a reserved address", id="broadcast"),
    pytest.param("::1/128", "::1/128", "::1 is a loopback address", id="IPv6 loopback"),
    pytest.param("::/128", "::/128", ":: is a reserved address", id="IPv6 unspecified"),
    pytest.param("::ffff:10.2.1.1/120", "::ffff:10.2.1.1/120", "::ffff:a02:101 is a reserved address", id="mapped"),
    pytest.param("ff02::1/64", "ff02::1/64", "ff02::1 is a multicast address", id="IPv6 multicast"),
    pytest.param("8.8.8.8/1", "8.8.8.8/1",
                 "a prefix length of 1 takes in addresses of everybody; it is to be 8 or more", id="a half"),
    pytest.param("net:2000::/3", "net:2000::/3",
                 "a prefix length of 3 takes in addresses of everybody; it is to be 8 or more", id="IPv6, an eighth"),
    pytest.param("fe80::1%eth0/64", "fe80::1%eth0/64", "fe80::1 is an address with a scope", id="scope"),
    pytest.param("10.2.1.1/24 10.2.1.1/24", "10.2.1.1/24", "asked for twice", id="address twice"),
    pytest.param("10.2.1.1/24 ip:10.2.1.1/16", "ip:10.2.1.1/16", "asked for twice", id="address twice, other prefix"),
    pytest.param("net:default,net:default", "net:default", "asked for twice", id="default twice"),
    pytest.param("net:10.2.1.0/24 net:10.2.1.0/24", "net:10.2.1.0/24", "asked for twice", id="subnet twice"),
    pytest.param("none 10.2.1.1/24", "none 10.2.1.1/24", '"none" stands alone or not at all', id="none and more"),
    pytest.param("none,none", "none,none", '"none" stands alone or not at all', id="none twice"),
    pytest.param("10.2.1.1/24 bad 10.2.2.1/24", "bad", EXPECTED, id="one of three is wrong"),
])
def test_what_makes_no_sense_is_refused_with_the_part_and_the_reason(value, part, reason):
    """A WEAVE_CIDR that can't be is refused, naming the part that is wrong and why."""
    with pytest.raises(InvalidCidr) as refusal:
        parse(value)
    assert (refusal.value.value, refusal.value.reason) == (part, reason)
    assert refusal.value.message == f'invalid WEAVE_CIDR "{part}": {reason}'
    assert refusal.value.status == 400


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_either_understood_or_refused(value):
    """No text whatever makes the parser fail otherwise than by InvalidCidr."""
    try:
        wanted = parse(value)
    except InvalidCidr:
        return
    assert parse(" ".join(map(str, wanted)) or "none") == wanted


NOT_DEFAULT = LeaveAlone("it has no WEAVE_CIDR and --no-default-ipalloc is set")
NONE = LeaveAlone("WEAVE_CIDR is none")


def test_a_container_has_at_most_64_addresses():
    """More are refused without reading them, in a sentence that does not repeat them all."""
    claims = [f"10.2.{n >> 8}.{n & 255}/16" for n in range(1, 6000)]
    assert len(parse(" ".join(claims[:64]) + " ")) == 64
    for count in (65, 5999):
        with pytest.raises(InvalidCidr, match="at most 64 addresses") as refused:
            parse(",".join(claims[:count]))
        assert len(refused.value.message) < 100


@pytest.mark.parametrize(("env", "by_default", "without_default"), [
    pytest.param([], (Default(),), NOT_DEFAULT, id="absent"),
    pytest.param(["PATH=/bin", "WEAVE_CIDRS=x"], (Default(),), NOT_DEFAULT, id="other variables"),
    pytest.param(["WEAVE_CIDR="], (Default(),), (Default(),), id="blank"),
    pytest.param(["WEAVE_CIDR=none"], NONE, NONE, id="none"),
    pytest.param(["WEAVE_CIDR=net:default"], (Default(),), (Default(),), id="net:default"),
    pytest.param(["WEAVE_CIDR=10.2.1.1/24"], (claim("10.2.1.1/24"),), (claim("10.2.1.1/24"),), id="address"),
    pytest.param(["WEAVE_CIDR=none", "A=1", "WEAVE_CIDR=10.2.1.1/24"],
                 (claim("10.2.1.1/24"),), (claim("10.2.1.1/24"),), id="the last one wins"),
    pytest.param(["WEAVE_CIDR=10.2.1.1/24", "WEAVE_CIDR=none"], NONE, NONE, id="the last one wins, none"),
    pytest.param(["WEAVE_CIDR=none", "WEAVE_CIDR"], (Default(),), NOT_DEFAULT, id="taken away"),
])
def test_environment_decides(env, by_default, without_default):
    """The last WEAVE_CIDR decides; --no-default-ipalloc leaves alone only who says nothing."""
    assert wanted_by(env, default_ipalloc=True) == by_default
    assert wanted_by(env, default_ipalloc=False) == without_default


def test_value_keeps_equals_signs():
    """Only the first equals sign separates name and value."""
    assert value_in(["WEAVE_CIDR=a=b"]) == "a=b"
