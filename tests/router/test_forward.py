from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from weavemw.network.resolv import nameservers
from weavemw.router.forward import Forwarder, ResolvConf, Upstream

QUERY = dns.message.make_query("www.example.com.", "A", id=4711, use_edns=-1)
SILENCE = ("127.0.0.1", 9)    # discard: nobody is there


def ask(upstreams: Sequence[Upstream], query: dns.message.Message = QUERY, *, tcp: bool = False,
        **options: Any) -> dns.message.Message:
    """What a forwarder makes of a query; it is an answer to it in any case."""
    forwarder = Forwarder(lambda: upstreams, **{"timeout": 0.3, "rounds": 1} | options)
    response = dns.message.from_wire(asyncio.run(forwarder.ask(query.to_wire(), tcp=tcp)))
    assert query.is_response(response)
    assert forwarder.pending == 0
    return response


@pytest.mark.parametrize("tcp", [False, True])
def test_forwarded(resolver: Callable[..., Any], tcp: bool) -> None:
    """A resolver's answer is handed back, by the transport of the question, under an id of our own."""
    upstream = resolver()
    assert str(ask([upstream.address], tcp=tcp).answer[0][0]) == "192.0.2.1"
    (query, by_tcp), = upstream.asked
    assert by_tcp is tcp
    assert query[2:] == QUERY.to_wire()[2:]


def test_ids_are_our_own(resolver: Callable[..., Any]) -> None:
    """The id that a resolver sees can't be guessed from that of the client."""
    upstream = resolver()
    for _ in range(5):
        ask([upstream.address])
    assert len({query[:2] for query, _ in upstream.asked}) > 1


def test_next_resolver(resolver: Callable[..., Any], answers: Callable[..., Any]) -> None:
    """A resolver that is silent, absent or failing is passed over."""
    silent, failing, good = resolver(lambda query, tcp: None), resolver(answers(rcode=2)), resolver()
    response = ask([silent.address, SILENCE, failing.address, good.address])
    assert str(response.answer[0][0]) == "192.0.2.1"
    assert len(silent.asked) == len(failing.asked) == 1


def test_last_good_first(resolver: Callable[..., Any]) -> None:
    """The resolver that answered last is asked first."""
    silent, good = resolver(lambda query, tcp: None), resolver()
    forwarder = Forwarder(lambda: [silent.address, good.address], timeout=0.3)
    for _ in range(3):
        asyncio.run(forwarder.ask(QUERY.to_wire()))
    assert (len(silent.asked), len(good.asked)) == (1, 3)


@pytest.mark.parametrize("rcode", [pytest.param(3, id="no such name"), pytest.param(0, id="no such type")])
def test_denial_is_an_answer(resolver: Callable[..., Any], answers: Callable[..., Any], rcode: int) -> None:
    """That there is no such thing is an answer: no other resolver is asked."""
    first, second = resolver(answers(rcode=rcode)), resolver()
    assert ask([first.address, second.address]).rcode() == rcode
    assert second.asked == []


@pytest.mark.parametrize(("rcode", "handed_on"), [(2, dns.rcode.SERVFAIL), (5, dns.rcode.REFUSED)])
def test_all_refuse(resolver: Callable[..., Any], answers: Callable[..., Any], rcode: int, handed_on: int) -> None:
    """If no resolver does better, the first refusal is handed on."""
    assert ask([resolver(answers(rcode=rcode)).address, SILENCE]).rcode() == handed_on


def test_no_answer() -> None:
    """Without an answer, and without a resolver, the client is told that we failed."""
    assert ask([SILENCE]).rcode() == dns.rcode.SERVFAIL
    assert ask([]).rcode() == dns.rcode.SERVFAIL
    assert ask([SILENCE], tcp=True).rcode() == dns.rcode.SERVFAIL


def test_forgeries_are_passed_over(resolver: Callable[..., Any], answers: Callable[..., Any]) -> None:
    """Packets that answer something else are ignored, and the right one is waited for."""
    def reply(query: bytes, tcp: bool) -> list[bytes]:
        right = answers("192.0.2.7")(query, tcp)
        return [b"", b"nonsense", query, bytes([right[0] ^ 1]) + right[1:], right.replace(b"www", b"xxx"), right]

    assert str(ask([resolver(reply).address]).answer[0][0]) == "192.0.2.7"


def test_forgery_over_tcp(resolver: Callable[..., Any]) -> None:
    """Over TCP, an answer to something else is no answer."""
    assert ask([resolver(lambda query, tcp: b"x" * 40).address], tcp=True).rcode() == dns.rcode.SERVFAIL


def cut_over_udp(whole: Callable[[bytes, bool], bytes]) -> Callable[[bytes, bool], bytes]:
    def reply(query: bytes, tcp: bool) -> bytes:
        if tcp:
            return whole(query, tcp)
        response = dns.message.make_response(dns.message.from_wire(query))
        response.flags |= dns.flags.TC
        return response.to_wire()

    return reply


@pytest.mark.parametrize(("count", "payload", "whole"), [
    pytest.param(3, None, True, id="it fits"),
    pytest.param(60, None, False, id="too long"),
    pytest.param(60, 1232, True, id="fits by EDNS"),
])
def test_truncated_is_asked_by_tcp(resolver: Callable[..., Any], answers: Callable[..., Any], count: int,
                                   payload: int | None, whole: bool) -> None:
    """A truncated answer is fetched by TCP; if it is too long for the client, it is truncated for the client."""
    upstream = resolver(cut_over_udp(answers(*(f"192.0.2.{number}" for number in range(count)))))
    query = dns.message.make_query("www.example.com.", "A", use_edns=0 if payload else -1, payload=payload)
    response = ask([upstream.address], query)
    assert bool(response.flags & dns.flags.TC) is not whole
    assert sum(map(len, response.answer)) == (count if whole else 0)
    assert [tcp for _, tcp in upstream.asked] == [False, True]


def test_flood(resolver: Callable[..., Any]) -> None:
    """Only so many questions are under way; those beyond are told at once that we can't, and nothing is left open."""
    silent = resolver(lambda query, tcp: None)
    forwarder = Forwarder(lambda: [silent.address], timeout=0.3, rounds=1, limit=10)

    async def flood() -> tuple[int, int]:
        tasks = [asyncio.create_task(forwarder.ask(QUERY.to_wire())) for _ in range(500)]
        await asyncio.sleep(0.1)
        at_once = sum(task.done() for task in tasks)
        sockets = connected_to(silent.address)
        await asyncio.gather(*tasks)
        return at_once, sockets

    assert asyncio.run(flood()) == (490, 1)  # the ten ask the same
    assert (forwarder.pending, forwarder.refused) == (0, 490)
    assert connected_to(silent.address) == 0


def connected_to(address: tuple[str, int]) -> int:
    """How many UDP sockets are, in this network namespace (proc(5))."""
    rows = Path("/proc/self/net/udp").read_text().splitlines()[1:]
    return sum(row.split()[2].endswith(f":{address[1]:04X}") for row in rows)


def test_the_same_question_is_asked_once(resolver: Callable[..., Any], answers: Callable[..., Any]) -> None:
    """Whoever asks what is being asked already waits for the same answer, and gets it under the own id."""
    all_wait = threading.Event()
    upstream = resolver(lambda query, tcp: all_wait.wait(5) and answers("192.0.2.1")(query, tcp))
    forwarder = Forwarder(lambda: [upstream.address])
    queries = [dns.message.make_query("www.example.com.", "A", id=number) for number in range(20)]

    async def together() -> list[bytes]:
        tasks = [asyncio.create_task(forwarder.ask(query.to_wire())) for query in queries]
        while forwarder.pending < len(queries):
            await asyncio.sleep(0)
        all_wait.set()
        return await asyncio.gather(*tasks)

    for query, reply in zip(queries, asyncio.run(together()), strict=True):
        response = dns.message.from_wire(reply)
        assert query.is_response(response)
        assert str(response.answer[0][0]) == "192.0.2.1"
    assert len(upstream.asked) == 1
    asyncio.run(forwarder.ask(queries[0].to_wire()))
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=["the first", "the second", "the last"])
def test_who_asks_along_gets_an_answer_whoever_leaves(resolver: Callable[..., Any], answers: Callable[..., Any],
                                                      cancelled: int) -> None:
    """One who asks the same and goes away takes nothing from the others."""
    may_answer = threading.Event()
    upstream = resolver(lambda query, tcp: may_answer.wait(5) and answers("192.0.2.1")(query, tcp))
    forwarder = Forwarder(lambda: [upstream.address])

    async def together() -> list[bytes | BaseException]:
        tasks = [asyncio.create_task(forwarder.ask(QUERY.to_wire())) for _ in range(3)]
        while forwarder.pending < 3:
            await asyncio.sleep(0)
        tasks[cancelled].cancel()
        await asyncio.wait([tasks[cancelled]])
        may_answer.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    replies = asyncio.run(together())
    assert isinstance(replies.pop(cancelled), asyncio.CancelledError)
    assert [dns.message.from_wire(reply).rcode() for reply in replies] == [dns.rcode.NOERROR] * 2  # type: ignore[arg-type]
    assert len(upstream.asked) == 1


def test_a_question_that_nobody_waits_for_ends(resolver: Callable[..., Any], answers: Callable[..., Any]) -> None:
    """When the last one has gone, its socket is closed; who asks then, asks anew."""
    upstream = resolver(lambda query, tcp: None)
    forwarder = Forwarder(lambda: [upstream.address])

    async def ask() -> bytes:
        tasks = [asyncio.create_task(forwarder.ask(QUERY.to_wire())) for _ in range(3)]
        while not upstream.asked:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        upstream.reply = answers("192.0.2.1")
        reply = await forwarder.ask(QUERY.to_wire())
        assert connected_to(upstream.address) == 0
        return reply

    assert dns.message.from_wire(asyncio.run(ask())).rcode() == dns.rcode.NOERROR
    assert (forwarder.pending, forwarder._under_way) == (0, {})


def test_the_client_with_most_makes_room(resolver: Callable[..., Any]) -> None:
    """A flood takes all there is while nobody else asks; others get room from it until they have as much."""
    silent = resolver(lambda query, tcp: None)
    forwarder = Forwarder(lambda: [silent.address], timeout=0.3, rounds=1, limit=10)

    async def ask(client: str, count: int) -> list[asyncio.Task[bytes]]:
        queries = [dns.message.make_query(f"{client}{number}.example.com.", "A").to_wire() for number in range(count)]
        tasks = [asyncio.create_task(forwarder.ask(query, client=client)) for query in queries]
        await asyncio.sleep(0.05)
        return tasks

    def waiting(tasks: list[asyncio.Task[bytes]]) -> list[int]:
        return [number for number, task in enumerate(tasks) if not task.done()]

    async def ask_all() -> list[list[int]]:
        flood, few, many = await ask("flood", 50), await ask("few", 2), await ask("many", 50)
        still = [waiting(flood), waiting(few), waiting(many)]
        await asyncio.gather(*flood, *few, *many)
        return still

    assert asyncio.run(ask_all()) == [[0, 1, 2, 3], [0, 1], [0, 1, 2, 3]]
    assert (forwarder.pending, forwarder.refused) == (0, 102 - 10)
    assert connected_to(silent.address) == 0


def test_a_resolver_that_asks_us(resolver: Callable[..., Any]) -> None:
    """A question that a resolver brings back to us is not asked again: it does not go round for ever."""
    forwarder = Forwarder(lambda: [upstream.address], timeout=0.3, rounds=1)
    upstream = resolver()

    async def ask() -> bytes:
        loop = asyncio.get_running_loop()
        upstream.reply = lambda query, tcp: asyncio.run_coroutine_threadsafe(forwarder.ask(query), loop).result(5)
        reply = await forwarder.ask(QUERY.to_wire())
        while forwarder.pending:  # what was brought back
            await asyncio.sleep(0.01)
        return reply

    assert dns.message.from_wire(asyncio.run(ask())).rcode() == dns.rcode.SERVFAIL
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("text", "found"), [
    pytest.param("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", ("192.0.2.1", "192.0.2.2"), id="two"),
    pytest.param("# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nsearch nameserver\n", (), id="comments"),
    pytest.param("\tnameserver\t192.0.2.1 # the first\nnameserver 192.0.2.1", ("192.0.2.1",), id="twice, with tabs"),
    pytest.param("nameserver fd00::1\nnameserver fe80::1%eth0", ("fd00::1", "fe80::1%eth0"), id="IPv6"),
    pytest.param("nameserver\nnameserver dns.example\nnameserver 300.1.1.1", (), id="no addresses"),
    pytest.param("", (), id="empty"),
])
def test_nameservers(text: str, found: tuple[str, ...]) -> None:
    """The nameserver lines of a resolv.conf count, and what they say if it is an address."""
    assert nameservers(text) == found


def test_resolv_conf_is_watched(tmp_path: Path) -> None:
    """A change of the file counts from the next question on; a file that is gone leaves what it said."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    resolvers = ResolvConf(path, lambda address: False)
    assert resolvers() == (("192.0.2.1", 53),)
    path.write_text("nameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    assert resolvers() == (("192.0.2.2", 53), ("192.0.2.3", 53))
    path.unlink()
    assert resolvers() == (("192.0.2.2", 53), ("192.0.2.3", 53))


def test_what_can_not_be_read_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And not for each question; when it can be read again and then not, once more."""
    path = tmp_path / "resolv.conf"
    resolvers = ResolvConf(path, lambda address: False)
    for times in (1, 2):
        for _ in range(3):
            resolvers()
        assert caplog.text.count("can't read") == times
        path.write_text("nameserver 192.0.2.1\n")
        resolvers()
        path.unlink()


def test_never_to_ourselves(tmp_path: Path) -> None:
    """Our own addresses, and Docker's embedded resolver, which asks us, are left out."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.11\nnameserver 172.17.0.1\nnameserver 127.0.0.53\n")
    assert ResolvConf(path, lambda address: address == "172.17.0.1")() == (("127.0.0.53", 53),)


class Elsewhere:
    """A place with resolvers of its own."""

    name, asks_us, knows_names = "elsewhere", False, False

    def __init__(self, *upstreams: Upstream) -> None:
        self.upstreams = upstreams
        self.opened = 0

    async def socket(self, family: int, kind: int) -> socket.socket:
        self.opened += 1
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)


@pytest.mark.parametrize("tcp", [False, True])
def test_another_place(resolver: Callable[..., Any], answers: Callable[..., Any], tcp: bool) -> None:
    """Its resolvers are asked, from there, and what they say counts; ours only if they say nothing."""
    ours, theirs, silent = resolver(), resolver(answers(rcode=3)), resolver(lambda query, tcp: None)

    def code(place: Elsewhere) -> int:
        forwarder = Forwarder(lambda: [ours.address], timeout=0.3, rounds=1)
        wire = asyncio.run(forwarder.ask(QUERY.to_wire(), tcp=tcp, place=place))
        return int(dns.message.from_wire(wire).rcode())

    assert code(Elsewhere(theirs.address)) == dns.rcode.NXDOMAIN
    assert not ours.asked
    assert code(place := Elsewhere(silent.address)) == dns.rcode.NOERROR
    assert place.opened == 1
    assert len(ours.asked) == 1


def test_a_resolver_that_asks_us_back(resolver: Callable[..., Any], answers: Callable[..., Any]) -> None:
    """It gets what ours say, so that its client gets it from it."""
    ours = resolver()
    place, loops = Elsewhere(), []

    async def ask() -> bytes:
        forwarder = Forwarder(lambda: [ours.address], timeout=5, rounds=1)
        loop = asyncio.get_running_loop()

        def back(query: bytes, tcp: bool) -> bytes | None:
            loops.append(query)
            asked = forwarder.ask(b"\1\2" + query[2:], place=place)
            return query[:2] + asyncio.run_coroutine_threadsafe(asked, loop).result()[2:]

        place.upstreams, place.asks_us = (resolver(back).address,), True
        return await forwarder.ask(QUERY.to_wire(), place=place)

    assert str(dns.message.from_wire(asyncio.run(ask())).answer[0][0]) == "192.0.2.1"
    assert len(loops) == len(ours.asked) == 1


def test_nobody_is_dockers_default(tmp_path: Path) -> None:
    """Where the host's file names no server, Docker's own default counts; where it names only us, nobody."""
    path = tmp_path / "resolv.conf"
    path.write_text("# nobody\n")
    assert ResolvConf(path, lambda address: False)() == (("8.8.8.8", 53), ("8.8.4.4", 53))
    path.write_text("nameserver 192.0.2.1\n# and so on\n")
    assert ResolvConf(path, lambda address: True)() == ()
