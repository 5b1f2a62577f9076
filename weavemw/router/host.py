"""What the router wants to know of its host: routes, and the addresses of bridges. Reads only.

Netlink is opened for each look and closed again: nothing is left open over a fork. But :func:`address_changes` listens.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from weavemw.errors import NetworkError
from weavemw.network import messages
from weavemw.network.messages import DUMP, Message
from weavemw.network.netlink import NetlinkSocket
from weavemw.router.client import Interface
from weavemw.router.store import Address, Network

__all__ = ["HostBridge", "Route", "address_changes", "addresses", "addresses_of", "bridges", "client_bridges",
           "client_networks", "objection", "overlapping", "routes"]

log = logging.getLogger(__name__)

_RT_TABLE_LOCAL, _RTM_GETROUTE = 255, 26
_RTMGRP_IPV4_IFADDR = 0x10
_RTN_LOCAL, _RTN_BROADCAST, _RTA_GATEWAY = 2, 3, 5
_RTMSG = struct.Struct("=BBBBBBBBI")
_ALL_ROUTES = Message(_RTM_GETROUTE, DUMP, bytes(_RTMSG.size), "list the routes")
#: Docker's name for the bridge of a network: "br-" and the first twelve digits of the network's id.
_DOCKER_NETWORK = re.compile(r"br-[0-9a-f]{12}")
#: Routes as short as these stand for "everything": the default route, and the two halves of it that VPNs use.
_EVERYTHING = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the host."""

    network: Network
    device: str

    def __str__(self) -> str:
        return f"{self.network} dev {self.device}"


@dataclass(frozen=True, slots=True)
class HostBridge:
    """A bridge of the host and its addresses."""

    name: str
    interfaces: tuple[Interface, ...] = ()


def overlapping(ranges: Iterable[Network], known: Iterable[Route], but_of: str) -> Route | None:
    """The first route that a range overlaps, those of the device ``but_of`` and of everything left out."""
    ours = tuple(ranges)
    for route in known:
        if route.device != but_of and route.network.prefixlen > _EVERYTHING and any(map(route.network.overlaps, ours)):
            return route
    return None


def addresses_of(name: str, known: Iterable[HostBridge]) -> tuple[str, ...]:
    """The addresses of a bridge, link-local ones left out."""
    return tuple(str(interface.ip) for bridge in known if bridge.name == name
                 for interface in bridge.interfaces if not interface.is_link_local)


def client_bridges(known: Iterable[HostBridge], *names: str, subnets: Collection[Network] = ()) -> tuple[str, ...]:
    """These bridges, there or not, and those whose networks are :func:`client_networks`."""
    return tuple(dict.fromkeys((*names, *(each.name for each in known if client_networks([each], subnets=subnets)))))


def client_networks(known: Iterable[HostBridge], *names: str, subnets: Collection[Network] = ()) -> tuple[Network, ...]:
    """The networks of these bridges and of Docker's user-defined networks, which also ``subnets`` are."""
    return tuple(interface.network for bridge in known for interface in bridge.interfaces
                 if bridge.name in names or _DOCKER_NETWORK.fullmatch(bridge.name) or interface.network in subnets)


def objection(address: Address, bridge: str) -> str:
    """Why no container may have this address: the host has it, or another bridge leads there; else empty.

    ``bridge`` is the one that containers are on. The kernel is asked for its way to the address. It is no objection
    that there is none.
    """
    try:
        kind, device, kind_of_device = _way_to(address)
    except (NetworkError, OSError) as error:  # no way there; or the interface went away meanwhile
        log.debug("no way to %s: %s", address, error)
        return ""
    if kind in (_RTN_LOCAL, _RTN_BROADCAST):
        return f"{address} is an address of this host"
    if device != bridge and kind_of_device == "bridge":
        return f"{address} is in the network of the bridge {device} of this host"
    return ""


def _way_to(address: Address) -> tuple[int, str, str]:
    """The type of the route to an address (rtnetlink(7)), and the name and kind of its device, if it is on the link."""
    family = messages.AF_INET if address.version == 4 else messages.AF_INET6
    body = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    asked = Message(_RTM_GETROUTE, 0, body + messages.attribute(messages.RTA_DST, address.packed), "find a route")
    with NetlinkSocket() as netlink:
        found = netlink.ask(asked)[0]
        values = dict(messages.attributes(found, _RTMSG.size))
        device = socket.if_indextoname(int.from_bytes(values[messages.RTA_OIF], sys.byteorder))
        link = None if _RTA_GATEWAY in values else netlink.link(device)
    return _RTMSG.unpack_from(found)[7], device, link.kind if link else ""


def routes() -> tuple[Route, ...]:
    """The unicast routes of this network namespace."""
    with NetlinkSocket() as netlink:
        names = {link.index: link.name for link in netlink.links()}
        found = [_route(body, names) for body in netlink.ask(_ALL_ROUTES)]
    return tuple(route for route in found if route)


def bridges() -> tuple[HostBridge, ...]:
    """The bridges of this network namespace."""
    with NetlinkSocket() as netlink:
        return tuple(HostBridge(link.name, netlink.addresses(link.index)) for link in netlink.links(kind="bridge"))


@contextmanager
def address_changes(tell: Callable[[], None]) -> Iterator[None]:
    """Within the block, call ``tell`` from the event loop whenever an interface gets or loses an IPv4 address."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, _RTMGRP_IPV4_IFADDR))
        loop.add_reader(netlink, _drain, netlink, tell)
        try:
            yield
        finally:
            loop.remove_reader(netlink)


def _drain(netlink: socket.socket, tell: Callable[[], None]) -> None:
    tell()
    try:
        while netlink.recv(65536):
            pass
    except OSError as error:  # drained; or there was more than fits (ENOBUFS), and we look at everything anyway
        log.debug("addresses changed: %s", error)


def addresses() -> tuple[str, ...]:
    """All addresses of this network namespace, link-local ones left out."""
    with NetlinkSocket() as netlink:
        known = [address for address in map(messages.read_address, netlink.ask(messages.addresses())) if address]
    return tuple(str(interface.ip) for _, interface in known if not interface.is_link_local)


def _route(body: bytes, names: dict[int, str]) -> Route | None:
    family, length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(body)
    values = dict(messages.attributes(body, _RTMSG.size))
    target, device = values.get(messages.RTA_DST), values.get(messages.RTA_OIF, b"")
    of_ip = family in (messages.AF_INET, messages.AF_INET6)  # MPLS has labels
    if not of_ip or kind != messages.RTN_UNICAST or table == _RT_TABLE_LOCAL or not target:
        return None
    return Route(ip_network((ip_address(target), length)), names.get(int.from_bytes(device, sys.byteorder), "?"))
