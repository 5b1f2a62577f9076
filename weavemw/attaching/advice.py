"""What a create's user would want to know, and would else find out later: sentences for Docker's ``Warnings``. Pure.

Nothing is said of what was asked for: ``WEAVE_CIDR=none``, the host's network, that of another container.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network

from weavemw.dockerapi.container import DockerNetwork
from weavemw.network.addresses import VARIABLE, Claim, Network, Subnet, Wanted

__all__ = ["in_the_way", "misspelled", "narrow", "overlapping"]

_ALIKE = 0.8  # difflib's ratio: WEAVE_CDIR has 0.9, WEAVE_DIR 0.84, WEAVE_PORT 0.7


def misspelled(env: Sequence[str]) -> Iterator[str]:
    """Of variables in a list of ``NAME=value`` that may have been meant to be ``WEAVE_CIDR``."""
    names = dict.fromkeys(entry.partition("=")[0] for entry in env)
    for name in names:
        if name != VARIABLE and difflib.get_close_matches(name.upper(), [VARIABLE], 1, _ALIKE):
            yield f"{name} means nothing to the weave network: did you mean {VARIABLE}?"


def narrow(wanted: Iterable[Wanted], default: Network) -> Iterator[str]:
    """Of addresses that lie among the automatic ones, and can't reach them for their prefix."""
    for one in wanted:
        if isinstance(one, Claim) and one.interface.ip in default:
            network = one.interface.network
            if network.prefixlen > default.prefixlen:
                yield (f"{one.interface} reaches only {network}; containers with automatic addresses are in {default}: "
                       f"{one.interface.ip}/{default.prefixlen} reaches them all")


def overlapping(wanted: Iterable[Wanted], docker: Iterable[str]) -> Iterator[str]:
    """Of addresses and subnets that overlap with subnets of Docker's networks."""
    others = tuple(map(ip_network, docker))
    for one in wanted:
        network = _network(one)
        for other in others:
            if network and network.version == other.version and network.overlaps(other):
                yield f"{network} overlaps with {other} of a Docker network: who is in both can't be told apart"


def in_the_way(networks: Iterable[DockerNetwork], ranges: Iterable[Network]) -> Iterator[str]:
    """Of Docker's networks that overlap the ranges of automatic addresses."""
    for one, ours in itertools.product(networks, tuple(ranges)):
        for subnet in map(ip_network, one.subnets):
            if subnet.version == ours.version and subnet.overlaps(ours):
                yield (f"Docker's network {one.name} ({subnet}) overlaps the weave network's {ours}: a container on it "
                       f"may not reach others there; make it anew with another --subnet")


def _network(wanted: Wanted) -> Network | None:
    if isinstance(wanted, Claim):
        return wanted.interface.network
    return wanted.network if isinstance(wanted, Subnet) else None
