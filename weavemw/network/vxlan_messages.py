"""Route netlink messages of a VXLAN device: the device, its place on a bridge, and its entries. Pure.

The kernel's if_link.h, neighbour.h and nexthop.h have the numbers. MAC and IP addresses are bytes here, as they go
over the wire: there are a hundred thousand of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from weavemw.network import messages
from weavemw.network.messages import ACK, AF_INET, AF_INET6, CREATE, DUMP, EXCL, REPLACE, Message, attribute, attributes

__all__ = ["ZEROS", "Entry", "VxlanDevice", "alias", "blackhole", "delete_entry", "delete_flood", "delete_neighbour",
           "delete_nexthop", "device", "enslave", "entries", "flood", "neighbour", "neighbours", "nexthop", "nexthops",
           "port", "read_device", "read_entry", "read_gateway", "read_neighbour", "replace_entry"]

#: The MAC address of the entries by which a VXLAN device sends what is for all, or for nobody that it knows.
ZEROS = bytes(6)

RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 29, 30, 104, 105, 106
_APPEND = 0x800
_AF_BRIDGE = 7

_VXLAN_ID, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_GROUP6 = 1, 7, 15, 16
_INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 4, 5
_PORT_LEARNING, _PORT_UNICAST_FLOOD, _PORT_NEIGH_SUPPRESS = 8, 9, 32

_NDA_MASTER, _NDA_NH_ID = 9, 13
_NTF_SELF, _NTF_MASTER = 0x02, 0x04
#: Not to age in either table: "static" is NOARP to a bridge, and a VXLAN device wants to hear of REACHABLE too.
_STATIC = 0x40 | 0x02

_NHA_ID, _NHA_GROUP, _NHA_GATEWAY, _NHA_FDB = 1, 2, 6, 11
#: Nexthops are numbered in each network namespace, for whoever makes them: these are ours. Each host has two, its
#: address and a group of that one alone, since entries of VXLAN take only groups.
_FIRST_ID, _LAST_ID = 0x77780000, 0x7778FFFF

_NEXTHOP, _GROUP_MEMBER = struct.Struct("=BBBxI"), struct.Struct("=IBBH")
#: A neighbour's header, its MAC address as an attribute, and the group of its host: in one go, since there are many.
_TO_HOST = struct.Struct("=BxxxiHBxHH6sxxHHI")
_RTN_BLACKHOLE, _RTA_PRIORITY, _WORST = 6, 6, 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class VxlanDevice:
    """What can't be changed of a VXLAN device; ``family`` is that of its underlay, 4 or 6."""

    vni: int
    port: int
    family: int
    learning: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A forwarding entry of a VXLAN device, or, if ``of_bridge``, of its bridge; ``host`` is one of its nexthops'."""

    mac: bytes
    remote: bytes = b""
    host: int = 0
    of_bridge: bool = False


def device(name: str, wanted: VxlanDevice, mtu: int) -> Message:
    """A VXLAN device that is bound to no other one: so its senders are told of the path's MTU."""
    data = attribute(_VXLAN_ID, wanted.vni) + attribute(_VXLAN_PORT, struct.pack("!H", wanted.port))
    data += attribute(_VXLAN_LEARNING, bytes([wanted.learning]))
    data += attribute(_VXLAN_GROUP6, bytes(16)) if wanted.family == 6 else b""
    info = attribute(messages.IFLA_INFO_KIND, "vxlan") + attribute(messages.IFLA_INFO_DATA, data)
    body = (messages.link_header() + attribute(messages.IFLA_IFNAME, name) + attribute(messages.IFLA_MTU, mtu)
            + attribute(messages.IFLA_LINKINFO, info))
    return Message(messages.RTM_NEWLINK, ACK | CREATE | EXCL, body, f"make the VXLAN device {name}")


def read_device(body: bytes) -> VxlanDevice | None:
    """The device in an RTM_NEWLINK; ``None`` if it is of another kind."""
    values = dict(attributes(body, len(messages.link_header())))
    info = dict(attributes(values.get(messages.IFLA_LINKINFO, b"")))
    if info.get(messages.IFLA_INFO_KIND, b"").rstrip(b"\0") != b"vxlan":
        return None
    data = dict(attributes(info.get(messages.IFLA_INFO_DATA, b"")))
    family = 6 if values.get(messages.IFLA_IFALIAS, b"").rstrip(b"\0") == alias(6).encode() else 4
    return VxlanDevice(int(struct.unpack("=I", data[_VXLAN_ID])[0]), int.from_bytes(data[_VXLAN_PORT], "big"), family,
                       data[_VXLAN_LEARNING] != b"\0")


def alias(family: int) -> str:
    """What the device says of its underlay: the kernel keeps an unbound one's family, and does not tell it."""
    return f"underlay IPv{family}"


def enslave(index: int, bridge: int) -> Message:
    """Let an interface be a port of the bridge with this index."""
    body = messages.link_header(index) + attribute(messages.IFLA_MASTER, bridge)
    return Message(messages.RTM_NEWLINK, ACK, body, f"let interface {index} be a port of the bridge")


def port(index: int, *, learning: bool) -> Message:
    """How the bridge treats the port: without learning, it answers ARP for known neighbours, and floods no unicast."""
    data = (attribute(_PORT_LEARNING, bytes([learning])) + attribute(_PORT_UNICAST_FLOOD, bytes([learning]))
            + attribute(_PORT_NEIGH_SUPPRESS, bytes([not learning])))
    info = attribute(_INFO_SLAVE_KIND, "bridge") + attribute(_INFO_SLAVE_DATA, data)
    body = messages.link_header(index) + attribute(messages.IFLA_LINKINFO, info)
    return Message(messages.RTM_NEWLINK, ACK, body, f"set up port {index} of the bridge")


def nexthop(host: int, endpoint: bytes) -> tuple[Message, Message]:
    """Let host number ``host`` be reached at this address, whatever it was before."""
    family = AF_INET if len(endpoint) == 4 else AF_INET6
    number, what = _FIRST_ID + 2 * host, f"reach host {host}"
    member = attribute(_NHA_ID, number) + attribute(_NHA_GATEWAY, endpoint) + attribute(_NHA_FDB, b"")
    group = (attribute(_NHA_ID, number + 1) + attribute(_NHA_GROUP, _GROUP_MEMBER.pack(number, 0, 0, 0))
             + attribute(_NHA_FDB, b""))
    return (Message(RTM_NEWNEXTHOP, CREATE | REPLACE, _NEXTHOP.pack(family, 0, 0, 0) + member, what),
            Message(RTM_NEWNEXTHOP, CREATE | REPLACE, _NEXTHOP.pack(0, 0, 0, 0) + group, what))


def delete_nexthop(host: int) -> Message:
    """Forget the way to a host; its group and the entries that name it go too."""
    body = _NEXTHOP.pack(0, 0, 0, 0) + attribute(_NHA_ID, _FIRST_ID + 2 * host)
    return Message(RTM_DELNEXTHOP, 0, body, f"forget host {host}")


def nexthops() -> Message:
    """Ask for all nexthops of forwarding tables."""
    return Message(RTM_GETNEXTHOP, DUMP, _NEXTHOP.pack(0, 0, 0, 0) + attribute(_NHA_FDB, b""), "list the nexthops")


def read_gateway(body: bytes) -> tuple[int, bytes] | None:
    """A host's number and address in an RTM_NEWNEXTHOP; ``None`` for a group, and for others'."""
    values = dict(attributes(body, _NEXTHOP.size))
    number, gateway = struct.unpack("=I", values[_NHA_ID])[0], values.get(_NHA_GATEWAY)
    if gateway is None or not _FIRST_ID <= number <= _LAST_ID:
        return None
    return (number - _FIRST_ID) // 2, gateway


def flood(index: int, remote: bytes) -> Message:
    """Let the VXLAN device send what is for all to this host too."""
    return Message(messages.RTM_NEWNEIGH, CREATE | _APPEND, _flooded(index, remote), "let broadcast reach a host")


def delete_flood(index: int, remote: bytes) -> Message:
    """No longer send to this host what is for all."""
    return Message(RTM_DELNEIGH, 0, _flooded(index, remote), "let broadcast reach a host no more")


def _flooded(index: int, remote: bytes) -> bytes:
    return (messages.neighbour_header(_AF_BRIDGE, index, messages.NUD_PERMANENT, _NTF_SELF)
            + attribute(messages.NDA_LLADDR, ZEROS) + attribute(messages.NDA_DST, remote))


def replace_entry(index: int, mac: bytes, host: int) -> Message:
    """Let the bridge send to the VXLAN device what is for this MAC address, and that to this host."""
    body = _TO_HOST.pack(_AF_BRIDGE, index, _STATIC, _NTF_SELF | _NTF_MASTER, 10, messages.NDA_LLADDR, mac,
                         8, _NDA_NH_ID, _FIRST_ID + 2 * host + 1)
    return Message(messages.RTM_NEWNEIGH, CREATE | REPLACE, body, "forward to a container")


def delete_entry(index: int, mac: bytes, *, of_device: bool = True, of_bridge: bool = True) -> Message:
    """The opposite of :func:`replace_entry`; both entries must be there, or the one that is meant."""
    flags = (_NTF_SELF if of_device else 0) | (_NTF_MASTER if of_bridge else 0)
    return Message(RTM_DELNEIGH, 0, _entry(index, mac, flags), "forward to a container no more")


def _entry(index: int, mac: bytes, flags: int) -> bytes:
    return messages.neighbour_header(_AF_BRIDGE, index, _STATIC, flags) + attribute(messages.NDA_LLADDR, mac)


def entries(index: int) -> Message:
    """Ask for the forwarding entries of a VXLAN device, and for those of its bridge that lead to it."""
    body = messages.neighbour_header(_AF_BRIDGE, index, 0, 0)
    return Message(RTM_GETNEIGH, DUMP, body, "list the forwarding entries")


def read_entry(body: bytes, index: int) -> Entry | None:
    """An entry of interface ``index`` in an RTM_NEWNEIGH; ``None`` for those that nobody put there."""
    family, its_index, state, _ = messages.read_neighbour_header(body)
    if family != _AF_BRIDGE or its_index != index:
        return None
    values = dict(attributes(body, messages.NEIGHBOUR_SIZE))
    mac, of_bridge = values.get(messages.NDA_LLADDR, ZEROS), _NDA_MASTER in values
    if of_bridge:  # PERMANENT is the port's own address
        return Entry(mac, of_bridge=True) if state & 0x40 else None
    group = struct.unpack("=I", values.get(_NDA_NH_ID, bytes(4)))[0]
    host = (group - _FIRST_ID) // 2 if _FIRST_ID <= group <= _LAST_ID else 0
    return Entry(mac, values.get(messages.NDA_DST, b""), host)


def neighbour(bridge: int, address: bytes, mac: bytes) -> Message:
    """Let the bridge answer for this address with this MAC address, whatever it said before."""
    body = _neighbour(bridge, address) + attribute(messages.NDA_LLADDR, mac)
    return Message(messages.RTM_NEWNEIGH, CREATE | REPLACE, body, "answer for a container")


def delete_neighbour(bridge: int, address: bytes) -> Message:
    """The opposite of :func:`neighbour`."""
    return Message(RTM_DELNEIGH, 0, _neighbour(bridge, address), "answer for a container no more")


def _neighbour(bridge: int, address: bytes) -> bytes:
    family = AF_INET if len(address) == 4 else AF_INET6
    return (messages.neighbour_header(family, bridge, messages.NUD_PERMANENT, 0)
            + attribute(messages.NDA_DST, address))


def neighbours(bridge: int) -> Message:
    """Ask for the neighbours of the bridge; all interfaces' may come."""
    return Message(RTM_GETNEIGH, DUMP, messages.neighbour_header(0, 0, 0, 0), "list the neighbours")


def read_neighbour(body: bytes, bridge: int) -> tuple[bytes, bytes] | None:
    """IP and MAC address of a permanent neighbour of the bridge in an RTM_NEWNEIGH; ``None`` for all others."""
    family, index, state, _ = messages.read_neighbour_header(body)
    if index != bridge or family not in (AF_INET, AF_INET6) or not state & messages.NUD_PERMANENT:
        return None
    values = dict(attributes(body, messages.NEIGHBOUR_SIZE))
    return values[messages.NDA_DST], values.get(messages.NDA_LLADDR, ZEROS)


def blackhole(network: bytes, prefix: int) -> Message:
    """Let packets for this IPv4 network go nowhere, if there is no better route."""
    body = (struct.pack("=BBBBBBBBI", AF_INET, prefix, 0, 0, messages.RT_TABLE_MAIN, messages.RTPROT_BOOT, 0,
                        _RTN_BLACKHOLE, 0)
            + attribute(messages.RTA_DST, network) + attribute(_RTA_PRIORITY, _WORST))
    return Message(messages.RTM_NEWROUTE, ACK | CREATE | REPLACE, body, "keep packets for other hosts off other ways")
