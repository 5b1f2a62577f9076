"""What ``WEAVE_CIDR`` asks for. Pure.

The value is a list, separated by spaces or commas, of

- ``10.2.1.1/24`` or ``ip:10.2.1.1/24``: exactly this address,
- ``net:10.32.2.0/24``: any free address of this subnet,
- ``net:default``: any free address of the router's default subnet,

or the single word ``none``: no weave network. A blank value means ``net:default``.
IPv6 addresses are welcome wherever IPv4 addresses are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network

from weavemw.errors import InvalidCidr

__all__ = ["MOST", "VARIABLE", "Claim", "Default", "Interface", "Network", "Subnet", "Wanted", "parse", "parse_one",
           "unusable", "value_in"]

#: The environment variable that says what a container is to get.
VARIABLE = "WEAVE_CIDR"

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

#: How many addresses a container may have.
MOST = 64

#: The shortest prefix that is nobody's mistake: with less, an address takes in what is reserved, multicast or loopback.
_SHORTEST = 8
_THIS_NETWORK = ip_network("0.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Claim:
    """Exactly this address."""

    interface: Interface

    def __str__(self) -> str:
        return f"ip:{self.interface}"


@dataclass(frozen=True, slots=True)
class Subnet:
    """Any free address of this subnet."""

    network: Network

    def __str__(self) -> str:
        return f"net:{self.network}"


@dataclass(frozen=True, slots=True)
class Default:
    """Any free address of the router's default subnet."""

    def __str__(self) -> str:
        return "net:default"


Wanted = Claim | Subnet | Default


def value_in(env: Sequence[str]) -> str | None:
    """The value of the last ``WEAVE_CIDR`` in a list of ``NAME=value``.

    An entry without ``=`` takes the variable away, as Docker has it.
    """
    found: str | None = None
    for entry in env:
        name, equals, value = entry.partition("=")
        if name == VARIABLE:
            found = value if equals else None
    return found


def parse(value: str) -> tuple[Wanted, ...]:
    """Read a ``WEAVE_CIDR``; nothing is wanted if it is ``none``.

    Raises :class:`~weavemw.errors.InvalidCidr` with the part that is wrong and why.
    """
    parts = value.replace(",", " ").split(maxsplit=MOST)
    if len(parts) > MOST:
        raise InvalidCidr(f"{parts[0]} {parts[1]} …", f"a container has at most {MOST} addresses")
    if parts == ["none"]:
        return ()
    if "none" in parts:
        raise InvalidCidr(value, '"none" stands alone or not at all')
    _refuse_twice(parts, wanted := tuple(map(parse_one, parts)))
    return wanted or (Default(),)


def parse_one(part: str) -> Wanted:
    """Read one element of the list; raises :class:`~weavemw.errors.InvalidCidr`."""
    if part == "net:default":
        return Default()
    if part.startswith("net:"):
        return Subnet(_subnet(part, _interface(part, part.removeprefix("net:"))))
    return Claim(_host(part, _interface(part, part.removeprefix("ip:"))))


def _interface(part: str, text: str) -> Interface:
    address, slash, prefix = text.partition("/")
    if not slash:
        raise InvalidCidr(part, _without_prefix(text))
    if not re.fullmatch(r"[0-9]{1,3}", prefix):
        raise InvalidCidr(part, f'the prefix length after "/" is to be a number, not "{prefix}"')
    try:
        interface = ip_interface(f"{address}/{prefix}")
    except ValueError as error:
        raise InvalidCidr(part, _why_not(address, prefix)) from error
    return _usable(part, interface)


def _without_prefix(text: str) -> str:
    if _is_address(text):
        return f'the prefix length is missing, as in "{text}/{24 if ":" not in text else 64}"'
    return 'expected "none", ADDRESS/PREFIX, "ip:ADDRESS/PREFIX", "net:SUBNET/PREFIX" or "net:default"'


def _why_not(address: str, prefix: str) -> str:
    if not _is_address(address):
        return f'"{address}" is not an IP address'
    return f"the prefix length {prefix} is larger than {128 if ':' in address else 32}"


def _is_address(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return "/" not in text


def _usable(part: str, interface: Interface) -> Interface:
    if why := f"{interface.ip} is an address with a scope" if "%" in part else unusable(interface):
        raise InvalidCidr(part, why)
    return interface


def unusable(interface: Interface) -> str:
    """Why no container may have this address, whoever owns it; empty if one may.

    Sources: RFC 6890 (addresses with a meaning), RFC 3927 and RFC 4291 section 2.5.6 (link-local). weaveDNS is reached
    by a link-local address, and so is the metadata of clouds.
    """
    ip, prefix = interface.ip, interface.network.prefixlen
    meanings = {
        "a multicast address": ip.is_multicast,
        "a loopback address": ip.is_loopback,
        "a link-local address, as weaveDNS has": ip.is_link_local,
        'of "this network" (0.0.0.0/8)': ip in _THIS_NETWORK,
        "a reserved address": ip.is_reserved or ip.is_unspecified,
    }
    for what in (what for what, is_so in meanings.items() if is_so):
        return f"{ip} is {what}"
    if prefix == 0:
        return "a prefix length of 0 takes in every address there is"
    too_wide = f"a prefix length of {prefix} takes in addresses of everybody; it is to be {_SHORTEST} or more"
    return too_wide if prefix < _SHORTEST else ""


def _subnet(part: str, interface: Interface) -> Network:
    network = interface.network
    if interface.ip != network.network_address:
        raise InvalidCidr(part, f'bits after the prefix are not zero; the subnet is "net:{network}"')
    if network.prefixlen > network.max_prefixlen - 2:
        raise InvalidCidr(part, f"a subnet of /{network.prefixlen} has no address to give; "
                                f"it may be at most /{network.max_prefixlen - 2}")
    return network


def _host(part: str, interface: Interface) -> Interface:
    """A claimed address must be a host's; in /31 and /127 both are (RFC 3021, RFC 6164)."""
    network = interface.network
    if network.prefixlen >= network.max_prefixlen - 1:
        return interface
    if interface.ip == network.network_address:
        raise InvalidCidr(part, f'{interface.ip} is the network\'s own address; any address of it is "net:{network}"')
    if interface.version == 4 and interface.ip == network.broadcast_address:
        raise InvalidCidr(part, f"{interface.ip} is the broadcast address of {network}")
    return interface


def _refuse_twice(parts: Iterable[str], wanted: Iterable[Wanted]) -> None:
    seen = set()
    for part, one in zip(parts, wanted, strict=True):
        key = one.interface.ip if isinstance(one, Claim) else one
        if key in seen:
            raise InvalidCidr(part, "asked for twice")
        seen.add(key)
