"""What the DNS server knows, in the form in which it goes over the wire. Pure.

One table serves all questions: names of the domain, their unqualified forms,
and the reverse names of their addresses, each in lower case and in wire format
(RFC 1035, 3.1), with the records of each type ready to be sent. A second one has
whole questions (name, type, class) whose answer fits into any packet, for the
shortest way from question to answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from weavemw.errors import BadRequest
from weavemw.router.store import Address, Network

__all__ = ["AAAA", "NS", "PTR", "SOA", "A", "Zone", "canonical", "is_within", "reverse_name", "wire"]

A, NS, SOA, PTR, AAAA = 1, 2, 6, 12, 28
_LABEL = re.compile(r"[!-\-/-\[\]-~]{1,63}")   # printable, but neither "." nor "\", which would need escapes
_HEADER = 12
_ALWAYS_FITS = 512 - 11                        # into any packet, an EDNS record included
_TO_QUESTION = b"\xc0\x0c"                     # a compressed name: "as in the question" (RFC 1035, 4.1.4)


def canonical(name: str) -> str:
    """A name with its final dot. Raises :class:`~weavemw.errors.BadRequest` for what is no host name."""
    labels = name.removesuffix(".").split(".")
    if sum(map(len, labels)) + len(labels) > 254 or not all(map(_LABEL.fullmatch, labels)):
        raise BadRequest(f"invalid host name: {name!r}")
    return ".".join(labels) + "."


def is_within(name: str, domain: str) -> bool:
    """Whether a canonical name is the domain or below it, in any case."""
    name, domain = name.lower(), domain.lower()
    return name == domain or name.endswith("." + domain)


def wire(name: str) -> bytes:
    """A canonical name in wire format, in its own case."""
    labels = name.removesuffix(".").encode("ascii").split(b".")
    return b"".join(bytes((len(label),)) + label for label in labels if label) + b"\0"


def reverse_name(address: Address) -> bytes:
    """The name in wire format under which an address is looked up (RFC 1035, 3.5; RFC 3596, 2.5)."""
    return wire(address.reverse_pointer + ".")


class Zone:
    """A domain and the addresses in it; ``ttl`` in seconds; reverse names within ``ranges`` are ours too."""

    def __init__(self, domain: str, ttl: int = 1, ranges: Iterable[Network] = ()) -> None:
        self.domain = canonical(domain)
        self.ttl = ttl
        self.ranges = tuple(ranges)
        self.wire_domain = wire(self.domain.lower())
        self.records: dict[bytes, dict[int, tuple[bytes, ...]]] = {}
        self.plain: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = {}
        self._parents: Counter[bytes] = Counter()
        self.soa = record(SOA, ttl, _soa(self.domain, ttl))
        self._apex = {SOA: (self.soa,)}
        self.clear()

    def clear(self) -> None:
        """Forget all names."""
        self.records.clear()
        self.plain.clear()
        self._put(self.wire_domain, {})
        self._parents.clear()

    def publish(self, name: str, addresses: Sequence[Address]) -> None:
        """Let a canonical name of the domain have exactly these addresses."""
        key = wire(name.lower())
        if key != self.wire_domain:
            self._count_parents(key, bool(addresses) - (key in self.records))
        for form in self._forms(key):
            self._put(form, _address_records(addresses, self.ttl))

    def publish_reverse(self, address: Address, names: Sequence[str]) -> None:
        """Let an address have exactly these canonical names."""
        records = tuple(record(PTR, self.ttl, wire(name)) for name in names)
        self._put(reverse_name(address), {PTR: records} if records else {})

    def denial(self, name: bytes) -> bytes:
        """The SOA record that says for how long it holds that a name, in lower case, is not there (RFC 2308).

        It is that of the name's zone: the domain, or else what is above its first label.
        """
        in_domain = name.endswith(self.wire_domain)
        start = len(name) - len(self.wire_domain) if in_domain else min(name[0] + 1, len(name) - 1)
        return (0xC000 | _HEADER + start).to_bytes(2, "big") + self.soa[2:]

    def covers(self, name: bytes) -> bool:
        """Whether a name in wire format, in lower case, belongs to the domain."""
        return name.endswith(self.wire_domain)

    def is_parent(self, name: bytes) -> bool:
        """Whether names exist below this one: then it exists too (RFC 8020)."""
        return self._parents[name] > 0 or name == self.wire_domain

    def reverse_of(self, name: bytes) -> bool | None:
        """For a reverse name within our ranges: whether it is one of a whole network; ``None`` for any other name."""
        network = network_of(name)
        if network is None or not any(_lies_in(network, ours) for ours in self.ranges):
            return None
        return network.prefixlen < network.max_prefixlen

    def _forms(self, key: bytes) -> tuple[bytes, ...]:
        label = key[:key[0] + 1]
        return (key, label + b"\0") if key[len(label):] == self.wire_domain else (key,)

    def _put(self, key: bytes, records: dict[int, tuple[bytes, ...]]) -> None:
        if key == self.wire_domain:
            records = self._apex | records
        for kind in {A, AAAA, *self.records.pop(key, {})}:
            self.plain.pop(question(key, kind), None)
        if records:
            self.records[key] = records
            self._put_plain(key, records)

    def _put_plain(self, key: bytes, records: dict[int, tuple[bytes, ...]]) -> None:
        """The questions that have an answer, and those that resolvers ask along with them (RFC 2308)."""
        denied = {kind: (self.denial(key),) for kind in (A, AAAA) if kind not in records}
        for kind, each in (records | denied).items():
            if _HEADER + len(question(key, kind)) + sum(map(len, each)) <= _ALWAYS_FITS:
                counts = (0, 1, 0) if kind in denied else (len(each), 0, 0)
                self.plain[question(key, kind)] = (b"".join(count.to_bytes(2, "big") for count in counts), each)

    def _count_parents(self, key: bytes, by: int) -> None:
        parent = key[key[0] + 1:]
        while by and len(parent) > len(self.wire_domain):
            self._parents[parent] += by
            parent = parent[parent[0] + 1:]


def question(name: bytes, kind: int) -> bytes:
    """A question of class IN."""
    return name + kind.to_bytes(2, "big") + b"\0\1"


def _soa(domain: str, ttl: int) -> bytes:
    """The data of the SOA record. Answers that deny are kept no longer than others (RFC 2308)."""
    return (wire("weave." + domain) + wire("hostmaster." + domain)
            + b"".join(number.to_bytes(4, "big") for number in (1, 3600, 600, 86400, ttl)))


def record(kind: int, ttl: int, data: bytes) -> bytes:
    """A resource record of class IN, whose name is that of the question."""
    return (_TO_QUESTION + kind.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big")
            + len(data).to_bytes(2, "big") + data)


def network_of(name: bytes) -> Network | None:
    """The network that a reverse name in wire format, in lower case, stands for; ``None`` for any other name."""
    labels = _labels(name)
    try:
        if labels[-2:] == ["in-addr", "arpa"]:
            return _network4(labels[-3::-1])
        if labels[-2:] == ["ip6", "arpa"]:
            return _network6(labels[-3::-1])
    except ValueError:
        pass  # digits that make no address: a name like any other
    return None


def _network4(octets: list[str]) -> IPv4Network:
    if len(octets) > 4:
        raise ValueError(octets)
    return IPv4Network((IPv4Address(".".join(octets + ["0"] * (4 - len(octets)))), 8 * len(octets)))


def _network6(nibbles: list[str]) -> IPv6Network:
    if len(nibbles) > 32 or not all(len(nibble) == 1 for nibble in nibbles):
        raise ValueError(nibbles)
    return IPv6Network((IPv6Address(int("".join(nibbles).ljust(32, "0"), 16)), 4 * len(nibbles)))


def _lies_in(network: Network, ours: Network) -> bool:
    return network.version == ours.version and network.subnet_of(ours)  # type: ignore[arg-type]  # of one version


def _labels(name: bytes) -> list[str]:
    labels, at = [], 0
    while name[at]:
        labels.append(name[at + 1:at + 1 + name[at]].decode("latin-1"))
        at += name[at] + 1
    return labels


def _address_records(addresses: Sequence[Address], ttl: int) -> dict[int, tuple[bytes, ...]]:
    found = {kind: tuple(record(kind, ttl, address.packed) for address in addresses if address.version == version)
             for kind, version in ((A, 4), (AAAA, 6))}
    return {kind: records for kind, records in found.items() if records}
