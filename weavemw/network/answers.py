"""Answers leave a container by the interface that the question came by: rules and routes for that. Pure.

A published port sends clients to the container's address on Docker's network. One whose own address lies in the weave
range would get its answer by ``ethwe``, and from nobody that it asked. So what a container says from an address of
Docker's looks up a table of its own, in which there is no ``ethwe`` (ip-rule(8)).

What chooses its source address only after the route, as a UDP server that is bound to no address does, is not
covered: nothing in its answer tells whence the question came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from weavemw.network.addresses import Interface, Network

__all__ = ["TABLE", "Route", "Rule", "changes", "default_routes", "routes_for", "rules_for"]

#: The number of the table, and the priority of the rules that lead there: weave's own port, which nobody else has.
TABLE = 6784
_MAIN = 254  # RT_TABLE_MAIN


@dataclass(frozen=True, slots=True)
class Route:
    """A route by the interface ``index``, through a ``gateway`` or directly; the least ``metric`` counts."""

    network: Network
    index: int
    gateway: IPv4Address | IPv6Address | None = None
    table: int = TABLE
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """What comes from ``source`` looks up ``table``; rules count in the order of ``priority``."""

    source: Network
    table: int = TABLE
    priority: int = TABLE


def default_routes(routes: Iterable[Route], ethwe: int) -> tuple[Route, ...]:
    """The way out of each family, if it is not by the interface ``ethwe``."""
    found: dict[int, Route] = {}
    for route in sorted(routes, key=lambda one: one.metric):
        if route.table == _MAIN and route.network.prefixlen == 0:
            found.setdefault(route.network.version, route)
    return tuple(route for route in found.values() if route.index != ethwe)


def routes_for(way_out: Route, addresses: Iterable[Interface]) -> Iterator[Route]:
    """The table for an interface that has these addresses: their networks directly, all else by the way out."""
    for network in dict.fromkeys(address.network for address in _usable(way_out, addresses)):
        yield Route(network, way_out.index)
    yield Route(way_out.network, way_out.index, way_out.gateway)


def rules_for(way_out: Route, addresses: Iterable[Interface]) -> Iterator[Rule]:
    """A rule for each of these addresses."""
    return (Rule(ip_network(address.ip)) for address in _usable(way_out, addresses))


def changes(there: Iterable[Rule], wanted: Iterable[Rule]) -> tuple[set[Rule], set[Rule]]:
    """Rules that are to go, and those that are to come; rules of others stay."""
    ours, wanted = {rule for rule in there if rule.table == TABLE}, set(wanted)
    return ours - wanted, wanted - ours


def _usable(way_out: Route, addresses: Iterable[Interface]) -> Iterator[Interface]:
    return (one for one in addresses if one.version == way_out.network.version and not one.is_link_local)
