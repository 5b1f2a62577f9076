"""Who owns which address: the range's arithmetic, over a store that keeps it. No sockets, no clock.

*Lowest free first.* An allocation takes the lowest address of its subnet that is
free, in O(log n) whatever is held.

*Given back, given last.* An address that comes back **rests**: it is handed out
again only when its subnet has nothing else left, the one that rested longest
first, and its rest ends when 65,536 others have been given back after it.
So a neighbour's stale ARP entry, or an interface that is slow to die, does not
meet a new owner. Both looks, "resting longest of this subnet" and "lowest
resting within these bounds" (for addresses that were allocated through a wider
or narrower subnet), are looks into an ordered index: O(log n) still.

The network and the broadcast address of a subnet are never given, nor claimed
(IPv6: the subnet-router anycast address, RFC 4291 2.6.1). A /31 (RFC 3021), a
/127 (RFC 6164), a /32 and a /128 have neither: all of theirs are usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from weavemw.errors import BadRequest
from weavemw.router.client import Interface
from weavemw.router.store import Address, AddressLease, Interval, Network, Store, key_of

__all__ = ["REST", "Allocator", "NotOurs", "SubnetFull", "parse_address", "parse_interface", "parse_subnet"]

#: An address rests until so many others have been given back after it.
REST = 65536


class SubnetFull(BadRequest):
    """A subnet has no address left."""


class NotOurs(BadRequest):
    """An address of a shared range that this host may not give."""


class Allocator:
    """Addresses of one range of IPv4, and of one of IPv6 if given.

    Owners are container ids, or any other text. All errors are
    :class:`~weavemw.errors.BadRequest` with the words of a weave router.

    Where hosts share the ranges, ``is_ours`` says of an address whether this host may give it; it gives from the parts
    that it was given itself (:meth:`admit`).
    """

    def __init__(self, store: Store, range4: IPv4Network, default_subnet: IPv4Network | None = None,
                 range6: IPv6Network | None = None, *, rest: int = REST,
                 is_ours: Callable[[int], bool] = lambda key: True) -> None:
        self._store = store
        self._is_ours = is_ours
        self._rest = rest
        self.range = range4
        self.range6 = range6
        self.default_subnet = default_subnet or range4
        self.ranges: tuple[Network, ...] = (range4, range6) if range6 else (range4,)
        self._bounds = tuple(_bounds(network) for network in self.ranges)

    def fit(self, parts: Iterable[Interval] | None = None) -> None:
        """Make the store's free addresses those of these ranges; leases stay. Cheap if they are so already.

        Of shared ranges only ``parts`` are this host's.
        """
        wanted = " ".join(map(str, self.ranges)) + ("" if parts is None else " shared")
        if self._store.note("ranges") == wanted:
            return
        self._store.clear_free()
        held = sorted(self._refile())
        for bounds in self._bounds if parts is None else parts:
            for low, high in _gaps(bounds, held):
                self._store.put_interval(low, high)
        self._store.put_note("ranges", wanted)

    def admit(self, low: int, high: int) -> None:
        """Give from these addresses too, but for those that are leased."""
        self.withdraw(low, high)
        leased = [lease.key for lease in self._store.leases() if low <= lease.key <= high and not lease.outside]
        for first, last in _gaps((low, high), leased):
            self._put_free(first, last)

    def withdraw(self, low: int, high: int) -> None:
        """Give no more from these addresses; leases stay."""
        while (interval := self._store.interval_from(low)) and interval[0] <= high:
            self._store.drop_interval(interval[1])
            if interval[0] < low:
                self._store.put_interval(interval[0], low - 1)
            if interval[1] > high:
                self._store.put_interval(high + 1, interval[1])
        while (resting := self._store.resting_from(low)) is not None and resting <= high:
            self._store.wake(resting)

    def inside(self) -> tuple[tuple[int, str], ...]:
        """The leases of the ranges: number and owner."""
        return tuple((lease.key, lease.owner) for lease in self._store.leases() if not lease.outside)

    def record(self, owner: str, interface: Interface) -> None:
        """Note that an owner has this address, whosever it is to give; not if somebody has it already."""
        key = key_of(interface.ip)
        if not self._store.leases_at(key):
            self.withdraw(key, key)
            outside = not self._contains(key)
            self._store.put_lease(AddressLease(key, interface.network.prefixlen, owner, outside))

    def leased_between(self, low: int, high: int) -> int:
        """How many addresses of the ranges are leased between two, both included."""
        return self._store.leases_between(low, high)

    def allocate(self, owner: str, subnet: Network | None = None) -> Interface:
        """The owner's address in this subnet: the one it has there, or else the lowest free one."""
        subnet = subnet or self.default_subnet
        if why := self.objection(subnet):
            raise BadRequest(why)
        held = self._held_in(owner, subnet)
        if held:
            return held.interface
        lease = AddressLease(self._pick(subnet), subnet.prefixlen, owner)
        self._take(lease.key)
        self._store.put_lease(lease)
        return lease.interface

    def claim(self, owner: str, interface: Interface) -> None:
        """Give exactly this address to this owner; outside of the ranges too it has one owner at most."""
        _check_usable(interface)
        key = key_of(interface.ip)
        outside = not self._contains(key)
        others = [lease for lease in self._store.leases_at(key) if lease.owner != owner]
        if others:
            raise BadRequest(f"Unable to claim: address {interface} is already owned by {others[0].owner}")
        if not outside and not self._store.leases_at(key):
            if not self._is_ours(key):
                raise NotOurs(f"Unable to claim: address {interface} is in no block of this host")
            self._take(key)
        self._store.put_lease(AddressLease(key, interface.network.prefixlen, owner, outside))

    def free(self, owner: str, address: Address) -> None:
        """Give back one address of this owner."""
        found = [lease for lease in self._store.leases_at(key_of(address)) if lease.owner == owner]
        if not found:
            raise BadRequest(f"Unable to free: address {address} is not owned by {owner}")
        self._give_back(found[0])

    def free_all(self, owner: str) -> None:
        """Give back whatever this owner holds."""
        leases = self._store.leases_of(owner)
        if not leases:
            raise BadRequest(f"Delete: no addresses for {owner}")
        for lease in leases:
            self._give_back(lease)

    def held(self, owner: str, subnet: Network | None = None) -> tuple[Interface, ...]:
        """The owner's addresses that lie in this subnet."""
        low, high = _bounds(subnet or self.default_subnet)
        return tuple(lease.interface for lease in self._store.leases_of(owner) if low <= lease.key <= high)

    def owners_of(self, address: Address) -> tuple[str, ...]:
        """Who holds an address."""
        return tuple(lease.owner for lease in self._store.leases_at(key_of(address)))

    def owned(self, owner: str | None = None) -> dict[str, tuple[Interface, ...]]:
        """Every owner and its addresses, or only this one, if it has any."""
        owners: dict[str, list[Interface]] = {}
        for lease in self._store.leases() if owner is None else self._store.leases_of(owner):
            owners.setdefault(lease.owner, []).append(lease.interface)
        return {owner: tuple(interfaces) for owner, interfaces in owners.items()}

    def held_count(self) -> int:
        """How many addresses are held, records outside of the ranges included."""
        return self._store.lease_count()

    def in_use(self) -> dict[str, int]:
        """How many addresses of each range are held."""
        return {str(network): self._store.leases_between(*_bounds(network)) for network in self.ranges}

    def objection(self, subnet: Network) -> str:
        """Why this subnet has no address to give, whoever holds which; empty if it has."""
        low, high = _bounds(subnet)
        if any(first <= low and high <= last for first, last in self._bounds):
            return ""
        return f"range {subnet} out of bounds: {self.range6 if subnet.version == 6 and self.range6 else self.range}"

    def _contains(self, key: int) -> bool:
        return any(low <= key <= high for low, high in self._bounds)

    def _held_in(self, owner: str, subnet: Network) -> AddressLease | None:
        """A lease counts for the subnet it was asked for, not for all that its address happens to lie in."""
        low, high = _bounds(subnet)
        for lease in self._store.leases_of(owner):
            if lease.prefix == subnet.prefixlen and low <= lease.key <= high:
                return lease
        return None

    def _pick(self, subnet: Network) -> int:
        low, high = usable(subnet)
        for key in self._candidates(subnet, low):
            if key is not None and low <= key <= high:
                return key
        raise SubnetFull(f"no free addresses in {subnet} ({high - low + 1} in use)")

    def _candidates(self, subnet: Network, low: int) -> Iterator[int | None]:
        interval = self._store.interval_from(low)
        yield max(low, interval[0]) if interval else None
        yield self._store.rested_longest(str(subnet))
        yield self._store.resting_from(low)

    def _take(self, key: int) -> None:
        interval = self._store.interval_from(key)
        if interval and interval[0] <= key:
            self._cut(key, *interval)
        elif not self._store.wake(key):
            raise AssertionError(f"address number {key} is neither free nor leased")

    def _cut(self, key: int, low: int, high: int) -> None:
        if key < high:
            self._store.put_interval(key + 1, high)
        else:
            self._store.drop_interval(high)
        if low < key:
            self._store.put_interval(low, key - 1)

    def _give_back(self, lease: AddressLease) -> None:
        self._store.drop_lease(lease)
        if lease.outside or not self._is_ours(lease.key):
            return
        note = self._store.rest(lease.key, str(lease.interface.network))
        rested = self._store.rested_until(note - self._rest)
        if rested is not None:
            self._store.wake(rested)
            self._put_free(rested, rested)

    def _put_free(self, low: int, high: int) -> None:
        """Let these be free, and one interval with the neighbours that are."""
        left = self._store.interval_from(low - 1)
        if left and left[1] == low - 1:
            self._store.drop_interval(left[1])
            low = left[0]
        right = self._store.interval_from(high + 1)
        if right and right[0] == high + 1:
            high = right[1]
        self._store.put_interval(low, high)

    def _refile(self) -> set[int]:
        """Mark each lease as inside or outside; what lies inside. Of several records of one address one counts."""
        held: set[int] = set()
        for lease in sorted(self._store.leases(), key=lambda lease: (lease.outside, lease.key)):
            outside = not self._contains(lease.key) or lease.key in held
            if not outside:
                held.add(lease.key)
            self._store.put_lease(AddressLease(lease.key, lease.prefix, lease.owner, outside))
        return held


def usable(subnet: Network) -> Interval:
    """The first and the last address of a subnet that a host may have."""
    low, high = _bounds(subnet)
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return low, high
    return (low + 1, high - 1) if subnet.version == 4 else (low + 1, high)


@lru_cache(1024)
def _bounds(network: Network) -> Interval:
    return key_of(network.network_address), key_of(network.broadcast_address)


def _gaps(bounds: Interval, held: Iterable[int]) -> Iterator[Interval]:
    low, last = bounds
    for key in held:
        if low < key <= last:
            yield low, key - 1
        if low <= key <= last:
            low = key + 1
    if low <= last:
        yield low, last


def _check_usable(interface: Interface) -> None:
    low, high = usable(interface.network)
    if key_of(interface.ip) < low:
        raise BadRequest(f"Unable to claim: {interface.ip} is the network address of {interface.network}")
    if key_of(interface.ip) > high:
        raise BadRequest(f"Unable to claim: {interface.ip} is the broadcast address of {interface.network}")


def parse_address(text: str) -> Address:
    """An address of either family; IPv4-mapped IPv6 and scopes are refused."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise BadRequest(f"invalid IP address: {text}") from error
    if address.version == 6 and (address.ipv4_mapped or address.scope_id):
        raise BadRequest(f"invalid IP address: {text}")
    return address


def parse_interface(text: str) -> Interface:
    """An address with its prefix length, "10.32.0.99/12"."""
    address, _, prefix = text.partition("/")
    if not (prefix.isascii() and prefix.isdigit()):
        raise BadRequest(f"invalid CIDR address: {text}")
    try:
        return ip_interface((parse_address(address), int(prefix)))
    except ValueError as error:
        raise BadRequest(f"invalid CIDR address: {text}") from error


def parse_subnet(text: str) -> Network:
    """A subnet, "10.32.5.0/24"; the bits after the prefix must be zero."""
    try:
        interface = parse_interface(text)
    except BadRequest as error:
        raise BadRequest(f"invalid CIDR address: {text}") from error
    if interface.ip != interface.network.network_address:
        raise BadRequest(f"invalid subnet - bits after network prefix are not all zero: {text}")
    return ip_network(interface.network)
