"""What an attach consists of: names, addresses of the link layer, and the interface between thinking and doing. Pure.

A container on the weave network has a veth pair: ``ethwe`` inside, and a host
end enslaved to the bridge. The host end goes up last: from then on ``ethwe``
has carrier, and that is what the wait program in the container waits for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Network
from typing import Protocol

from weavemw.errors import NetworkError
from weavemw.network.addresses import Interface

__all__ = ["ETHWE", "WEAVE_DNS", "Change", "Condition", "Ethwe", "HostInterface", "Namespace", "Network", "Plan",
           "ProcessEnded", "host_names", "is_host_name", "mac_for", "orphans"]

#: The name of the interface in a container.
ETHWE = "ethwe"

#: Where containers without Docker's bridge reach weaveDNS: a link-local address (RFC 3927) on the weave bridge, of no
#: range. The host has no route to the network by it, so it takes no part in the network but for DNS.
WEAVE_DNS = IPv4Interface("169.254.53.1/32")

_PREFIX, _DIGITS = "vethwe", 9  # IFNAMSIZ leaves 15 characters


class ProcessEnded(NetworkError):
    """There is no such process any more, and so no namespace of its own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One attach: what ``ethwe`` is to have; ``dns_route`` leads to :data:`WEAVE_DNS`."""

    container_id: str
    addresses: tuple[Interface, ...]
    multicast_route: bool = True
    dns_route: bool = False

    @property
    def mac(self) -> str:
        """The MAC address of ``ethwe``: the same after each restart, so that no neighbour's ARP entry goes stale."""
        return mac_for(self.container_id)


@dataclass(frozen=True, slots=True)
class Ethwe:
    """``ethwe`` as it is found in a container; ``attached`` if it is up and has carrier."""

    mac: str
    attached: bool
    addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class HostInterface:
    """The host end of one of our veth pairs; ``container_id`` is empty until the attach is committed.

    ``is_port`` if it is up, and on the bridge, which is up. ``namespace`` is the number by which this namespace knows
    that of the other end (``link-netnsid``); -1 if it has none.
    """

    name: str
    container_id: str = ""
    is_port: bool = field(default=True, compare=False)
    namespace: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Condition:
    """One container's pair as it is found: ``ethwe``, where ``routes`` lead by it, and the host's end."""

    ethwe: Ethwe | None
    routes: frozenset[IPv4Network | IPv6Network] = frozenset()
    outside: HostInterface | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Something that may be a fault: in the namespace of this number here (rtnl_getlink's nsid), ``None`` is our own.

    ``is_gap``: more happened than the kernel could tell.
    """

    namespace: int | None = None
    is_gap: bool = False


class Namespace(Protocol):
    """A container's network namespace, held open. All methods raise :class:`~weavemw.errors.NetworkError`."""

    def ethwe(self) -> Ethwe | None:
        """The interface as it is, or ``None`` if there is none."""

    def prepare(self, plan: Plan) -> str:
        """Make the veth pair and everything on it, except that the host end stays down; returns the host end's name.

        What an earlier incarnation of the container left is removed.
        """

    def commit(self) -> None:
        """Let the host end go up, and announce the addresses (gratuitous ARP, RFC 5227; RFC 4861 section 7.2.6)."""

    def readdress(self, addresses: Iterable[Interface]) -> None:
        """Let an attached ``ethwe`` have exactly these addresses."""

    def condition(self, container_id: str) -> Condition:
        """The container's pair as it is, both ends of it."""

    def complete(self, plan: Plan) -> None:
        """Add what ``ethwe`` lacks of a plan; what is there stays."""

    def route_answers(self) -> None:
        """Let what is answered from an address of Docker's leave by Docker's interface, though ``ethwe`` is nearer.

        It may be called again when Docker's networks have changed.
        """

    def route_answers_no_more(self) -> None:
        """Undo :meth:`route_answers`."""

    def undo(self) -> None:
        """Remove what :meth:`prepare` made; no error if there is nothing."""


class Network(Protocol):
    """What attaching needs of the kernel; :class:`weavemw.testing.RecordingNetwork` is another one."""

    def namespace(self, pid: int, sandbox: str = "") -> AbstractContextManager[Namespace]:
        """Hold a container's network namespace open; the host's own is refused. Raises :class:`ProcessEnded` too.

        It is that of the file ``sandbox`` (Docker's ``SandboxKey``) if that can be seen, whichever one the process
        ``pid`` has moved to; else the process's.
        """

    def set_hostname(self, pid: int, hostname: str) -> None:
        """Give a process's UTS namespace (uts_namespaces(7)) this hostname; the host's own is refused."""

    def detach(self, container_id: str) -> bool:
        """Remove the container's host interface; ``False`` if there was none. Takes the kernel some 20 ms."""

    def interfaces(self) -> tuple[HostInterface, ...]:
        """Our host interfaces, on the bridge or not."""

    def guard(self, container_id: str, addresses: Iterable[Interface]) -> None:
        """Let nothing come from the container's interface but what is from these addresses, and its MAC address."""

    def unguarded(self) -> tuple[HostInterface, ...]:
        """Those of our host interfaces that let in whatever comes; what guards an interface that is gone is removed."""

    def delete(self, host_interface: str) -> bool:
        """Remove a host interface by name; ``False`` if there was none."""

    def keep_bridge(self) -> bool:
        """Make the bridge if it is missing, and let it be up; ``False`` if it was there, and up."""

    def changes(self) -> AbstractContextManager[Iterator[Change | None]]:
        """What may be a fault, as it happens, here and in containers; ``None`` where nothing happened for a while.

        In containers only where the kernel and our rights allow that (``CAP_NET_BROADCAST``).
        """


def host_names(container_id: str) -> tuple[str, ...]:
    """Names for a container's host interface, in the order in which they are tried.

    They come from the id, which is never used twice, as a pid is.
    """
    parts = (container_id[at:at + _DIGITS] for at in range(0, len(container_id), _DIGITS))
    return tuple(_PREFIX + part for part in parts if len(part) == _DIGITS)


def is_host_name(name: str) -> bool:
    """Whether an interface's name is one of ours (a Weave Net router has others that begin the same)."""
    return re.fullmatch(rf"{_PREFIX}[0-9a-f]{{{_DIGITS}}}", name) is not None


def orphans(interfaces: Iterable[HostInterface], running: Iterable[str]) -> tuple[HostInterface, ...]:
    """Those interfaces that belong to none of the running containers."""
    ids = set(running)
    names = {name for container_id in ids for name in host_names(container_id)}
    return tuple(one for one in interfaces
                 if (one.container_id not in ids if one.container_id else one.name not in names))


def mac_for(container_id: str) -> str:
    """A unicast, locally administered MAC address (IEEE 802) that belongs to the container's id."""
    digest = hashlib.sha256(f"{ETHWE} {container_id}".encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02, *digest[1:6]]).hex(":")
