"""The router's numbers as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

from weavemw import __version__
from weavemw.ops.metrics import Family, families
from weavemw.ops.tally import Cell, Tally

__all__ = ["ALLOCATE", "API_REQUESTS", "DnsCounts", "RouterFacts", "of_router"]

API_REQUESTS = "weave_router_requests"
ALLOCATE = "weave_router_allocate_duration_seconds"
_BUILD, _SIZE, _IN_USE = "weave_router_build_info", "weave_router_pool_addresses", "weave_router_pool_addresses_in_use"
_NAMES, _ANSWERS, _FORWARDS = "weave_router_names", "weave_router_dns_answers", "weave_router_dns_forwards"

_FAMILIES = (
    Family(_BUILD, "gauge", "The version of the router that runs.", ("version",)),
    Family(API_REQUESTS, "counter", "Requests to the router's HTTP API.", ("method", "path", "code")),
    Family(ALLOCATE, "times", "Time until an allocation was on the disk."),
    Family(_SIZE, "gauge", "Addresses of a range, those included that are never given.", ("range",)),
    Family(_IN_USE, "gauge", "Addresses of a range that are held.", ("range",)),
    Family(_NAMES, "gauge", "Names in weaveDNS."),
    Family(_ANSWERS, "counter", "Queries that the DNS server answered itself, by RCODE.", ("protocol", "code")),
    Family(_FORWARDS, "counter", "Queries that were forwarded to the host's resolvers, by the RCODE of what was "
                                 "answered.", ("protocol", "code")),
)
_RCODES = ("noerror", "formerr", "servfail", "nxdomain", "notimp", "refused")  # RFC 1035, 4.1.1


@dataclass(slots=True)
class DnsCounts:
    """How many answers of each RCODE were sent by one protocol: the server's own, and those of other resolvers."""

    own: list[int] = field(default_factory=lambda: [0] * 16)
    forwarded: list[int] = field(default_factory=lambda: [0] * 16)


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """What can be asked of a router at any time: each range's size and use, names, and DNS by protocol."""

    sizes: Mapping[str, int]
    in_use: Mapping[str, int]
    names: int
    dns: Mapping[str, DnsCounts]


def of_router(tally: Tally, facts: RouterFacts) -> Iterator[Metric]:
    """All metrics of the router's process, its memory, processor time and descriptors included."""
    yield from families(_FAMILIES, {**tally.numbers(), **_gauges(facts), **_dns(facts.dns)})
    yield from ProcessCollector(registry=CollectorRegistry()).collect()


def _gauges(facts: RouterFacts) -> dict[Cell, float]:
    return {(_BUILD, (__version__,)): 1.0, (_NAMES, ()): facts.names,
            **{(_SIZE, (network,)): size for network, size in facts.sizes.items()},
            **{(_IN_USE, (network,)): count for network, count in facts.in_use.items()}}


def _dns(protocols: Mapping[str, DnsCounts]) -> dict[Cell, float]:
    return {(name, (protocol, _code(number))): count
            for protocol, counts in protocols.items()
            for name, codes in ((_ANSWERS, counts.own), (_FORWARDS, counts.forwarded))
            for number, count in enumerate(codes) if count}


def _code(number: int) -> str:
    return _RCODES[number] if number < len(_RCODES) else str(number)
