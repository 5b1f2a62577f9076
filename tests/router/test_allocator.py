from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from weavemw.errors import BadRequest
from weavemw.router.allocator import (
    Allocator,
    SubnetFull,
    parse_address,
    parse_interface,
    parse_subnet,
    usable,
)
from weavemw.router.store import Database, MemoryStore, SqliteStore, Store, address_of, key_of

RANGE = IPv4Network("10.32.0.0/12")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    database = Database(tmp_path / "router.db")
    yield SqliteStore(database)
    database.close()


@pytest.fixture
def make(store: Store) -> Callable[..., Allocator]:
    def make(range4: str = "10.32.0.0/12", default: str | None = None, range6: str | None = None,
             **options: int) -> Allocator:
        allocator = Allocator(store, IPv4Network(range4), IPv4Network(default) if default else None,
                              IPv6Network(range6) if range6 else None, **options)
        allocator.fit()
        return allocator

    return make


def test_lowest_first(make: Callable[..., Allocator]) -> None:
    """The lowest free address comes first, with the prefix length of its subnet; the network address never."""
    allocator = make()
    assert [str(allocator.allocate(owner)) for owner in "abc"] == ["10.32.0.1/12", "10.32.0.2/12", "10.32.0.3/12"]


def test_use_is_counted_by_range(make: Callable[..., Allocator]) -> None:
    """What is held of each range; records outside of them don't count."""
    allocator = make("10.32.0.0/24", range6="fd00:10::/64")
    for owner in "abc":
        allocator.allocate(owner)
    allocator.claim("a", ip_interface("10.32.0.255/16"))
    allocator.claim("a", ip_interface("10.33.0.1/16"))
    allocator.claim("b", ip_interface("fd00:10::7/64"))
    assert allocator.in_use() == {"10.32.0.0/24": 4, "fd00:10::/64": 1}


def test_same_owner_same_address(make: Callable[..., Allocator]) -> None:
    """An owner that asks again gets the address that it has."""
    allocator = make()
    first = allocator.allocate("a")
    allocator.allocate("b")
    assert allocator.allocate("a") == first


def test_owner_in_several_subnets(make: Callable[..., Allocator]) -> None:
    """An address in one subnet does not stand for one in another, even where one contains the other."""
    allocator = make()
    given = [str(allocator.allocate("a", subnet and ip_network(subnet)))
             for subnet in ("10.32.5.0/24", "10.32.6.0/24", None, "10.32.5.0/24")]
    assert given == ["10.32.5.1/24", "10.32.6.1/24", "10.32.0.1/12", "10.32.5.1/24"]


def test_default_subnet(make: Callable[..., Allocator]) -> None:
    """Without a subnet, addresses come from the default subnet."""
    assert str(make(default="10.40.0.0/16").allocate("a")) == "10.40.0.1/16"


@pytest.mark.parametrize(("subnet", "addresses"), [
    pytest.param("10.32.5.0/30", ["10.32.5.1", "10.32.5.2"], id="/30: without network and broadcast address"),
    pytest.param("10.32.5.0/31", ["10.32.5.0", "10.32.5.1"], id="/31: both (RFC 3021)"),
    pytest.param("10.32.5.7/32", ["10.32.5.7"], id="/32: the one"),
    pytest.param("fd00::/126", ["fd00::1", "fd00::2", "fd00::3"], id="IPv6: without the anycast address"),
    pytest.param("fd00::/127", ["fd00::", "fd00::1"], id="/127: both (RFC 6164)"),
    pytest.param("fd00::5/128", ["fd00::5"], id="/128: the one"),
])
def test_what_a_subnet_holds(make: Callable[..., Allocator], subnet: str, addresses: list[str]) -> None:
    """A subnet gives all its usable addresses, and then says how many are in use."""
    allocator = make(range6="fd00::/64")
    assert [str(allocator.allocate(f"c{number}", ip_network(subnet)).ip)
            for number in range(len(addresses))] == addresses
    with pytest.raises(SubnetFull, match=rf"no free addresses in {subnet} \({len(addresses)} in use\)"):
        allocator.allocate("one more", ip_network(subnet))


def test_full_subnet_leaves_others_alone(make: Callable[..., Allocator]) -> None:
    """A full subnet refuses, and a refusal changes nothing; other subnets go on."""
    allocator = make()
    for number in range(254):
        allocator.allocate(f"c{number}", ip_network("10.32.0.0/24"))
    before = allocator.owned()
    with pytest.raises(SubnetFull, match=r"no free addresses in 10.32.0.0/24 \(254 in use\)"):
        allocator.allocate("x", ip_network("10.32.0.0/24"))
    assert allocator.owned() == before
    assert str(allocator.allocate("x", ip_network("10.32.1.0/24"))) == "10.32.1.1/24"


@pytest.mark.parametrize(("subnet", "message"), [
    pytest.param("192.168.3.0/24", "range 192.168.3.0/24 out of bounds: 10.32.0.0/12", id="elsewhere"),
    pytest.param("10.0.0.0/8", "range 10.0.0.0/8 out of bounds: 10.32.0.0/12", id="wider than the range"),
    pytest.param("fd00::/64", "range fd00::/64 out of bounds: 10.32.0.0/12", id="IPv6 without a range of it"),
])
def test_out_of_bounds(make: Callable[..., Allocator], subnet: str, message: str) -> None:
    """A subnet that is not within the range is refused in the words of a weave router."""
    with pytest.raises(BadRequest) as caught:
        make().allocate("a", ip_network(subnet))
    assert caught.value.message == message


def test_out_of_bounds_of_range6(make: Callable[..., Allocator]) -> None:
    """A subnet of IPv6 is told the range of IPv6."""
    with pytest.raises(BadRequest, match="range fd01::/64 out of bounds: fd00::/48"):
        make(range6="fd00::/48").allocate("a", ip_network("fd01::/64"))


@pytest.mark.parametrize("address", [
    pytest.param("10.32.0.99/12", id="within the range"),
    pytest.param("10.32.5.0/12", id="a network address of another subnet"),
    pytest.param("192.168.9.9/24", id="outside"),
    pytest.param("fd00::99/64", id="IPv6 within its range"),
    pytest.param("2001:db8::1/64", id="IPv6 outside"),
    pytest.param("10.32.9.1/32", id="alone"),
])
def test_claim(make: Callable[..., Allocator], address: str) -> None:
    """What is claimed is held with its prefix length, is not given to others, and may be claimed again by its owner."""
    allocator = make(range6="fd00::/64")
    allocator.claim("a", ip_interface(address))
    allocator.claim("a", ip_interface(address))
    assert allocator.owned() == {"a": (ip_interface(address),)}


@pytest.mark.parametrize(("address", "message"), [
    pytest.param("10.32.0.0/12", "Unable to claim: 10.32.0.0 is the network address of 10.32.0.0/12", id="network"),
    pytest.param("10.32.5.255/24", "Unable to claim: 10.32.5.255 is the broadcast address of 10.32.5.0/24",
                 id="broadcast"),
    pytest.param("192.168.1.0/24", "Unable to claim: 192.168.1.0 is the network address of 192.168.1.0/24",
                 id="outside the range too"),
    pytest.param("fd00::/64", "Unable to claim: fd00:: is the network address of fd00::/64", id="IPv6"),
])
def test_claim_refused(make: Callable[..., Allocator], address: str, message: str) -> None:
    """Network and broadcast addresses can't be claimed."""
    with pytest.raises(BadRequest) as caught:
        make().claim("a", ip_interface(address))
    assert caught.value.message == message


def test_claim_of_anothers(make: Callable[..., Allocator]) -> None:
    """An address of the range has one owner, who is named to the next."""
    allocator = make()
    allocator.claim("def456", ip_interface("10.32.0.99/12"))
    with pytest.raises(BadRequest) as caught:
        allocator.claim("abc", ip_interface("10.32.0.99/12"))
    assert caught.value.message == "Unable to claim: address 10.32.0.99/12 is already owned by def456"


def test_claim_outside_has_one_owner_too(make: Callable[..., Allocator]) -> None:
    """Outside of the range an address is refused to a second owner as well, until the first gave it back."""
    allocator = make()
    outside = ip_interface("192.168.9.9/24")
    allocator.claim("a", outside)
    allocator.claim("a", outside)
    with pytest.raises(BadRequest, match=r"^Unable to claim: address 192.168.9.9/24 is already owned by a$"):
        allocator.claim("b", outside)
    allocator.free("a", outside.ip)
    allocator.claim("b", outside)
    assert allocator.owned() == {"b": (outside,)}


def test_owned_by_one(make: Callable[..., Allocator]) -> None:
    """All that one owner holds, in whatever subnet, inside and outside of the range; nothing for one without any."""
    allocator = make()
    allocator.allocate("other")
    allocator.claim("a", ip_interface("192.168.9.9/24"))
    allocator.allocate("a", ip_network("10.33.0.0/24"))
    assert allocator.owned("a") == {"a": (ip_interface("10.33.0.1/24"), ip_interface("192.168.9.9/24"))}
    assert allocator.owned("nobody") == {}


def test_claimed_address_is_skipped(make: Callable[..., Allocator]) -> None:
    """Allocation goes around what was claimed, and a claim within the default subnet counts as an allocation."""
    allocator = make()
    allocator.claim("a", ip_interface("10.32.0.2/12"))
    assert [str(allocator.allocate(owner).ip) for owner in "bca"] == ["10.32.0.1", "10.32.0.3", "10.32.0.2"]


def test_freed_comes_last(make: Callable[..., Allocator]) -> None:
    """A freed address is given again only when nothing else is left, the one that was freed first before others."""
    allocator = make("10.32.0.0/29")
    for owner in "abcd":
        allocator.allocate(owner)
    for owner in "ca":
        allocator.free_all(owner)
    assert [str(allocator.allocate(owner).ip)[-1] for owner in "wxyz"] == ["5", "6", "3", "1"]
    with pytest.raises(SubnetFull):
        allocator.allocate("more")


def test_freed_in_another_subnet_is_found(make: Callable[..., Allocator]) -> None:
    """What was allocated through a wider or narrower subnet, and freed, still is there for this one."""
    allocator = make("10.32.0.0/29")
    for owner in "abcdef":
        allocator.allocate(owner)
    allocator.free_all("b")
    assert str(allocator.allocate("x", ip_network("10.32.0.0/30"))) == "10.32.0.2/30"


def test_rest_ends(make: Callable[..., Allocator]) -> None:
    """After so many others have been freed, an address is as free as any: the lowest first again."""
    allocator = make(rest=2)
    for owner in "abcd":
        allocator.allocate(owner)
    for owner in "abc":
        allocator.free_all(owner)
    assert [str(allocator.allocate(owner).ip) for owner in "xy"] == ["10.32.0.1", "10.32.0.5"]


def test_claim_of_a_resting_address(make: Callable[..., Allocator]) -> None:
    """Who knows its old address gets it back by claiming it."""
    allocator = make()
    address = allocator.allocate("a")
    allocator.free_all("a")
    allocator.claim("a", address)
    assert allocator.allocate("a") == address


@pytest.mark.parametrize(("act", "message"), [
    pytest.param(lambda a: a.free("x", ip_address("10.32.0.1")),
                 "Unable to free: address 10.32.0.1 is not owned by x", id="another's address"),
    pytest.param(lambda a: a.free("a", ip_address("10.32.0.9")),
                 "Unable to free: address 10.32.0.9 is not owned by a", id="nobody's address"),
    pytest.param(lambda a: a.free_all("x"), "Delete: no addresses for x", id="no addresses"),
])
def test_free_refused(make: Callable[..., Allocator], act: Callable[[Allocator], None], message: str) -> None:
    """Nobody frees what is not theirs."""
    allocator = make()
    allocator.allocate("a")
    with pytest.raises(BadRequest) as caught:
        act(allocator)
    assert caught.value.message == message


def test_held(make: Callable[..., Allocator]) -> None:
    """An owner's addresses are listed by the subnet in which they lie, the default one if none is named."""
    allocator = make(default="10.32.0.0/16")
    allocator.allocate("a")
    allocator.allocate("a", ip_network("10.33.5.0/24"))
    allocator.claim("a", ip_interface("192.168.9.9/24"))
    assert [str(each) for each in allocator.held("a")] == ["10.32.0.1/16"]
    assert [str(each) for each in allocator.held("a", ip_network("10.33.5.0/24"))] == ["10.33.5.1/24"]
    assert allocator.held("b") == ()
    assert len(allocator.owned()["a"]) == 3


def test_another_range_keeps_the_leases(make: Callable[..., Allocator]) -> None:
    """When the range changes, held addresses stay with their owners, and those within the new range are not given."""
    old = make("10.32.0.0/24")
    old.allocate("a")
    old.claim("b", ip_interface("10.40.0.1/24"))
    new = make("10.40.0.0/24")
    assert str(new.allocate("d").ip) == "10.40.0.2"
    assert set(new.owned()) == {"a", "b", "d"}
    back = make("10.32.0.0/24")
    assert str(back.allocate("e").ip) == "10.32.0.2"


@pytest.mark.parametrize(("parse", "text", "message"), [
    pytest.param(parse_subnet, "10.32.5.7/24",
                 "invalid subnet - bits after network prefix are not all zero: 10.32.5.7/24", id="host bits"),
    pytest.param(parse_subnet, "300.1.1.0/24", "invalid CIDR address: 300.1.1.0/24", id="no address"),
    pytest.param(parse_subnet, "10.32.5.0/33", "invalid CIDR address: 10.32.5.0/33", id="prefix too long"),
    pytest.param(parse_subnet, "10.32.5.0/255.255.255.0", "invalid CIDR address: 10.32.5.0/255.255.255.0", id="mask"),
    pytest.param(parse_interface, "10.32.5.7", "invalid CIDR address: 10.32.5.7", id="no prefix"),
    pytest.param(parse_interface, "10.32.5.7/٢٤", "invalid CIDR address: 10.32.5.7/٢٤", id="other digits"),
    pytest.param(parse_address, "::ffff:10.32.0.1", "invalid IP address: ::ffff:10.32.0.1", id="IPv4 in disguise"),
    pytest.param(parse_address, "fe80::1%eth0", "invalid IP address: fe80::1%eth0", id="scope"),
    pytest.param(parse_address, "", "invalid IP address: ", id="nothing"),
])
def test_parse_refused(parse: Callable[[str], object], text: str, message: str) -> None:
    """What is no address or subnet is refused, naming it."""
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert caught.value.message == message


@pytest.mark.parametrize("text", ["0.0.0.0", "10.32.0.1", "255.255.255.255", "::", "fd00::1", "ffff::"])
def test_keys(text: str) -> None:
    """Every address comes back from its number."""
    assert address_of(key_of(ip_address(text))) == ip_address(text)


SMALL = IPv4Network("10.32.0.0/26")
SUBNETS = [ip_network(text) for text in ("10.32.0.0/26", "10.32.0.0/28", "10.32.0.16/28", "10.32.0.16/30",
                                         "10.32.0.32/27", "10.32.0.62/31", "10.32.0.9/32")]
OWNERS = st.sampled_from([f"c{number}" for number in range(40)])
SUBNET = st.sampled_from(SUBNETS)
OFFSET = st.integers(0, 63)
REST = 7


class AgainstBruteForce(RuleBasedStateMachine):
    """The allocator agrees with sets and lists that are searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.allocator = Allocator(self.store, SMALL, rest=REST)
        self.allocator.fit()
        self.leases: dict[int, tuple[str, int]] = {}
        self.freed: list[tuple[int, int, str]] = []     # note, key, pool: those that rest, oldest first

    def make_store(self) -> Store:
        return MemoryStore()

    @rule(owner=OWNERS, subnet=SUBNET)
    def allocate(self, owner: str, subnet: IPv4Network) -> None:
        expected = self.expected(owner, subnet)
        if expected is None:
            with pytest.raises(SubnetFull):
                self.allocator.allocate(owner, subnet)
            return
        given = self.allocator.allocate(owner, subnet)
        assert (key_of(given.ip), given.network.prefixlen) == (expected, subnet.prefixlen)
        self.take(expected, owner, subnet.prefixlen)

    @rule(owner=OWNERS, offset=OFFSET, prefix=st.sampled_from([26, 28, 32]))
    def claim(self, owner: str, offset: int, prefix: int) -> None:
        interface = ip_interface((int(SMALL.network_address) + offset, prefix))
        key = key_of(interface.ip)
        low, high = usable(interface.network)
        if not low <= key <= high or self.leases.get(key, (owner, 0))[0] != owner:
            with pytest.raises(BadRequest, match="Unable to claim"):
                self.allocator.claim(owner, interface)
            return
        self.allocator.claim(owner, interface)
        self.take(key, owner, prefix)

    @rule(owner=OWNERS, offset=OFFSET)
    def free(self, owner: str, offset: int) -> None:
        address = SMALL.network_address + offset
        if self.leases.get(key_of(address), ("", 0))[0] != owner:
            with pytest.raises(BadRequest, match="Unable to free"):
                self.allocator.free(owner, address)
            return
        self.allocator.free(owner, address)
        self.give_back(key_of(address))

    @rule(owner=OWNERS)
    def free_all(self, owner: str) -> None:
        keys = sorted(key for key, (who, _) in self.leases.items() if who == owner)
        if not keys:
            with pytest.raises(BadRequest, match="no addresses"):
                self.allocator.free_all(owner)
            return
        self.allocator.free_all(owner)
        for key in keys:
            self.give_back(key)

    @invariant()
    def agrees(self) -> None:
        owned = {key_of(each.ip): (owner, each.network.prefixlen)
                 for owner, interfaces in self.allocator.owned().items() for each in interfaces}
        assert owned == self.leases

    @invariant()
    def partitions(self) -> None:
        """Every address of the range is in exactly one place, and neighbouring intervals are merged."""
        seen: list[int] = []
        key, last_high = 0, None
        while (interval := self.store.interval_from(key)) is not None:
            assert interval[0] <= interval[1]
            assert last_high is None or interval[0] > last_high + 1
            seen += range(interval[0], interval[1] + 1)
            last_high, key = interval[1], interval[1] + 1
        seen += [key for _, key, _ in self.freed] + list(self.leases)
        low = key_of(SMALL.network_address)
        assert sorted(seen) == list(range(low, low + 64))

    def expected(self, owner: str, subnet: IPv4Network) -> int | None:
        low, high = key_of(subnet.network_address), key_of(subnet.broadcast_address)
        held = sorted(key for key, (who, prefix) in self.leases.items()
                      if who == owner and prefix == subnet.prefixlen and low <= key <= high)
        low, high = usable(subnet)
        resting = [key for _, key, _ in self.freed]
        fresh = [key for key in range(low, high + 1) if key not in self.leases and key not in resting]
        own = [key for _, key, pool in self.freed if pool == str(subnet) and low <= key <= high]
        other = sorted(key for key in resting if low <= key <= high)
        return next(iter(held + fresh + own[:1] + other), None)

    def take(self, key: int, owner: str, prefix: int) -> None:
        self.freed = [each for each in self.freed if each[1] != key]
        self.leases[key] = (owner, prefix)

    def give_back(self, key: int) -> None:
        _, prefix = self.leases.pop(key)
        note = max((note for note, _, _ in self.freed), default=0) + 1
        network = ip_interface((address_of(key), prefix)).network
        self.freed.append((note, key, str(network)))
        self.freed = [each for each in self.freed if each[0] > note - REST]


class AgainstBruteForceInSqlite(AgainstBruteForce):
    def make_store(self) -> Store:
        self.database = Database(Path(":memory:"))
        return SqliteStore(self.database)

    def teardown(self) -> None:
        self.database.close()


TestAgainstBruteForce = AgainstBruteForce.TestCase
TestAgainstBruteForce.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAgainstBruteForceInSqlite = AgainstBruteForceInSqlite.TestCase
TestAgainstBruteForceInSqlite.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
