"""A container's packets are from the addresses that it was given: what a port of the bridge lets in.

Else root in a container (with Docker's default capabilities) could answer ARP for
another one, or send in its name. Checked are the MAC address of each frame, the
sender in ARP (RFC 826) and IPv4, in IPv6, and the target that a neighbour
advertisement is about (RFC 4861). Router advertisements and redirects are no
container's business, and VLAN tags would hide what is behind them. Of weaveDNS it may ask 5,000
questions in a second: more would fill the socket, and others' questions be lost.

The rules are nf_tables', a chain at each port (:mod:`weavemw.network.nftables`), in a table of our own.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Iterable
from ipaddress import IPv6Address

from weavemw.errors import NetworkError
from weavemw.network import nftables
from weavemw.network.addresses import Interface
from weavemw.network.messages import Message
from weavemw.network.netlink_socket import NetlinkSocket, NoSuchThing
from weavemw.network.nftables import (
    ARP,
    ICMPV6,
    IPV4,
    IPV6,
    LINK,
    NETWORK,
    TRANSPORT,
    UDP,
    VLAN,
    Rule,
    differs,
    more_than,
)

__all__ = ["guard", "guarded", "remove", "rules", "unguard"]

_log = logging.getLogger(__name__)

_ETHERNET_AND_IPV4 = bytes.fromhex("000108000604")  # hardware, protocol and their lengths in ARP
_ROUTER_ADVERTISEMENT, _NEIGHBOUR_ADVERTISEMENT, _REDIRECT = b"\x86", b"\x88", b"\x89"
_UNKNOWN_4, _UNKNOWN_6 = bytes(4), bytes(16)  # who asks whether an address is taken has none yet
_QUESTIONS, _QUESTIONS_AT_ONCE = 5000, 100  # per second, and at once: the buffer of a socket holds some 270
_NOT_HERE = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOENT, errno.EINVAL}


def guard(bridge: str, port: str, mac: str, addresses: Iterable[Interface]) -> None:
    """Let a port of a bridge let in only what is from this MAC address and these addresses; whatever was before.

    A kernel that can't is complained of once. Raises :class:`~weavemw.errors.NetworkError`.
    """
    try:
        _transact(nftables.set_chain(_table(bridge), port, rules(mac, addresses)))
    except NetworkError as error:
        if getattr(error.__cause__, "errno", 0) not in _NOT_HERE:
            raise
        _complain(str(error))


def unguard(bridge: str, port: str) -> None:
    """Let a port let everything in, or remove what is left of one; no error if there is nothing."""
    _removed(nftables.delete_chain(_table(bridge), port))


def guarded(bridge: str) -> frozenset[str]:
    """The ports that are guarded; of some the interface may be gone. Raises :class:`~weavemw.errors.NetworkError`."""
    try:
        with NetlinkSocket(nftables.NETLINK_NETFILTER) as kernel:
            bodies = kernel.ask(nftables.chains())
    except NoSuchThing:
        return frozenset()
    return frozenset(filter(None, (nftables.chain_name(_table(bridge), body) for body in bodies)))


def remove(bridge: str) -> None:
    """Remove everything of this kind; no error if there is nothing."""
    _removed(nftables.delete_table(_table(bridge)))


def rules(mac: str, addresses: Iterable[Interface]) -> tuple[Rule, ...]:
    """What is dropped at a port: what is not from this MAC address and one of the addresses, and floods. Pure."""
    own, all_addresses = bytes.fromhex(mac.replace(":", "")), tuple(addresses)
    four = [each.ip.packed for each in all_addresses if each.version == 4]
    six = [*(each.ip.packed for each in all_addresses if each.version == 6), _link_local(own)]
    return (
        differs(LINK, 6, [own]),
        differs(NETWORK, 12, four or [_UNKNOWN_4], protocol=IPV4),
        differs(NETWORK, 8, [*six, _UNKNOWN_6], protocol=IPV6),
        differs(NETWORK, 0, [_ETHERNET_AND_IPV4], protocol=ARP),
        differs(NETWORK, 8, [own], protocol=ARP),
        differs(NETWORK, 14, [*four, _UNKNOWN_4], protocol=ARP),
        differs(TRANSPORT, 8, six, protocol=IPV6, transport=ICMPV6, kind=_NEIGHBOUR_ADVERTISEMENT),
        *(differs(TRANSPORT, 0, [], protocol=IPV6, transport=ICMPV6, kind=kind)
          for kind in (_ROUTER_ADVERTISEMENT, _REDIRECT)),
        *(differs(LINK, 0, [], protocol=tag) for tag in VLAN),
        more_than(_QUESTIONS, _QUESTIONS_AT_ONCE, protocol=IPV4, transport=UDP, port=53),
    )


def _link_local(mac: bytes) -> bytes:
    """The address that the kernel makes of a MAC address (RFC 4291 appendix A)."""
    identifier = bytes([mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]])
    return IPv6Address("fe80::").packed[:8] + identifier


def _table(bridge: str) -> str:
    return f"weavemw-{bridge}"


def _removed(messages: Iterable[Message]) -> None:
    try:
        _transact(messages)
    except NetworkError as error:
        if getattr(error.__cause__, "errno", 0) not in _NOT_HERE:
            raise


def _transact(messages: Iterable[Message]) -> None:
    with NetlinkSocket(nftables.NETLINK_NETFILTER) as kernel:
        kernel.transact(nftables.batch(messages))


@functools.cache
def _complain(why: str) -> None:
    _log.warning("containers can send in the name of others: %s", why)
