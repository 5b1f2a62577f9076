"""Random DNS packets, whole and broken, and a second reading of them, by dnspython.

``python tests/dnsfuzzing.py packets COUNT [SEED]`` fuzzes what the server makes of a packet,
``python tests/dnsfuzzing.py server COUNT [SEED]`` a router's sockets, in batches of packets and TCP connections.
Each case is a function of its seed: a failure names it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
from fuzzing import repeat

from weavemw.router.dns import MAX_UDP, Verdict, answer, question_of
from weavemw.router.names import Names
from weavemw.router.store import Database
from weavemw.router.zone import Zone

_DOMAIN = "weave.local."
ADDRESSES = {"web": ["10.32.0.1"], "few": [f"10.32.1.{n}" for n in range(8)], "six": ["fd00::3"],
             "many": [f"10.33.0.{n}" for n in range(200)], "a.b": ["10.32.0.4"], "both": ["10.32.0.5", "fd00::5"]}


def zone() -> Zone:
    """A zone with some names."""
    made = Zone(_DOMAIN, 1, (ip_network("10.32.0.0/12"),))
    for name, addresses in ADDRESSES.items():
        made.publish(f"{name}.{_DOMAIN}", list(map(ip_address, addresses)))
        made.publish_reverse(ip_address(addresses[0]), [f"{name}.{_DOMAIN}"])
    return made


# Random packets

_NAMES = [*(f"{name}.{_DOMAIN}" for name in ADDRESSES), *(f"{name}." for name in ADDRESSES), _DOMAIN, f"no.{_DOMAIN}",
          f"b.{_DOMAIN}", "local.", "www.example.com.", ".", "1.0.32.10.in-addr.arpa.", "9.9.32.10.in-addr.arpa.",
          "32.10.in-addr.arpa.", "8.8.8.8.in-addr.arpa.", f"{'x' * 63}.{_DOMAIN}", f"x.web.{_DOMAIN}"]
_LABELS = [b"\0", b"\1", b"\x3f" + b"a" * 63, b"\x40" + b"a" * 64, b"\x80", b"\xbf", b"\xff\xff", b"\xc0\x0c",
           b"\xc0\0", b"\xc0\x0d", b"\xc0\xff", b"\xc0", b"\3web", b"\1.", b"\1\0", b"\1\\", b"\1a" * 126, b"\1a" * 127,
           b"\1a" * 128]
_TYPES = [1, 1, 1, 28, 28, 12, 6, 2, 5, 13, 15, 16, 33, 41, 65, 250, 251, 252, 255, 0, 65535]
_CLASSES = [1] * 12 + [3, 4, 254, 255, 0]
_SIZES = [0, 100, 512, 513, 1232, 1233, 4096, 65535]


def packet(rng: random.Random) -> bytes:
    """A question, something like one, or anything."""
    questions = [_question(rng) for _ in range(rng.choice([1] * 20 + [0, 2, 3, 40]))]
    sections = [[_record(rng) for _ in range(rng.choice(often))] for often in
                ([0] * 20 + [1, 2], [0] * 20 + [1, 2], [0, 1, 1, 1, 2, 3, 30])]
    counts = [len(questions), *map(len, sections)]
    if rng.random() < 0.05:
        counts[rng.randrange(4)] = rng.choice([0, 1, 2, 255, 65535])
    made = rng.randbytes(2) + _flags(rng) + struct.pack("!HHHH", *counts) + b"".join(questions)
    made += b"".join(record for section in sections for record in section)
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2, 4, 16])):
        made = rng.choice(_DAMAGES)(rng, made)
    return made


def _flags(rng: random.Random) -> bytes:
    return rng.choice([b"\1\0", b"\1\0", b"\1\0", b"\0\0", b"\1\x20", b"\1\x10", b"\0\x80"] * 4 + [rng.randbytes(2)])


def _question(rng: random.Random) -> bytes:
    return _name(rng) + struct.pack("!HH", rng.choice(_TYPES), rng.choice(_CLASSES))


def _name(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return b"".join(rng.choice(_LABELS) for _ in range(rng.randrange(6)))
    labels = rng.choice(_NAMES).rstrip(".").split(".")
    made = b"".join(bytes((len(label),)) + label.encode() for label in labels if label) + b"\0"
    return made.swapcase() if rng.random() < 0.2 else made


def _record(rng: random.Random) -> bytes:
    if rng.random() < 0.7:
        return _opt(rng)
    data = rng.randbytes(rng.choice([0, 1, 4, 16, 300]))
    length = len(data) if rng.random() < 0.9 else rng.choice([0, 5, 65535])
    fixed = struct.pack("!HHIH", rng.choice(_TYPES), rng.choice(_CLASSES), rng.getrandbits(32), length)
    return _name(rng) + fixed + data


def _opt(rng: random.Random) -> bytes:
    owner = b"\0" if rng.random() < 0.95 else _name(rng)
    version = rng.choice([0] * 9 + [1, 255])
    options = b"".join(_option(rng) for _ in range(rng.choice([0, 0, 0, 1, 2, 20])))
    return owner + struct.pack("!HHBBHH", 41, rng.choice(_SIZES), rng.choice([0, 0, 0, 1]), version,
                               rng.choice([0, 0x8000, 0xFFFF]), len(options)) + options


def _option(rng: random.Random) -> bytes:
    data = rng.randbytes(rng.choice([0, 8, 8, 24, 200]))
    return struct.pack("!HH", rng.choice([3, 10, 11, 12, 65001]), len(data)) + data


_DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [
    lambda rng, data: _cut(rng, data, 1, rng.randbytes(1)),
    lambda rng, data: _cut(rng, data, 0, rng.randbytes(rng.randrange(40))),
    lambda rng, data: _cut(rng, data, rng.randrange(20), b""),
    lambda rng, data: data[: rng.randrange(len(data) + 1)],
    lambda rng, data: _cut(rng, data, 0, rng.choice(_LABELS)),
    lambda rng, data: data + data[12:],
]


def _cut(rng: random.Random, data: bytes, size: int, put: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + put + data[place + size :]


# What must hold of any answer

def check(data: bytes, known: Zone, *, tcp: bool) -> None:
    """Compare what the server makes of a packet with what dnspython reads in it."""
    reply = answer(data, known, tcp=tcp)
    if len(data) < 12 or data[2] & 0x80:
        assert reply is Verdict.DROP, reply
        return
    query = _read(data)
    if query is not None:
        _check_reading(data, query, tcp)
    if reply is Verdict.FORWARD:
        question = question_of(data)
        assert question is not None
        assert not question.name.endswith(known.wire_domain)
        return
    assert isinstance(reply, bytes), reply
    check_reply(data, reply, tcp=tcp)
    if query is not None:
        _check_answer(query, dns.message.from_wire(reply))


def check_reply(data: bytes, reply: bytes, *, tcp: bool) -> None:
    """It is an answer, can be read, and is no longer than what was asked for; a refusal is no longer than its cause."""
    question = question_of(data, tcp=tcp)
    assert (reply[:2], reply[2] & 0x80) == (data[:2], 0x80)
    assert len(reply) <= (65535 if tcp else MAX_UDP)
    assert len(reply) <= (question.limit if question else len(data))
    response = dns.message.from_wire(reply)
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        assert len(reply) <= len(data)
    if response.question and question:
        assert reply[12 : question.end] == data[12 : question.end]
        assert (response.edns >= 0) == (question.edns >= 0)


def _read(data: bytes) -> dns.message.Message | None:
    """A well-formed query of one question, as dnspython reads it."""
    try:
        query = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError, struct.error):
        return None
    is_query = query.opcode() == 0 and data[4:6] == b"\0\1"
    return query if is_query and _plain_name(data) and _plain_owners_of_edns(data) else None


def _plain_name(data: bytes) -> bool:
    at = 12
    while data[at]:
        if data[at] > 63:  # compressed: dnspython reads this too
            return False
        at += data[at] + 1
    return True


def _plain_owners_of_edns(data: bytes) -> bool:
    """Whether they are the one byte 0 (RFC 6891, 6.1.2): dnspython reads a pointer to the root too."""
    at = 12 + dns.name.from_wire(data, 12)[1] + 4
    for _ in range(sum(struct.unpack_from("!HHH", data, 6))):
        length = dns.name.from_wire(data, at)[1]
        kind, _, _, size = struct.unpack_from("!HHIH", data, at + length)
        if kind == 41 and length != 1:
            return False
        at += length + 10 + size
    return True


def _check_reading(data: bytes, query: dns.message.Message, tcp: bool) -> None:
    question = question_of(data, tcp=tcp)
    assert question is not None, "can be read"
    asked = query.question[0]
    assert question.name == asked.name.to_wire().lower()
    assert (question.kind, question.cls, question.edns) == (asked.rdtype, asked.rdclass, query.edns)
    assert question.limit == (65535 if tcp else min(max(query.payload if query.edns >= 0 else 0, 512), MAX_UDP))


def _check_answer(query: dns.message.Message, response: dns.message.Message) -> None:
    asked = query.question[0]
    if query.edns > 0 or asked.rdclass != 1 or asked.rdtype in (251, 252):
        assert response.rcode() == (dns.rcode.BADVERS if query.edns > 0 else dns.rcode.REFUSED)
        return
    name = asked.name.to_text().lower().removesuffix("." + _DOMAIN).removesuffix(".")
    # Not str(item): for a type whose module can't be imported at that moment, dnspython knows no other text than bytes.
    answered = {str(ip_address(item.to_wire())) for rrset in response.answer for item in rrset
                if rrset.rdtype in (1, 28)}
    wanted = {address for address in ADDRESSES.get(name, ())
              if asked.rdtype in ({1, 255} if "." in address else {28, 255})}
    assert answered <= wanted
    assert answered == wanted or response.flags & dns.flags.TC
    assert response.rcode() == dns.rcode.NOERROR or name not in ADDRESSES


# A router's sockets

_LARGEST = 60_000  # what fits into a UDP packet


class Live:
    """A router process on loopback, asked by UDP and TCP."""

    def __init__(self, port: int, pid: int) -> None:
        self.address = ("127.0.0.1", port)
        self.pid = pid

    def batch(self, rng: random.Random, size: int = 60) -> None:
        """Packets by UDP, connections with anything on them by TCP; then it answers as ever."""
        self._packets([packet(rng)[:_LARGEST] for _ in range(size)])
        for _ in range(size // 10):
            self._connection(rng)
        self.answers()

    def answers(self) -> None:
        """It answers a question, by UDP and by TCP."""
        query = dns.message.make_query(f"web.{_DOMAIN}", "A")
        for _ in range(50):  # UDP may lose some
            with socket.socket(type=socket.SOCK_DGRAM) as udp:
                udp.settimeout(0.2)
                udp.sendto(query.to_wire(), self.address)
                try:
                    assert query.is_response(dns.message.from_wire(udp.recv(4096)))
                    break
                except TimeoutError:
                    continue
        else:
            raise AssertionError("no answer by UDP")
        with socket.create_connection(self.address, 10) as tcp:
            wire = query.to_wire()
            tcp.sendall(len(wire).to_bytes(2, "big") + wire)
            size = int.from_bytes(tcp.recv(2, socket.MSG_WAITALL), "big")
            assert query.is_response(dns.message.from_wire(tcp.recv(size, socket.MSG_WAITALL)))

    def _packets(self, packets: list[bytes]) -> None:
        sent = {data[:2]: data for data in packets}
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.settimeout(0.02)
            for data in sent.values():
                udp.sendto(data, self.address)
            try:
                while True:
                    reply = udp.recv(65535)
                    data = sent.pop(reply[:2])
                    check_reply(data, reply, tcp=False)
            except TimeoutError:
                return  # what is forwarded or dropped has no answer yet

    def _connection(self, rng: random.Random) -> None:
        with socket.create_connection(self.address, 10) as tcp, contextlib.suppress(OSError):  # it may have had enough
            for _ in range(rng.choice([0, 1, 1, 2, 20])):
                data = packet(rng)[:_LARGEST]
                length = len(data) if rng.random() < 0.8 else rng.choice([0, 1, 11, 12, 4096, 4097, 65535])
                stream = length.to_bytes(2, "big") + data
                place = rng.randrange(len(stream) + 1)
                tcp.sendall(stream[:place])
                tcp.sendall(stream[place:])
            if rng.random() < 0.3:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if rng.random() < 0.3:
                tcp.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def live(directory: Path) -> Iterator[Live]:
    """A router process with the same names."""
    database = Database(directory / "router.db")
    with database.transaction():
        names = Names(database, Zone(_DOMAIN))
        for name, addresses in ADDRESSES.items():
            for address in addresses:
                names.add("fuzzed", ip_address(address), f"{name}.{_DOMAIN}")
    database.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    argv = [sys.executable, "-m", "weavemw.router", f"--state-dir={directory}", f"--run-dir={directory}/run",
            "--http-addr=127.0.0.1:0", "--bridge=",
            "--dns-listen=127.0.0.1", f"--dns-port={port}", "--upstream=127.0.0.1:9", "--force", "--log-level=warning"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (directory / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log, env=environ) as process:
        try:
            _wait_for(port, process)
            yield Live(port, process.pid)
            assert process.poll() is None, "it has ended"
        finally:
            process.terminate()
    said = (directory / "log").read_text()
    assert "Traceback" not in said, said


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _run(kind: str, count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        if kind == "packets":
            known = zone()
            repeat(count, seed, lambda rng: check(packet(rng), known, tcp=rng.random() < 0.3))
        else:
            with live(Path(directory)) as server:
                repeat(count, seed, server.batch)
                print(Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split("\n")[0],
                      len(os.listdir(f"/proc/{server.pid}/fd")), "descriptors")


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
