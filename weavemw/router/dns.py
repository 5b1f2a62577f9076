"""Answers to DNS packets: bytes in, bytes out. Pure.

The plain question for a known name is answered by hand from the zone's table, in
a few microseconds; so are its siblings (other types, unknown names of the domain,
EDNS). What is not ours is to be forwarded as it came.

An answer never is longer than its question's sender said it takes (RFC 1035:
512 bytes over UDP; RFC 6891: what EDNS says, here at most 1,232), a refusal never
is longer than the question, and a response is never answered. Reading a packet
takes time in proportion to its length: pointers of compressed names are not followed.
"""

from __future__ import annotations

import enum
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from weavemw.router.zone import Zone

__all__ = ["MAX_UDP", "REFUSED", "SERVFAIL", "Question", "Verdict", "answer", "has_answer", "is_answer_to",
           "is_bare", "other_answer", "plain_answer", "question_of", "refusal", "truncated"]

#: The largest answer over UDP: what fits everywhere unfragmented (DNS Flag Day 2020).
MAX_UDP = 1232
_PLAIN_UDP = 512
_MAX_TCP = 65535

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
BADVERS = 16
_IN, _ANY, _OPT = 1, 255, 41
_TRANSFERS = (251, 252)
_NO_EDNS = (-1, -1)
_COUNTS = struct.Struct("!HHH")
_RECORD = struct.Struct("!HHBBHH")  # type, class, three parts of what usually is the TTL, length
_HEADER, _OPT_SIZE = 12, 11
_QR_AA, _TC, _RA = 0x84, 0x02, 0x80
_PLAIN_COUNTS, _EDNS_COUNTS = b"\0\1\0\0\0\0\0\0", b"\0\1\0\0\0\0\0\1"
#: A header's flags and counts for one question and nothing else, or EDNS at most, and what an answer's header begins
#: with: recursion desired is kept, authentic data (set by some resolvers, RFC 6840) means nothing here.
_PLAIN, _WITH_EDNS = ({bytes((recursion, data)) + counts: bytes((_QR_AA | recursion, _RA)) + b"\0\1"
                       for recursion in (0, 1) for data in (0, 0x20)} for counts in (_PLAIN_COUNTS, _EDNS_COUNTS))
_OPT_ANSWER = b"\0" + _OPT.to_bytes(2, "big") + MAX_UDP.to_bytes(2, "big") + bytes(6)


class Verdict(enum.Enum):
    """What to do with a packet that is not answered here."""

    DROP = "drop"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Question:
    """What a packet asks; ``name`` in wire format and lower case, ``end`` is where the question ends.

    ``limit`` is the length of the longest answer that the sender takes, ``edns`` the version of EDNS that it
    speaks, -1 for none.
    """

    name: bytes
    kind: int
    cls: int
    end: int
    limit: int
    edns: int


def answer(query: bytes, zone: Zone, *, tcp: bool = False) -> bytes | Verdict:
    """The answer to a packet, or what else is to be done with it. Never raises."""
    return plain_answer(query, zone) or other_answer(query, zone, tcp=tcp)


def is_bare(query: bytes) -> bool:
    """Whether a packet asks for a name of one label, which is nobody's domain."""
    return len(query) > _HEADER and query[13 + query[_HEADER]:14 + query[_HEADER]] == b"\0" != query[_HEADER:13]


def has_answer(reply: bytes) -> bool:
    """Whether a reply has what was asked for."""
    return reply[3] & 0x0F == NOERROR and reply[6:8] != b"\0\0"


def plain_answer(query: bytes, zone: Zone) -> bytes | None:
    """The answer to a plain question for a known name, which is most of what is asked; ``None`` if it is none.

    Its code is NOERROR.
    """
    question = query[_HEADER:]
    found = zone.plain.get(question.lower())
    flags = _PLAIN.get(query[2:_HEADER])
    if found is None or flags is None:
        return _plain_answer_with_edns(query, zone)
    counts, records = found
    answers = records[0] if len(records) == 1 else b"".join(random.sample(records, len(records)))
    return b"".join((query[:2], flags, counts, question, answers))


def _plain_answer_with_edns(query: bytes, zone: Zone) -> bytes | None:
    """The same for a question with an EDNS record of version 0 that has no options, as most resolvers send it."""
    question, opt = query[_HEADER:-_OPT_SIZE], query[-_OPT_SIZE:]
    found = zone.plain.get(question.lower())
    flags = _WITH_EDNS.get(query[2:_HEADER])
    if found is None or flags is None or opt[:3] != _OPT_ANSWER[:3] or opt[6] or opt[9:] != b"\0\0":
        return None
    counts, records = found
    answers = records[0] if len(records) == 1 else b"".join(random.sample(records, len(records)))
    return b"".join((query[:2], flags, counts[:5], b"\1", question, answers, _OPT_ANSWER))


def other_answer(query: bytes, zone: Zone, *, tcp: bool = False) -> bytes | Verdict:
    """What is to be done with all other packets."""
    if len(query) < _HEADER or query[2] & 0x80:
        return Verdict.DROP
    if query[2] & 0x78:
        return refusal(query, NOTIMP)
    question = question_of(query, tcp=tcp)
    if question is None:
        return refusal(query, FORMERR)
    return _reply(query, question, zone)


def _reply(query: bytes, question: Question, zone: Zone) -> bytes | Verdict:
    if question.edns > 0:
        return refusal(query, BADVERS, question)
    if question.cls != _IN or question.kind in _TRANSFERS:
        return refusal(query, REFUSED, question)
    known = zone.records.get(question.name)
    if known is not None:
        return _known(query, question, zone, known)
    if zone.covers(question.name):
        return _denial(query, question, zone, NOERROR if zone.is_parent(question.name) else NXDOMAIN)
    of_network = zone.reverse_of(question.name)
    if of_network is not None:
        return _denial(query, question, zone, NOERROR if of_network else NXDOMAIN)
    return Verdict.FORWARD


def _known(query: bytes, question: Question, zone: Zone, known: dict[int, tuple[bytes, ...]]) -> bytes:
    wanted = known.keys() if question.kind == _ANY else [question.kind]
    found = [each for kind in wanted for each in known.get(kind, ())]
    if not found:
        return _denial(query, question, zone, NOERROR)
    random.shuffle(found)
    return _message(query, question, NOERROR, found)


def _denial(query: bytes, question: Question, zone: Zone, rcode: int) -> bytes:
    """No such name, or no such type."""
    return _message(query, question, rcode, (), zone.denial(question.name))


def _message(query: bytes, question: Question, rcode: int, answers: Sequence[bytes], authority: bytes = b"") -> bytes:
    opt = _opt(question)
    room = question.limit - question.end - len(opt)
    authority = authority if len(authority) <= room else b""  # of a domain with a very long name
    answers, whole = _fitting(answers, room - len(authority))
    flags = bytes((_QR_AA | (query[2] & 1) | (0 if whole else _TC), _RA | rcode))
    counts = b"".join(count.to_bytes(2, "big") for count in (1, len(answers), bool(authority), bool(opt)))
    return query[:2] + flags + counts + query[_HEADER:question.end] + b"".join(answers) + authority + opt


def _fitting(answers: Sequence[bytes], room: int) -> tuple[Sequence[bytes], bool]:
    if sum(map(len, answers)) <= room:
        return answers, True
    fitting: list[bytes] = []
    for each in answers:
        room -= len(each)
        if room < 0:
            break
        fitting.append(each)
    return fitting, False


def _opt(question: Question, rcode: int = NOERROR) -> bytes:
    """The EDNS record of an answer, which there is if the question had one (RFC 6891, 6.1.1)."""
    if question.edns < 0:
        return b""
    return _OPT_ANSWER[:5] + bytes((rcode >> 4,)) + _OPT_ANSWER[6:]


def question_of(query: bytes, *, tcp: bool = False) -> Question | None:
    """The one question of a packet; ``None`` if there is no such thing in it."""
    end = _name_end(query, _HEADER)
    if end is None or end + 4 > len(query) or query[4:6] != b"\0\1":
        return None
    edns = _edns(query, end + 4)
    if edns is None:
        return None
    size, version = edns
    limit = _MAX_TCP if tcp else min(max(size, _PLAIN_UDP), MAX_UDP)
    return Question(query[_HEADER:end].lower(), int.from_bytes(query[end:end + 2], "big"),
                    int.from_bytes(query[end + 2:end + 4], "big"), end + 4, limit, version)


def _name_end(packet: bytes, at: int, *, compressed: bool = False) -> int | None:
    """Where a name ends; a question's name has nothing before it to refer to, and is not compressed."""
    start = at
    while at < len(packet) and packet[at] < 64 and at - start < 255:
        if packet[at] == 0:
            return at + 1
        at += packet[at] + 1
    return at + 2 if compressed and packet[at:at + 1] >= b"\xc0" else None


def _edns(query: bytes, at: int) -> tuple[int, int] | None:
    """Size and version that a packet's EDNS record gives, -1 without one; ``None`` if the rest is malformed."""
    found = _NO_EDNS
    answers, authorities, additional = _COUNTS.unpack_from(query, 6)
    before = answers + authorities
    for number in range(before + additional):
        record = _record(query, at)
        if record is None:
            return None
        kind, edns, end = record
        if kind == _OPT:
            if found is not _NO_EDNS or number < before or query[at] != 0:
                return None
            found = edns
        at = end
    return found if at == len(query) else None


def _record(packet: bytes, at: int) -> tuple[int, tuple[int, int], int] | None:
    """The type of a record, what it says if it is EDNS's (RFC 6891, 6.1.2), and where it ends."""
    data = _name_end(packet, at, compressed=True)
    if data is None or data + 10 > len(packet):
        return None
    kind, size, _, version, _, length = _RECORD.unpack_from(packet, data)
    return kind, (size, version), data + _RECORD.size + length


def refusal(query: bytes, rcode: int, question: Question | None = None) -> bytes:
    """A refusal, no longer than what it answers: the header, and the question and EDNS where they could be read."""
    flags = bytes((0x80 | (query[2] & 0x79), _RA | rcode & 0x0F))
    return query[:2] + flags + (_asked(query, question, rcode) if question else bytes(8))


def truncated(reply: bytes, question: Question) -> bytes:
    """An answer cut down to its question, with the flag that says so."""
    return reply[:2] + bytes((reply[2] | _TC, reply[3])) + _asked(reply, question)


def _asked(packet: bytes, question: Question, rcode: int = NOERROR) -> bytes:
    """A packet's counts and sections with nothing in them but the question, and EDNS if it was asked with it."""
    opt = _opt(question, rcode)
    return b"\0\1\0\0\0\0\0" + bytes((bool(opt),)) + packet[_HEADER:question.end] + opt


def is_answer_to(reply: bytes, query: bytes, question: Question) -> bool:
    """Whether a packet answers this very query: id and question are the same (RFC 5452, 9.1)."""
    return (len(reply) >= question.end and reply[:2] == query[:2] and reply[2] & 0x80 != 0 and reply[4:6] == b"\0\1"
            and reply[_HEADER:question.end].lower() == query[_HEADER:question.end].lower())


