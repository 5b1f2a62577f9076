"""Messages to nf_tables, the kernel's packet filter, as bytes (nfnetlink; linux/netfilter/nf_tables.h). Pure.

Only what a chain at an interface's entrance needs (family netdev, hook ingress, Linux 4.2): each chain is of one
interface, whose packets it sees before any bridge does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from weavemw.network.messages import ACK, CREATE, DUMP, Message, attribute, attributes

__all__ = ["ARP", "DROP", "ICMPV6", "IPV4", "IPV6", "LINK", "NETLINK_NETFILTER", "NETWORK", "TRANSPORT", "UDP", "VLAN",
           "Rule", "batch", "chain_name", "chains", "delete_chain", "delete_table", "differs", "more_than",
           "set_chain"]

NETLINK_NETFILTER = 12
_SUBSYSTEM, _BATCH_BEGIN, _BATCH_END = 10, 16, 17
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _GET_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE = 0, 2, 3, 4, 5, 6, 8
_NETDEV, _INGRESS, _APPEND = 5, 0, 0x800
_TABLE_NAME, _CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE = 1, 2, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_LIST_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA, _VALUE, _VERDICT = 1, 1, 2, 1, 2
_ACCEPT_POLICY, _DROP_CODE, _EQUAL, _UNEQUAL, _REGISTER = 1, 0, 0, 1, 1
_META_PROTOCOL, _META_L4PROTO, _PACKETS, _OVER = 1, 16, 0, 1

#: Where a field is counted from: the frame, the packet in it, or the message in that.
LINK, NETWORK, TRANSPORT = 0, 1, 2
#: What is in a frame, behind its first VLAN tag (EtherType), and what is in a packet.
IPV4, ARP, VLAN, IPV6 = b"\x08\x00", b"\x08\x06", (b"\x81\x00", b"\x88\xa8"), b"\x86\xdd"
ICMPV6, UDP = b"\x3a", b"\x11"

#: The expressions of a rule, which hold together or not at all; what follows the last one happens then.
Rule = tuple[bytes, ...]


def batch(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Messages that work all or not at all; of those, the last one but the end is acknowledged."""
    *most, last = messages
    edge = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    return (Message(_BATCH_BEGIN, 0, edge, last.what), *most,
            Message(last.kind, last.flags | ACK, last.body, last.what), Message(_BATCH_END, 0, edge, last.what))


def set_chain(table: str, device: str, rules: Iterable[Rule]) -> tuple[Message, ...]:
    """Let all that comes from a device be accepted but for these rules, whatever there was before."""
    what = f"guard {device}"
    named = attribute(_RULE_TABLE, table) + attribute(_RULE_CHAIN, device)
    hook = (attribute(_HOOK_NUMBER, _number(_INGRESS)) + attribute(_HOOK_PRIORITY, _number(0))
            + attribute(_HOOK_DEVICE, device))
    chain = (attribute(_CHAIN_TABLE, table) + attribute(_CHAIN_NAME, device) + attribute(_CHAIN_HOOK, hook)
             + attribute(_CHAIN_POLICY, _number(_ACCEPT_POLICY)) + attribute(_CHAIN_TYPE, "filter"))
    return (_message(_NEW_TABLE, CREATE, attribute(_TABLE_NAME, table), what),
            _message(_NEW_CHAIN, CREATE, chain, what), _message(_DELETE_RULE, 0, named, what),
            *(_message(_NEW_RULE, CREATE | _APPEND, named + attribute(_RULE_EXPRESSIONS, b"".join(
                attribute(_LIST_ELEMENT, each) for each in rule)), what) for rule in rules))


def delete_chain(table: str, device: str) -> tuple[Message, ...]:
    """Remove a device's chain, with its rules."""
    named = attribute(_RULE_TABLE, table) + attribute(_RULE_CHAIN, device)
    chain = attribute(_CHAIN_TABLE, table) + attribute(_CHAIN_NAME, device)
    what = f"guard {device} no more"
    return _message(_DELETE_RULE, 0, named, what), _message(_DELETE_CHAIN, 0, chain, what)


def delete_table(table: str) -> tuple[Message, ...]:
    """Remove a table, and all that is in it."""
    return (_message(_DELETE_TABLE, 0, attribute(_TABLE_NAME, table), f"remove the table {table}"),)


def chains() -> Message:
    """Ask for all chains of the family."""
    return _message(_GET_CHAIN, DUMP, b"", "list the chains at interfaces")


def chain_name(table: str, body: bytes) -> str:
    """The name of a chain in an answer to :func:`chains`; empty if it is another table's."""
    values = dict(attributes(body, 4))
    texts = [values.get(kind, b"").rstrip(b"\0").decode(errors="replace") for kind in (_CHAIN_TABLE, _CHAIN_NAME)]
    return texts[1] if texts[0] == table else ""


def differs(base: int, at: int, values: Iterable[bytes], *, protocol: bytes = b"", transport: bytes = b"",
            kind: bytes = b"") -> Rule:
    """Drop what has another value in a field; of a protocol, of a transport in it, of a kind of message, if given."""
    values = tuple(values)
    where = [*(_is(_meta(_META_PROTOCOL), protocol)), *(_is(_meta(_META_L4PROTO), transport)),
             *(_is(_payload(TRANSPORT, 0, 1), kind))]
    field = [_payload(base, at, len(values[0]))] if values else []
    return (*where, *field, *(_compared(_UNEQUAL, value) for value in values), DROP)


def more_than(rate: int, burst: int, *, protocol: bytes, transport: bytes, port: int) -> Rule:
    """Drop what is for a port beyond so many packets in a second, and so many at once."""
    limit = attribute(1, struct.pack(">Q", rate)) + attribute(2, struct.pack(">Q", 1)) + attribute(3, _number(burst))
    limit += attribute(4, _number(_PACKETS)) + attribute(5, _number(_OVER))
    return (*_is(_meta(_META_PROTOCOL), protocol), *_is(_meta(_META_L4PROTO), transport),
            *_is(_payload(TRANSPORT, 2, 2), struct.pack(">H", port)), _expression("limit", limit), DROP)


def _is(loaded: bytes, value: bytes) -> tuple[bytes, ...]:
    return (loaded, _compared(_EQUAL, value)) if value else ()


def _meta(key: int) -> bytes:
    return _expression("meta", attribute(1, _number(_REGISTER)) + attribute(2, _number(key)))


def _payload(base: int, at: int, length: int) -> bytes:
    return _expression("payload", b"".join(attribute(kind, _number(number)) for kind, number in
                                           enumerate((_REGISTER, base, at, length), 1)))


def _compared(operation: int, value: bytes) -> bytes:
    return _expression("cmp", attribute(1, _number(_REGISTER)) + attribute(2, _number(operation))
                       + attribute(3, attribute(_VALUE, value)))


def _expression(name: str, data: bytes) -> bytes:
    return attribute(_EXPRESSION_NAME, name) + attribute(_EXPRESSION_DATA, data)


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _message(kind: int, flags: int, body: bytes, what: str) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, struct.pack(">BBH", _NETDEV, 0, 0) + body, what)


#: What ends a rule.
DROP = _expression("immediate", attribute(1, _number(0)) + attribute(2, attribute(_VERDICT, attribute(
    1, _number(_DROP_CODE)))))
