"""What other hosts are to know of this one: the addresses that lead here, and how large a packet may be."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterable
from ipaddress import ip_address

from weavemw.cluster.peers import Endpoint, Underlay
from weavemw.errors import NetworkError
from weavemw.network import messages
from weavemw.network.messages import Link
from weavemw.network.netlink_socket import NetlinkSocket
from weavemw.network.wireguard import TUNNELS

__all__ = ["local_underlay", "source"]

_SOMEWHERE: dict[int, Endpoint] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}  # RFC 5737, RFC 3849
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DISCARD = 9  # a port, to which nothing is sent


def local_underlay(family: int, advertise: Collection[Endpoint], towards: Iterable[Endpoint], bridge: str) -> Underlay:
    """This host as others are to reach it by IPv4 or IPv6 (4, 6).

    What is advertised comes first, then the addresses that packets to ``towards`` have, or those by the default route,
    or else any that is not of a bridge. Raises :class:`~weavemw.errors.NetworkError` if there is none.
    """
    with NetlinkSocket() as netlink:
        links = {link.index: link for link in netlink.links()}
        found = [pair for pair in map(messages.read_address, netlink.ask(messages.addresses())) if pair]
    of_links = {interface.ip: links[index] for index, interface in found
                if index in links and _leads_here(interface.ip, links[index], bridge, family)}
    ways = [source(one) for one in (*towards, _SOMEWHERE[family]) if one.version == family]
    own = [one for one in ways if one in of_links] or list(of_links)
    endpoints = tuple(dict.fromkeys((*advertise, *own)))
    if not endpoints:
        raise NetworkError(f"this host has no IPv{family} address for other hosts to reach it at")
    return Underlay(endpoints, min((of_links[one].mtu for one in own[:1]), default=1500))


def source(target: Endpoint) -> Endpoint | None:
    """The address that packets to ``target`` have, by the host's routes; ``None`` if no route leads there."""
    with socket.socket(_FAMILIES[target.version], socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect((str(target), _DISCARD))
        return ip_address(sock.getsockname()[0].partition("%")[0])
    return None


def _leads_here(address: Endpoint, link: Link, bridge: str, family: int) -> bool:
    return (address.version == family and not address.is_loopback and not address.is_link_local
            and link.kind != "bridge" and link.name != bridge and address not in TUNNELS)
