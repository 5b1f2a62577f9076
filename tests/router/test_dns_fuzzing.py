from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dnsfuzzing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=1000, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_packets_are_read_as_a_library_reads_them(rng: Random, tcp: bool) -> None:
    """Whatever a packet holds: what dnspython finds in it is what is answered, and nothing is amplified."""
    dnsfuzzing.check(dnsfuzzing.packet(rng), ZONE, tcp=tcp)


ZONE = dnsfuzzing.zone()

# Found by the fuzzer, in a run in which dnspython had no class for type A.
WEB_A = "00000100000100000000000003574542055745415645054c4f43414c0000010001"
WEB_ANY = "00000100000100000000000003574542055745415645054c4f43414c0000ff0001"
A_B_ANY = "00000100000100000000000001410142055745415645054c4f43414c0000ff0001"
# A record of EDNS whose owner is the root, but written as a pointer: RFC 6891, 6.1.2 wants the one byte 0.
POINTER_TO_ROOT = "1904010000010000000000010000290000c00c002904d0000000000000"


@pytest.mark.parametrize("packet", [WEB_A, WEB_ANY, A_B_ANY, POINTER_TO_ROOT])
@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("generic", [False, True])
def test_packets_that_were_found(packet: str, tcp: bool, generic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found once stays right, also where dnspython reads addresses as mere bytes."""
    if generic:
        monkeypatch.setitem(dns.rdata._rdata_classes, (dns.rdataclass.IN, dns.rdatatype.A), dns.rdata.GenericRdata)
    dnsfuzzing.check(bytes.fromhex(packet), ZONE, tcp=tcp)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dnsfuzzing.Live]:
    with dnsfuzzing.live(tmp_path_factory.mktemp("fuzzed")) as one:
        yield one


def test_a_server_goes_on(server: dnsfuzzing.Live) -> None:
    """Whatever comes by UDP and TCP, the next question is answered, and the log has no traceback."""
    for number in range(20):
        server.batch(Random(f"short-{number}"))


def test_thousands_of_connections(server: dnsfuzzing.Live) -> None:
    """Thousands of TCP connections, idle and half said, keep nobody from being answered, and are not held."""
    for _ in range(10):
        with ExitStack() as held:
            for number in range(200):
                tcp = held.enter_context(socket.create_connection(server.address, 10))
                tcp.sendall(b"\0\x20half"[:number % 7])
            server.answers()
    descriptors = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    assert descriptors < 200
