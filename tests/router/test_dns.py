from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weavemw.router.dns import (
    MAX_UDP,
    Verdict,
    answer,
    is_answer_to,
    question_of,
    truncated,
)
from weavemw.router.zone import Zone


def make_zone() -> Zone:
    zone = Zone("weave.local.", 7, [ip_network("10.32.0.0/12"), ip_network("fd00::/48")])
    zone.publish("web.weave.local.", [ip_address("10.32.0.1")])
    zone.publish("both.weave.local.", [ip_address("10.32.0.2"), ip_address("fd00::2")])
    zone.publish("six.weave.local.", [ip_address("fd00::3")])
    zone.publish("a.b.weave.local.", [ip_address("10.32.0.4")])
    zone.publish("few.weave.local.", [ip_address(f"10.32.2.{number}") for number in range(8)])
    zone.publish("many.weave.local.", [ip_address(f"10.32.1.{number}") for number in range(100)])
    zone.publish_reverse(ip_address("10.32.0.1"), ["web.weave.local."])
    zone.publish_reverse(ip_address("fd00::3"), ["six.weave.local."])
    return zone


ZONE = make_zone()


def ask(name: str, kind: str = "A", *, tcp: bool = False, **options: object) -> dns.message.Message:
    """What the zone answers, as dnspython understands it; it checks id, question and form."""
    query = dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]
    reply = answer(query.to_wire(), ZONE, tcp=tcp)
    assert isinstance(reply, bytes)
    response = dns.message.from_wire(reply)
    assert query.is_response(response)
    assert response.edns == query.edns
    return response


def texts(response: dns.message.Message) -> set[str]:
    return {str(item) for rrset in response.answer for item in rrset}


@pytest.mark.parametrize("edns", [pytest.param(-1, id="plain"), pytest.param(0, id="EDNS")])
@pytest.mark.parametrize(("name", "kind", "found"), [
    pytest.param("web.weave.local.", "A", {"10.32.0.1"}, id="A"),
    pytest.param("six.weave.local.", "AAAA", {"fd00::3"}, id="AAAA"),
    pytest.param("both.weave.local.", "A", {"10.32.0.2"}, id="A of both"),
    pytest.param("both.weave.local.", "AAAA", {"fd00::2"}, id="AAAA of both"),
    pytest.param("both.weave.local.", "ANY", {"10.32.0.2", "fd00::2"}, id="ANY"),
    pytest.param("WEB.Weave.LOCAL.", "A", {"10.32.0.1"}, id="in any case"),
    pytest.param("a.b.weave.local.", "A", {"10.32.0.4"}, id="subdomain"),
    pytest.param("web.", "A", {"10.32.0.1"}, id="unqualified"),
    pytest.param("few.weave.local.", "A", {f"10.32.2.{number}" for number in range(8)}, id="several addresses"),
    pytest.param("1.0.32.10.in-addr.arpa.", "PTR", {"web.weave.local."}, id="PTR"),
    pytest.param("1.0.32.10.IN-ADDR.arpa.", "PTR", {"web.weave.local."}, id="PTR in any case"),
    pytest.param("3." + "0." * 27 + "0.0.d.f.ip6.arpa.", "PTR", {"six.weave.local."}, id="PTR of IPv6"),
    pytest.param("weave.local.", "SOA", {"weave.weave.local. hostmaster.weave.local. 1 3600 600 86400 7"}, id="SOA"),
])
def test_known(name: str, kind: str, found: set[str], edns: int) -> None:
    """What is known is answered with authority and the zone's TTL, under the name as it was asked."""
    response = ask(name, kind, use_edns=edns)
    assert response.rcode() == dns.rcode.NOERROR
    assert texts(response) == found
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA
    assert {(str(rrset.name), rrset.ttl) for rrset in response.answer} == {(name, 7)}


def test_case_is_kept() -> None:
    """The question comes back letter by letter: resolvers hide randomness in it (0x20)."""
    query = dns.message.make_query("wEb.WeaVE.lOcal.", "A").to_wire()
    reply = answer(query, ZONE)
    assert isinstance(reply, bytes)
    assert b"\x03wEb\x05WeaVE\x05lOcal\0" in reply


@pytest.mark.parametrize("edns", [pytest.param(-1, id="plain"), pytest.param(0, id="EDNS")])
@pytest.mark.parametrize(("name", "kind", "rcode"), [
    pytest.param("web.weave.local.", "AAAA", "NOERROR", id="no such type"),
    pytest.param("web.", "AAAA", "NOERROR", id="no such type of an unqualified name"),
    pytest.param("six.weave.local.", "A", "NOERROR", id="no A where there is an AAAA"),
    pytest.param("web.weave.local.", "MX", "NOERROR", id="nor any other type"),
    pytest.param("b.weave.local.", "A", "NOERROR", id="a name between"),
    pytest.param("weave.local.", "A", "NOERROR", id="the domain itself"),
    pytest.param("nobody.weave.local.", "A", "NXDOMAIN", id="no such name"),
    pytest.param("nobody.Weave.LOCAL.", "AAAA", "NXDOMAIN", id="no such name, for any type"),
    pytest.param("x.web.weave.local.", "A", "NXDOMAIN", id="nothing below a name"),
    pytest.param("9.9.32.10.in-addr.arpa.", "PTR", "NXDOMAIN", id="an address of ours that nobody has"),
    pytest.param("9.32.10.in-addr.arpa.", "PTR", "NOERROR", id="a network of ours"),
    pytest.param("1.0.32.10.in-addr.arpa.", "A", "NOERROR", id="no such type of a reverse name"),
])
def test_denied(name: str, kind: str, rcode: str, edns: int) -> None:
    """What is ours and not there is denied for as long as the zone's TTL: by the SOA record of a zone above."""
    response = ask(name, kind, use_edns=edns)
    assert dns.rcode.to_text(response.rcode()) == rcode
    assert response.answer == []
    soa, = response.authority
    assert soa.rdtype == dns.rdatatype.SOA
    assert (soa.ttl, soa[0].minimum) == (7, 7)
    assert response.question[0].name.is_subdomain(soa.name)


@pytest.mark.parametrize("name", ["www.example.com.", "local.", "myweave.local.", "8.8.8.8.in-addr.arpa.", ".", "com.",
                                  "1.0.64.10.in-addr.arpa.", "10.in-addr.arpa."])
@pytest.mark.parametrize("kind", ["A", "NS", "PTR"])
def test_forwarded(name: str, kind: str) -> None:
    """What is not ours is forwarded."""
    for edns in (-1, 0):
        assert answer(dns.message.make_query(name, kind, use_edns=edns).to_wire(), ZONE) is Verdict.FORWARD


@pytest.mark.parametrize(("options", "limit"), [
    pytest.param({}, 512, id="plain"),
    pytest.param({"use_edns": 0, "payload": 800}, 800, id="EDNS, 800 bytes"),
    pytest.param({"use_edns": 0, "payload": 100}, 512, id="EDNS, less than the least"),
    pytest.param({"use_edns": 0, "payload": 65535}, MAX_UDP, id="EDNS, more than we send"),
])
def test_truncated(options: dict[str, int], limit: int) -> None:
    """Over UDP an answer never is longer than allowed; it says so, and holds as many records as fit."""
    query = dns.message.make_query("many.weave.local.", "A", **options)  # type: ignore[arg-type]
    reply = answer(query.to_wire(), ZONE)
    assert isinstance(reply, bytes)
    assert limit - 16 < len(reply) <= limit
    response = dns.message.from_wire(reply)
    assert response.flags & dns.flags.TC


def test_whole_over_tcp() -> None:
    """Over TCP the answer is whole."""
    response = ask("many.weave.local.", tcp=True)
    assert len(texts(response)) == 100
    assert not response.flags & dns.flags.TC


def test_shuffled() -> None:
    """Several addresses come in random order, so that clients spread over them."""
    random.seed(1)
    first = {str(ask("few.weave.local.").answer[0][0]) for _ in range(100)}
    assert len(first) == 8


@pytest.mark.parametrize(("query", "rcode"), [
    pytest.param(dns.message.make_query("web.weave.local.", "A", "CH"), "REFUSED", id="class CH"),
    pytest.param(dns.message.make_query("version.bind.", "TXT", "CH", use_edns=0), "REFUSED", id="version, with EDNS"),
    pytest.param(dns.message.make_query("weave.local.", "AXFR"), "REFUSED", id="zone transfer"),
    pytest.param(dns.message.make_query("example.com.", "AXFR"), "REFUSED", id="another's zone transfer"),
])
def test_refused(query: dns.message.Message, rcode: str) -> None:
    """What we don't do is refused, with the question."""
    reply = answer(query.to_wire(), ZONE)
    assert isinstance(reply, bytes)
    response = dns.message.from_wire(reply)
    assert dns.rcode.to_text(response.rcode()) == rcode
    assert response.question == query.question
    assert response.edns == query.edns


@pytest.mark.parametrize("name", ["web.weave.local.", "www.example.com."])
def test_edns_of_the_future(name: str) -> None:
    """Another version of EDNS is answered BADVERS, with the one that there is (RFC 6891, 6.1.3)."""
    query = dns.message.make_query(name, "A", use_edns=1)
    reply = answer(query.to_wire(), ZONE)
    assert isinstance(reply, bytes)
    response = dns.message.from_wire(reply)
    assert (response.rcode(), response.edns, response.answer) == (dns.rcode.BADVERS, 0, [])
    assert len(reply) <= len(query.to_wire())


HEADER = b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0"
QUESTION = b"\x03web\x05weave\x05local\0\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


@pytest.mark.parametrize(("packet", "rcode"), [
    pytest.param(b"", None, id="nothing"),
    pytest.param(HEADER[:11], None, id="half a header"),
    pytest.param(b"\x12\x34\x81\x00" + HEADER[4:] + QUESTION, None, id="an answer"),
    pytest.param(HEADER, 1, id="no question"),
    pytest.param(HEADER + QUESTION[:-1], 1, id="half a question"),
    pytest.param(HEADER + QUESTION + b"\0", 1, id="more than a question"),
    pytest.param(b"\x12\x34\x01\x00\0\2" + HEADER[6:] + QUESTION * 2, 1, id="two questions"),
    pytest.param(HEADER + b"\xc0\x0c\0\1\0\1", 1, id="a pointer to itself"),
    pytest.param(HEADER + b"\x40web\0\0\1\0\1", 1, id="a label of an unknown kind"),
    pytest.param(HEADER + b"\x3fweb\0\0\1\0\1", 1, id="a label longer than the packet"),
    pytest.param(HEADER + b"\1a" * 130 + b"\0\0\1\0\1", 1, id="a name too long"),
    pytest.param(b"\x12\x34\x28\x00" + HEADER[4:] + QUESTION, 4, id="an update"),
    pytest.param(HEADER[:10] + b"\0\1" + QUESTION + b"\0\0\x29\x04\xd0\0\0\0\0\0\x09", 1, id="half an EDNS record"),
    pytest.param(HEADER[:10] + b"\0\2" + QUESTION + OPT * 2, 1, id="EDNS twice"),
    pytest.param(HEADER[:6] + b"\0\1\0\0\0\0" + QUESTION + OPT, 1, id="EDNS as an answer"),
    pytest.param(HEADER[:10] + b"\0\1" + QUESTION + b"\1x" + OPT, 1, id="EDNS with a name"),
    pytest.param(HEADER[:10] + b"\0\1" + QUESTION + OPT[:10], 1, id="EDNS cut off"),
    pytest.param(HEADER[:10] + b"\xff\xff" + QUESTION + OPT, 1, id="records that are not there"),
    pytest.param(b"\x12\x34\x20\x00" + HEADER[4:] + QUESTION, 4, id="a notification"),
    pytest.param(b"\x12\x34\x78\x00" + HEADER[4:] + QUESTION, 4, id="an unknown operation"),
])
def test_malformed(packet: bytes, rcode: int | None) -> None:
    """Malformed packets get an error no longer than themselves, and answers get nothing."""
    reply = answer(packet, ZONE)
    if rcode is None:
        assert reply is Verdict.DROP
    else:
        assert isinstance(reply, bytes)
        assert (reply[:2], reply[3] & 0x0F) == (packet[:2], rcode)
        assert len(reply) <= len(packet)


def test_unusual_but_right() -> None:
    """EDNS with options, or beside other records, is answered like any other."""
    for options in ([dns.edns.GenericOption(10, b"12345678")], [dns.edns.ECSOption("192.0.2.0")]):
        assert texts(ask("web.weave.local.", use_edns=0, options=options)) == {"10.32.0.1"}
    query = dns.message.make_query("web.weave.local.", "A", use_edns=0)
    query.additional.append(dns.rrset.from_text("x.", 1, "IN", "A", "192.0.2.1"))
    reply = answer(query.to_wire(), ZONE)
    assert isinstance(reply, bytes)
    assert texts(dns.message.from_wire(reply)) == {"10.32.0.1"}


@pytest.mark.parametrize("ttl", [0, 1, 2**31 - 1])
def test_ttl(ttl: int) -> None:
    """Answers, denials included, may be kept for as long as the zone says (RFC 2308, 5)."""
    zone = Zone("weave.local.", ttl)
    zone.publish("web.weave.local.", [ip_address("10.32.0.1")])
    known, unknown = (dns.message.from_wire(answer(dns.message.make_query(f"{name}.weave.local.", "A").to_wire(), zone))
                      for name in ("web", "nobody"))
    assert known.answer[0].ttl == ttl
    assert (unknown.authority[0].ttl, unknown.authority[0][0].minimum) == (ttl, ttl)


@pytest.mark.parametrize("domain", ["weave.local", "weave.local.", "Weave.Local", "one", "a.b.c.d.example."])
def test_domain(domain: str) -> None:
    """A domain may be given with or without its final dot, in any case, and have any number of labels."""
    full = f"web.{domain.rstrip('.')}."
    zone = Zone(domain)
    zone.publish(full, [ip_address("10.32.0.1")])
    for name in (full, full.upper(), full.lower(), "web."):
        assert texts(dns.message.from_wire(answer(dns.message.make_query(name, "A").to_wire(), zone))) == {"10.32.0.1"}
    other = dns.message.from_wire(answer(dns.message.make_query(f"x{full}", "A").to_wire(), zone))
    assert other.rcode() == dns.rcode.NXDOMAIN


def test_a_domain_of_a_long_name() -> None:
    """A denial whose SOA record is too long for the packet does without it."""
    domain = ".".join(["d" * 60] * 3 + ["e" * 40])
    for kind in ("A", "AAAA"):
        reply = answer(dns.message.make_query(f"x.{domain}.", kind).to_wire(), Zone(domain))
        assert isinstance(reply, bytes)
        assert len(reply) <= 512
        assert dns.message.from_wire(reply).rcode() == dns.rcode.NXDOMAIN


PACKETS = st.one_of(
    st.binary(max_size=600),
    st.builds(lambda header, rest: HEADER[:2] + header + rest, st.binary(min_size=10, max_size=10), st.binary()),
    st.builds(lambda rest: HEADER + rest, st.binary(max_size=300)),
    st.builds(lambda rest: HEADER[:10] + b"\0\1" + QUESTION + b"\0\0\x29" + rest, st.binary(max_size=80)),
    st.builds(lambda at, byte: (HEADER + QUESTION)[:at] + bytes([byte]) + (HEADER + QUESTION)[at + 1:],
              st.integers(0, 32), st.integers(0, 255)),
)


@settings(max_examples=2000, deadline=None)
@given(PACKETS, st.booleans())
@example(HEADER[:10] + b"\0\1" + QUESTION + b"\0\0\xfa\0\xff\0\0\0\0\0\0", False)
def test_any_packet(packet: bytes, tcp: bool) -> None:
    """No packet breaks the server, and none is amplified: an error is no longer than what it answers."""
    reply = answer(packet, ZONE, tcp=tcp)
    if isinstance(reply, bytes):
        assert reply[:2] == packet[:2]
        assert reply[2] & 0x80
        assert len(reply) <= (65535 if tcp else MAX_UDP)
        if reply[3] & 0x0F not in (0, 3):
            assert len(reply) <= len(packet)
        dns.message.from_wire(reply, ignore_trailing=False)
    if packet[2:3] >= b"\x80":
        assert reply is Verdict.DROP


@pytest.mark.parametrize(("change", "is_one"), [
    pytest.param(lambda reply: reply, True, id="the answer"),
    pytest.param(lambda reply: b"xx" + reply[2:], False, id="another id"),
    pytest.param(lambda reply: reply[:2] + b"\0" + reply[3:], False, id="a question"),
    pytest.param(lambda reply: reply.replace(b"web", b"WEB"), True, id="another case"),
    pytest.param(lambda reply: reply.replace(b"web", b"wab"), False, id="another name"),
    pytest.param(lambda reply: reply[:20], False, id="half an answer"),
])
def test_is_answer_to(change: object, is_one: bool) -> None:
    """An answer is known by id and question."""
    query = HEADER + QUESTION
    question = question_of(query)
    reply = answer(query, ZONE)
    assert question
    assert is_answer_to(change(reply), query, question) is is_one  # type: ignore[operator]


def test_cut_down() -> None:
    """An answer that is too long is cut to its question, and says so."""
    query = dns.message.make_query("many.weave.local.", "A").to_wire()
    whole, question = answer(query, ZONE, tcp=True), question_of(query)
    assert isinstance(whole, bytes)
    assert question
    response = dns.message.from_wire(truncated(whole, question))
    assert (response.answer, bool(response.flags & dns.flags.TC)) == ([], True)
