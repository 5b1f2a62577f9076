from __future__ import annotations

import struct
from ipaddress import ip_interface

import pytest

from weavemw.network import messages
from weavemw.network.messages import attribute, attributes, complaint, responses
from weavemw.network.plan import Plan


@pytest.mark.parametrize(("value", "encoded"), [
    pytest.param(1376, b"\x08\x00\x07\x00" + struct.pack("=I", 1376), id="number"),
    pytest.param("ab", b"\x07\x00\x07\x00ab\0\0", id="text, ended by zero, padded"),
    pytest.param(b"abcd", b"\x08\x00\x07\x00abcd", id="bytes"),
    pytest.param(b"", b"\x04\x00\x07\x00", id="nothing"),
])
def test_attributes_are_padded_to_four_bytes(value, encoded):
    """An attribute is length, kind, value and padding (netlink(7)); reading gives back what was written."""
    assert attribute(7, value) == encoded
    assert [kind for kind, _ in attributes(encoded + attribute(9, 1))] == [7, 9]


@pytest.mark.parametrize("data", [b"", b"\0", bytes(16), b"\x03\x00\x01\x00", b"\xff" * 15])
def test_short_or_odd_bytes_end_the_reading(data):
    """Bytes that are no message or attribute end the reading, never hang it."""
    assert list(attributes(data)) in ([], [(0x3FFF, b"\xff" * 11)])
    assert list(responses(data)) == []


def test_several_messages_in_one_packet_are_read_apart():
    """A packet may hold many messages, each padded."""
    sent = (messages.numbered(messages.get_link("weave"), 7), messages.numbered(messages.addresses(), 8))
    found = list(responses(b"".join(sent)))
    assert [(kind, sequence) for kind, _, sequence, _ in found] == [(messages.RTM_GETLINK, 7),
                                                                    (messages.RTM_GETADDR, 8)]


def test_complaint_has_the_kernels_words():
    """An error answer gives the errno, and the kernel's text where it has one."""
    words = attribute(messages.NLMSGERR_ATTR_MSG, "Address already assigned")
    body = struct.pack("=i", -17) + bytes(16) + words
    assert complaint(messages.NLM_F_CAPPED | messages.NLM_F_ACK_TLVS, body) == (17, "Address already assigned")
    assert complaint(messages.NLM_F_CAPPED, body) == (17, "")


def test_inside_comes_in_the_kernels_order():
    """Addresses first, then the interface up, then the route that needs it up."""
    addresses = (ip_interface("10.32.0.1/12"), ip_interface("fd00::1/64"))
    kinds = [message.kind for message in messages.inside(Plan("ab" * 32, addresses), 5)]
    assert kinds == [messages.RTM_NEWADDR, messages.RTM_NEWADDR, messages.RTM_NEWLINK, messages.RTM_NEWROUTE]
    assert len(messages.inside(Plan("ab" * 32, addresses, multicast_route=False), 5)) == 3
    assert len(messages.inside(Plan("ab" * 32, addresses, dns_route=True), 5)) == 5


@pytest.mark.parametrize(("text", "has_broadcast"), [("10.32.0.1/12", True), ("10.2.1.0/31", False),
                                                     ("10.2.1.1/32", False), ("fd00::1/64", False)])
def test_broadcast_only_where_there_is_one(text, has_broadcast):
    """Only IPv4 subnets of /30 and larger have a broadcast address (RFC 3021)."""
    body = messages.add_address(5, ip_interface(text)).body
    assert (messages.IFA_BROADCAST in dict(attributes(body, 8))) is has_broadcast
