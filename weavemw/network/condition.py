"""What a container's interface is, beside what it should be: the faults, and how each is mended. Pure.

A pair that is incomplete, or not on the bridge, is made anew; what is missing inside is added. What somebody with the
right to do so added in the container stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from weavemw.network.addresses import Interface
from weavemw.network.messages import IFF_LOWER_UP, IFF_UP, Link
from weavemw.network.plan import ETHWE, WEAVE_DNS, Change, Condition, Ethwe, HostInterface, Plan, is_host_name

__all__ = ["Changes", "Fault", "attached_owners", "faults", "is_broken"]

_ALL = 0xFFFFFFFF  # ifi_change of an interface that is new
_MULTICAST = IPv4Network("224.0.0.0/4")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is not as it should be; ``is_of_pair`` if only another pair helps."""

    what: str
    is_of_pair: bool = False

    def __str__(self) -> str:
        return self.what


def faults(found: Condition, plan: Plan) -> tuple[Fault, ...]:
    """All faults of a container's interface, those of the pair first; none if it is as it should be."""
    if found.ethwe is None:
        return (Fault(f"its interface {ETHWE} is gone", True),)
    return (*_of_pair(found, found.ethwe), *_inside(found, found.ethwe, plan))


def is_broken(wrong: Iterable[Fault]) -> bool:
    """Whether another pair is needed."""
    return any(fault.is_of_pair for fault in wrong)


def _of_pair(found: Condition, ethwe: Ethwe) -> Iterator[Fault]:
    if found.outside is None:
        yield Fault(f"the host's end of {ETHWE} is gone", True)
    elif not found.outside.is_port:
        yield Fault(f"{found.outside.name} is not on the bridge", True)
    if not ethwe.attached:
        yield Fault(f"{ETHWE} is down, or has no carrier", True)


def _inside(found: Condition, ethwe: Ethwe, plan: Plan) -> Iterator[Fault]:
    if missing := [str(one) for one in plan.addresses if one not in ethwe.addresses]:
        yield Fault(f"{ETHWE} lacks {' '.join(missing)}")
    if plan.multicast_route and _MULTICAST not in found.routes:
        yield Fault(f"no route for multicast leads by {ETHWE}")
    if plan.dns_route and WEAVE_DNS.network not in found.routes:
        yield Fault(f"no route to weaveDNS leads by {ETHWE}")


def attached_owners(interfaces: Iterable[HostInterface]) -> set[str]:
    """The ids of the containers whose interfaces are on the bridge."""
    return {one.container_id for one in interfaces if one.is_port} - {""}


@dataclass
class Changes:
    """Tells what may be a fault from what an attach, or somebody else's interface, makes happen all the time.

    Faults are: what goes away, what was up and goes down, what was a port and is none any more, or of another bridge.
    """

    def __post_init__(self) -> None:
        self._links: dict[tuple[int | None, int], Link] = {}

    def of_link(self, namespace: int | None, link: Link, *, gone: bool) -> Change | None:
        """What the word of an interface means, by ``RTM_NEWLINK`` or (``gone``) ``RTM_DELLINK``."""
        key = (namespace, link.index)
        if key not in self._links and not _concerns_us(namespace, link):
            return None
        before = self._links.pop(key, None)
        if not gone:
            self._links[key] = link
        worse = _is_worse(before, link) if before else _went_down(link)
        return Change(namespace) if gone or worse else None

    def of_address(self, namespace: int | None, index: int, address: Interface, label: str) -> Change | None:
        """What the loss of an address (``RTM_DELADDR``) means; IPv6 has no labels, which name the interface."""
        ours = label == ETHWE if label else (namespace, index) in self._links
        return Change(namespace) if ours and namespace is not None and not address.is_link_local else None


def _concerns_us(namespace: int | None, link: Link) -> bool:
    """In a container it is ``ethwe``; in the host a bridge, or one end of a pair of ours: Docker's go at each end."""
    return link.name == ETHWE if namespace is not None else link.kind == "bridge" or is_host_name(link.name)


def _went_down(link: Link) -> bool:
    """Whether one that was never heard of before was set down; one that is new begins so."""
    return link.changed != _ALL and bool(link.changed & ~link.flags & IFF_UP)


def _is_worse(before: Link, now: Link) -> bool:
    # A bridge is without carrier whenever it has no port that is up.
    lost = before.flags & ~now.flags & (IFF_UP if now.kind == "bridge" else IFF_UP | IFF_LOWER_UP)
    return bool(lost) or (before.master != 0 and before.master != now.master)
