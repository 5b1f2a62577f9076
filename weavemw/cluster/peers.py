"""What the control plane tells the data plane: which hosts there are, and which containers are on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

__all__ = ["DataPlane", "Endpoint", "NoDataPlane", "Overlay", "Peer", "RemoteContainer", "Underlay"]

Endpoint = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Overlay:
    """What all hosts of a network have in common; ``family`` is the underlay's, 4 or 6, ``vni`` is of 24 bits."""

    vni: int = 6784
    port: int = 6784
    family: int = 4
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Underlay:
    """What others are to know of a host: where packets for it are sent, the preferred address first.

    ``mtu`` is in bytes, of a whole packet of the underlay. ``wireguard_key`` is the public one, in base64.
    """

    endpoints: tuple[Endpoint, ...]
    mtu: int
    wireguard_key: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host. ``id`` has the form of a MAC address, and never changes; all else may."""

    id: str
    nickname: str
    underlay: Underlay


@dataclass(frozen=True, slots=True)
class RemoteContainer:
    """A container of another host, or the host itself where it is exposed; ``owner`` is the container's id."""

    owner: str
    peer: str
    mac: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]


class DataPlane(Protocol):
    """Forwarding to other hosts. Each call says what should be; said again, it repairs what is missing.

    Calls may block, and come one at a time, from any thread. They raise
    :class:`~weavemw.errors.NetworkError`; what was said is then said again later.
    Nothing but these calls removes forwarding: that a host is silent does not.
    """

    def underlay(self) -> Underlay:
        """What others are to know of this host, as it is now: asked every few seconds."""

    def peers(self, desired: Collection[Peer]) -> None:
        """These are all other hosts: broadcast reaches each, and packets come from no other."""

    def containers(self, desired: Mapping[str, Collection[RemoteContainer]]) -> None:
        """What each of these peers has, by its id, and nothing else; peers that are not named stay as they are.

        An address may have moved from one peer to another since the last call.
        """

    def close(self) -> None:
        """Release what this process holds. Forwarding stays: containers run on while the router does not."""


class NoDataPlane:
    """:class:`DataPlane` where there is no bridge: addresses and names are shared, and packets are others' business."""

    def __init__(self, advertise: Collection[Endpoint] = (), mtu: int = 1500) -> None:
        self._underlay = Underlay(tuple(advertise), mtu)

    def underlay(self) -> Underlay:
        return self._underlay

    def peers(self, desired: Collection[Peer]) -> None:
        pass

    def containers(self, desired: Mapping[str, Collection[RemoteContainer]]) -> None:
        pass

    def close(self) -> None:
        pass
