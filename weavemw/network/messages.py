"""Route netlink messages as bytes: building and reading (rtnetlink(7), netlink(7)). Pure.

A message here is a header without sequence number (:func:`numbered` gives it
one), a fixed body, and attributes.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, ip_address, ip_interface, ip_network

from weavemw.network.addresses import Interface, Network
from weavemw.network.answers import Route, Rule
from weavemw.network.plan import WEAVE_DNS, Plan

__all__ = ["ACK", "CREATE", "DUMP", "EXCL", "IFF_LOWER_UP", "IFF_RUNNING", "IFF_UP", "Link", "Message", "add_address",
           "addresses", "announce", "attribute", "attributes", "bridge", "complaint", "delete_address", "delete_link",
           "deletes", "dns_neighbour", "dns_route", "end_of_dump", "get_link", "inside", "label", "link_header",
           "links", "missing", "multicast_route", "neighbour_header", "no_link_local", "numbered", "promote",
           "read_address", "read_link", "read_neighbour_header", "read_route", "read_rule", "readdressing",
           "responses", "route", "routes", "rule", "rules", "set_link", "veth"]

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE, RTM_NEWNEIGH = 24, 26, 28
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

REQUEST, ACK, REPLACE, EXCL, CREATE, DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
DUMP_INTERRUPTED = 0x10

IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_EXT_MASK = 20, 26, 28, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_LINK_NETNSID = 31, 32, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 5, 23
IFLA_INET_CONF, IPV4_DEVCONF_PROMOTE_SECONDARIES, IPV4_DEVCONF_ARP_NOTIFY = 1, 20, 22
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, b"\1"
RTEXT_FILTER_SKIP_STATS = 8

IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 3, 4, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
FRA_SRC, FRA_PRIORITY, FRA_TABLE, FR_ACT_TO_TBL = 2, 6, 15, 1
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_LINK, RTN_UNICAST = 254, 3, 253, 1
RT_SCOPE_UNIVERSE = 0

NLMSGERR_ATTR_MSG = 1
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200

AF_INET, AF_INET6 = 2, 10

_MULTICAST = IPv4Network("224.0.0.0/4")
_HEADER, _LINK, _ADDRESS = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
NEIGHBOUR_SIZE = _NEIGHBOUR.size
_ROUTE, _ATTRIBUTE, _ERRNO = struct.Struct("=BBBBBBBBI"), struct.Struct("=HH"), struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Message:
    """One request; ``what`` completes "can't …"."""

    kind: int
    flags: int
    body: bytes
    what: str


@dataclass(frozen=True, slots=True)
class Link:
    """An interface; ``master`` is the index of the bridge that it is a port of, or 0.

    ``namespace`` is the number that the namespace of its other end has here, or -1.
    ``changed`` are the flags that a notification tells of; all of them for an interface that is new.
    """

    index: int
    name: str
    flags: int
    mtu: int = 0
    master: int = 0
    mac: str = ""
    kind: str = ""
    alias: str = ""
    namespace: int = -1
    changed: int = field(default=0, compare=False)


def numbered(message: Message, sequence: int) -> bytes:
    """The message as it is sent."""
    return _HEADER.pack(16 + len(message.body), message.kind, message.flags | REQUEST, sequence, 0) + message.body


def deletes(message: Message) -> bool:
    """Whether it removes something: of each four kinds the second does (rtnetlink(7))."""
    return message.kind & 3 == 1


def attribute(kind: int, value: bytes | int | str) -> bytes:
    """One attribute, padded; an ``int`` is 32 bits, a ``str`` ends with a zero byte."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def veth(name: str, peer: str, *, mac: str, mtu: int, namespace: int, master: int) -> Message:
    """A pair whose peer is made directly in the namespace (a file descriptor), and whose host end is a port.

    One queue each: the kernel's default of one for each CPU takes it a third longer, and serves only XDP.
    """
    inside = (_LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, peer) + attribute(IFLA_MTU, mtu) + _ONE_QUEUE
              + attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) + attribute(IFLA_NET_NS_FD, namespace))
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, inside))
    body = (link_header() + attribute(IFLA_IFNAME, name) + attribute(IFLA_MTU, mtu) + attribute(IFLA_MASTER, master)
            + _ONE_QUEUE + attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "veth") + data))
    return Message(RTM_NEWLINK, ACK | CREATE | EXCL, body, f"make the veth pair {name}, {peer}")


_ONE_QUEUE = attribute(IFLA_NUM_TX_QUEUES, 1) + attribute(IFLA_NUM_RX_QUEUES, 1)


def bridge(name: str, *, mac: bytes) -> Message:
    """A bridge without spanning tree, that floods multicast: a port forwards at once, and IPv6 finds its neighbours.

    Its MAC address is given, since else it would be that of one of its ports, and change with them.
    """
    data = attribute(IFLA_BR_STP_STATE, 0) + attribute(IFLA_BR_MCAST_SNOOPING, b"\0")
    body = (link_header() + attribute(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, mac)
            + attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "bridge") + attribute(IFLA_INFO_DATA, data)))
    return Message(RTM_NEWLINK, ACK | CREATE | EXCL, body, f"make the bridge {name}")


def set_link(name: str = "", *, index: int = 0, up: bool = False, mtu: int = 0, alias: str = "",
             arp_notify: bool = False) -> Message:
    """Change an interface, found by index or by name; what isn't given stays."""
    body = link_header(index, IFF_UP if up else 0)
    body += attribute(IFLA_IFNAME, name) if not index else b""
    body += attribute(IFLA_MTU, mtu) if mtu else b""
    body += attribute(IFLA_IFALIAS, alias.encode()) if alias else b""
    body += _turned_on(IPV4_DEVCONF_ARP_NOTIFY) if arp_notify else b""
    return Message(RTM_NEWLINK, ACK, body, f"set up {name or f'interface {index}'}")


def no_link_local(index: int) -> Message:
    """Let the kernel give an interface no IPv6 address of its own (addr_gen_mode in the kernel's ip-sysctl)."""
    mode = attribute(AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE))
    body = link_header(index) + attribute(IFLA_AF_SPEC, mode)
    return Message(RTM_NEWLINK, ACK, body, f"let interface {index} have no link-local address")


def promote(index: int) -> Message:
    """Let an interface keep the other IPv4 addresses of a subnet when its first one goes (ip-sysctl, the kernel's).

    Without it they go too, and with the last address all routes by the interface.
    """
    body = link_header(index) + _turned_on(IPV4_DEVCONF_PROMOTE_SECONDARIES)
    return Message(RTM_NEWLINK, ACK, body, f"let interface {index} keep its other addresses")


def _turned_on(setting: int) -> bytes:
    return attribute(IFLA_AF_SPEC, attribute(AF_INET, attribute(IFLA_INET_CONF, attribute(setting, 1))))


def announce(index: int, mac: str) -> Message:
    """Set the MAC address that it has anyway: the kernel then announces its addresses (arp_notify, ndisc_notify)."""
    body = link_header(index) + attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    return Message(RTM_NEWLINK, ACK, body, f"announce the addresses of interface {index}")


def delete_link(name: str) -> Message:
    """Remove an interface; of a veth pair both ends go."""
    return Message(RTM_DELLINK, ACK, link_header() + attribute(IFLA_IFNAME, name), f"remove {name}")


def get_link(name: str) -> Message:
    """Ask for an interface by name."""
    body = link_header() + attribute(IFLA_IFNAME, name) + attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return Message(RTM_GETLINK, 0, body, f"find the interface {name}")


def links(*, master: int = 0, kind: str = "") -> Message:
    """Ask for all interfaces, or the ports of a bridge, or those of a kind; kernels before 4.6 answer with all."""
    body = link_header() + attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    body += attribute(IFLA_MASTER, master) if master else b""
    body += attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode())) if kind else b""
    return Message(RTM_GETLINK, DUMP, body, "list the interfaces")


def add_address(index: int, interface: Interface) -> Message:
    """Give an interface an address, without duplicate address detection: the allocator knows."""
    what = f"give interface {index} the address {interface}"
    return Message(RTM_NEWADDR, ACK | CREATE | EXCL, _address(index, interface), what)


def delete_address(index: int, interface: Interface) -> Message:
    """Take an address from an interface."""
    return Message(RTM_DELADDR, ACK, _address(index, interface), f"take the address {interface} from interface {index}")


def addresses(index: int = 0) -> Message:
    """Ask for the addresses of an interface, or of all; kernels before 4.20 answer with all."""
    return Message(RTM_GETADDR, DUMP, _ADDRESS.pack(0, 0, 0, 0, index), "list the addresses")


def readdressing(index: int, has: Collection[Interface],
                 wanted: Collection[Interface]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """What gives an interface exactly these addresses, in two parts: only if the first one works, the second is due.

    An IPv6 address can't be there twice, with two prefix lengths, as one of IPv4 can: it goes before it comes.
    """
    gone = [address for address in has if address not in wanted]
    ips = {address.ip for address in wanted if address.version == 6}
    in_the_way = [address for address in gone if address.ip in ips]
    first = (promote(index), *(delete_address(index, address) for address in in_the_way),
             *(add_address(index, address) for address in wanted if address not in has))
    return first, tuple(delete_address(index, address) for address in gone if address not in in_the_way)


def multicast_route(index: int) -> Message:
    """Let all IPv4 multicast (224.0.0.0/4) leave by this interface."""
    return _route(index, _MULTICAST, f"let multicast leave by interface {index}")


def dns_route(index: int) -> Message:
    """Let weaveDNS on the weave bridge be asked by this interface."""
    return _route(index, WEAVE_DNS.network, f"reach weaveDNS by interface {index}")


def route(wanted: Route) -> Message:
    """Let there be this route, in place of one to the same network."""
    gateway = wanted.gateway.packed if wanted.gateway else b""
    scope = RT_SCOPE_UNIVERSE if gateway or wanted.network.version == 6 else RT_SCOPE_LINK
    body = _ROUTE.pack(_family(wanted.network), wanted.network.prefixlen, 0, 0, 0, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    body += attribute(RTA_DST, wanted.network.network_address.packed) + attribute(RTA_OIF, wanted.index)
    body += attribute(RTA_TABLE, wanted.table) + (attribute(RTA_GATEWAY, gateway) if gateway else b"")
    return Message(RTM_NEWROUTE, ACK | CREATE | REPLACE, body, f"reach {wanted.network} by interface {wanted.index}")


def routes() -> Message:
    """Ask for the routes of all tables and families."""
    return Message(RTM_GETROUTE, DUMP, _ROUTE.pack(*bytes(9)), "list the routes")


def rule(wanted: Rule, *, there: bool = True) -> Message:
    """Let there be this rule, or no more."""
    source = wanted.source
    body = _ROUTE.pack(_family(source), 0, source.prefixlen, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    body += attribute(FRA_SRC, source.network_address.packed) + attribute(FRA_PRIORITY, wanted.priority)
    body += attribute(FRA_TABLE, wanted.table)
    kind, flags = (RTM_NEWRULE, ACK | CREATE | EXCL) if there else (RTM_DELRULE, ACK)
    return Message(kind, flags, body, f"change the rule for what comes from {source}")


def rules() -> Message:
    """Ask for the rules by which routes are chosen (ip-rule(8)), of all families."""
    return Message(RTM_GETRULE, DUMP, _ROUTE.pack(*bytes(9)), "list the rules of routing")


def dns_neighbour(index: int, mac: str) -> Message:
    """Let weaveDNS have this MAC address, whatever others answer to ARP (a permanent entry, rtnetlink(7))."""
    body = (_NEIGHBOUR.pack(AF_INET, index, NUD_PERMANENT, 0, 0) + attribute(NDA_DST, WEAVE_DNS.ip.packed)
            + attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", ""))))
    return Message(RTM_NEWNEIGH, ACK | CREATE | REPLACE, body, f"tell interface {index} the MAC address of weaveDNS")


def inside(plan: Plan, index: int) -> tuple[Message, ...]:
    """Everything that ``ethwe`` is to have, in the kernel's order: a route needs an interface that is up."""
    addresses = (add_address(index, interface) for interface in plan.addresses)
    wanted = ((plan.multicast_route, multicast_route), (plan.dns_route, dns_route))
    return (*addresses, set_link(index=index, up=True, arp_notify=True), *(route(index) for on, route in wanted if on))


def link_header(index: int = 0, flags: int = 0) -> bytes:
    """What a message about an interface begins with: its index, and the flags that are to be set."""
    return _LINK.pack(0, 0, index, flags, flags)


def neighbour_header(family: int, index: int, state: int, flags: int) -> bytes:
    """What a message about a neighbour, or a forwarding entry, begins with."""
    return _NEIGHBOUR.pack(family, index, state, flags, 0)


def read_neighbour_header(body: bytes) -> tuple[int, int, int, int]:
    """Family, interface, state and flags in an RTM_NEWNEIGH; attributes come after :data:`NEIGHBOUR_SIZE` bytes."""
    family, index, state, flags, _ = _NEIGHBOUR.unpack_from(body)
    return family, index, state, flags


def responses(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence number and body of each message in what a socket received."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < 16:
            return
        yield kind, flags, sequence, data[at + 16:at + length]
        at += length + (-length % 4)


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Kind (without its flags) and value of each attribute."""
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4:at + length]
        at += length + (-length % 4)


def complaint(flags: int, body: bytes) -> tuple[int, str]:
    """The errno (0: it worked) and the kernel's own words, if any, of an NLMSG_ERROR."""
    errno, original = struct.unpack_from("=iI", body)
    if not flags & NLM_F_ACK_TLVS:
        return -errno, ""
    at = 4 + (16 if flags & NLM_F_CAPPED else original + (-original % 4))
    words = [value for kind, value in attributes(body, at) if kind == NLMSGERR_ATTR_MSG]
    return -errno, words[0].rstrip(b"\0").decode(errors="replace") if words else ""


def end_of_dump(body: bytes) -> int:
    """The errno (0: it is whole) of an NLMSG_DONE."""
    return -int(_ERRNO.unpack_from(body)[0]) if len(body) >= _ERRNO.size else 0


def read_link(body: bytes) -> Link:
    """An interface from an RTM_NEWLINK."""
    _, _, index, flags, change = _LINK.unpack_from(body)
    values = dict(attributes(body, _LINK.size))
    kind = dict(attributes(values.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")
    return Link(index, _text(values.get(IFLA_IFNAME, b"")), flags, _int(values.get(IFLA_MTU)),
                _int(values.get(IFLA_MASTER)), values.get(IFLA_ADDRESS, b"").hex(":"), _text(kind),
                _text(values.get(IFLA_IFALIAS, b"")), _signed(values.get(IFLA_LINK_NETNSID)), change)


def read_address(body: bytes) -> tuple[int, Interface] | None:
    """The interface's index and the address in an RTM_NEWADDR; ``None`` for one that is neither IPv4 nor IPv6."""
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    values = dict(attributes(body, _ADDRESS.size))
    packed = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
    return (index, ip_interface((packed, prefix))) if packed and family in (AF_INET, AF_INET6) else None


def label(body: bytes) -> str:
    """The name of the interface in an ``RTM_NEWADDR`` or ``RTM_DELADDR`` of IPv4; IPv6 has none."""
    return _text(dict(attributes(body, _ADDRESS.size)).get(IFA_LABEL, b""))


def missing(plan: Plan, index: int, has: Collection[Interface], ways: Collection[Network]) -> tuple[Message, ...]:
    """What ``ethwe``, which is up and ``has`` these addresses and routes, lacks of a plan."""
    wanted = ((plan.multicast_route, multicast_route, _MULTICAST), (plan.dns_route, dns_route, WEAVE_DNS.network))
    return (*(add_address(index, one) for one in plan.addresses if one not in has),
            *(way(index) for on, way, there in wanted if on and there not in ways))


def read_route(body: bytes) -> Route | None:
    """A route from an RTM_NEWROUTE; ``None`` for one by several ways at once, or of another kind."""
    family, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    values = dict(attributes(body, _ROUTE.size))
    if family not in _ANY or kind != RTN_UNICAST or RTA_OIF not in values:
        return None
    gateway = values.get(RTA_GATEWAY)
    return Route(ip_network((values.get(RTA_DST, _ANY[family]), length)), _int(values[RTA_OIF]),
                 ip_address(gateway) if gateway else None, _int(values.get(RTA_TABLE)) or table,
                 _int(values.get(RTA_PRIORITY)))


def read_rule(body: bytes) -> Rule | None:
    """A rule from an RTM_NEWRULE; ``None`` for one of another kind than ours."""
    family, _, length, _, table, _, _, action, _ = _ROUTE.unpack_from(body)
    values = dict(attributes(body, _ROUTE.size))
    if family not in _ANY or action != FR_ACT_TO_TBL or FRA_SRC not in values:
        return None
    return Rule(ip_network((values[FRA_SRC], length)), _int(values.get(FRA_TABLE)) or table,
                _int(values.get(FRA_PRIORITY)))


_ANY = {AF_INET: bytes(4), AF_INET6: bytes(16)}


def _family(network: Network) -> int:
    return AF_INET if network.version == 4 else AF_INET6


def _route(index: int, network: IPv4Network, what: str) -> Message:
    body = (_ROUTE.pack(AF_INET, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_LINK, RTN_UNICAST, 0)
            + attribute(RTA_DST, network.network_address.packed) + attribute(RTA_OIF, index))
    return Message(RTM_NEWROUTE, ACK | CREATE, body, what)


def _address(index: int, interface: Interface) -> bytes:
    packed, network = interface.ip.packed, interface.network
    family = AF_INET if interface.version == 4 else AF_INET6
    body = _ADDRESS.pack(family, network.prefixlen, 0, 0, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if isinstance(interface, IPv4Interface):
        return body + (attribute(IFA_BROADCAST, network.broadcast_address.packed) if network.prefixlen < 31 else b"")
    return body + attribute(IFA_FLAGS, IFA_F_NODAD)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _signed(value: bytes | None) -> int:
    return int(_ERRNO.unpack(value)[0]) if value and len(value) == _ERRNO.size else -1


def _int(value: bytes | None) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1) == b"\1\0" else "big") if value else 0
