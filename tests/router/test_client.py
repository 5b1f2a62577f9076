"""The proxy's client of the router's API, against our router and against one that knows less."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Network, ip_interface
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from weavemw.dockerapi.requester import Answer
from weavemw.errors import AddressTaken, NotARouter, RouterError, RouterUnreachable
from weavemw.network.addresses import Default
from weavemw.ops.run_dir import RouterAddress
from weavemw.router.client import RouterClient

THREADS = 64


@pytest.mark.parametrize(("range6", "expected"), [(None, ""), (IPv6Network("fd00:10::/64"), "fd00:10::/64")])
def test_whether_there_is_ipv6(start: Callable[..., Any], range6: IPv6Network | None, expected: str) -> None:
    """The router's range of IPv6, or nothing if it has none."""
    client = RouterClient(start(range6=range6).address)
    assert [client.default_subnet6() for _ in range(3)] == [expected] * 3


def test_addresses_of_one_among_many(start: Callable[..., Any]) -> None:
    """Only the owner's own addresses are asked for, of whatever subnet."""
    client = RouterClient(start().address)
    client.allocate("other")
    client.claim("a", ip_interface("192.168.9.9/24"))
    assert client.addresses("a") == (ip_interface("192.168.9.9/24"),)
    assert client.addresses("nobody") == ()
    assert set(client.owned()) == {"a", "other"}


def test_many_threads_at_once(start: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """64 threads ask at once: no error, nothing in the log, and no more connections later than at first."""
    client = RouterClient(start().address, patience=10)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(client.allocate, map(str, range(THREADS * 4))))
        before = len(os.listdir("/proc/self/fd"))
        assert len(set(pool.map(client.addresses, map(str, range(THREADS * 8))))) == THREADS * 4 + 1
        assert len(os.listdir("/proc/self/fd")) <= before + THREADS * 2  # both ends are this process's
    assert caplog.records == []


def test_the_unix_socket_is_used_where_there_is_one(start: Callable[..., Any], tmp_path: Path) -> None:
    """Where TCP takes no changes, it does; where nobody listens there any more, TCP answers."""
    router = start(http_read_only=True)
    client = RouterClient(RouterAddress("127.0.0.1:1", router.settings.at.socket))
    address = client.allocate("a")
    assert client.addresses("a") == (address,)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    for gone in (tmp_path / "left", tmp_path / "none"):
        assert RouterClient(RouterAddress(router.address, gone)).addresses("a") == (address,)
    with pytest.raises(RouterError, match="only the router's unix socket takes changes"):
        RouterClient(router.address).allocate("b")
    with pytest.raises(RouterUnreachable, match=r"at 127\.0\.0\.1:1 did not answer"):
        RouterClient(RouterAddress("127.0.0.1:1", tmp_path / "left")).allocate("b")


class _LessAble(BaseHTTPRequestHandler):
    """A router without IPv6 and without filters, that closes each connection without saying so."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, tuple[int, bytes]] = {  # noqa: RUF012
        "/ip": (200, b'{"owned":[{"containerid":"a","addrs":["10.32.0.1/12"]},{"containerid":"b","addrs":[]}]}')}

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path.partition("?")[0], (404, b"404 page not found\n"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Tests are silent."""


def test_router_that_knows_less() -> None:
    """A router that ignores the filter, knows no IPv6 and closes connections serves as well."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _LessAble) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        client = RouterClient(f"127.0.0.1:{server.server_address[1]}")
        for _ in range(20):
            assert client.addresses("a") == (ip_interface("10.32.0.1/12"),)
            assert client.default_subnet6() == ""
            assert client.objection(Default()) == ""
        server.shutdown()


class _Counting(_LessAble):
    """Keeps its connections, and counts questions."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        super().do_GET()
        self.close_connection = False


def test_that_a_router_has_no_such_call_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while, and as long as it is the same router: another one may have it."""
    monkeypatch.setattr(_Counting, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        client = RouterClient(f"127.0.0.1:{server.server_address[1]}")
        for _ in range(5):
            client.addresses("a")
            assert client.default_subnet6() == ""
        assert _Counting.asked.count("/ipinfo/defaultsubnet6") == 1
        monkeypatch.setattr("weavemw.router.client._REMEMBER_FOR_GOOD", 0)
        assert client.default_subnet6() == ""
        assert _Counting.asked.count("/ipinfo/defaultsubnet6") == 2
        server.shutdown()


def test_a_router_that_replaces_another_is_asked_what_that_had_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections of the first ended with it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        client = RouterClient(f"127.0.0.1:{server.server_address[1]}")
        assert client.default_subnet6() == ""
        monkeypatch.setitem(_LessAble.answers, "/ipinfo/defaultsubnet6", (200, b"fd00:10::/64"))
        assert client.default_subnet6() == ""
        kept = client._http._pool.idle()
        assert kept is not None
        kept.sock.close()
        assert client.default_subnet6() == "fd00:10::/64"
        server.shutdown()


def test_what_stays_as_long_as_a_router_runs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The domain; and of the router that comes after it, anew."""
    monkeypatch.setattr(_Counting, "asked", [])
    monkeypatch.setattr("weavemw.router.client._REMEMBER", 0)
    monkeypatch.setitem(_Counting.answers, "/domain", (200, b"weave.local.\n"))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        client = RouterClient(f"127.0.0.1:{server.server_address[1]}")
        assert [client.domain() for _ in range(3)] == ["weave.local."] * 3
        assert _Counting.asked.count("/domain") == 1
        kept = client._http._pool.idle()
        assert kept is not None
        kept.sock.close()
        assert client.domain() == "weave.local."
        assert _Counting.asked.count("/domain") == 2
        server.shutdown()


def test_what_seldom_changes_is_remembered_for_a_moment(start: Callable[..., Any],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Domain and DNS address are asked for once for all that happens at once, and anew soon after."""
    monkeypatch.setattr("weavemw.router.client._REMEMBER", 3600)
    client = RouterClient(start().address)
    said = []
    monkeypatch.setattr(client._http, "ask", lambda *asked, **_: said.append(asked) or Answer(200, b"weave.local.\n"))
    assert [client.domain() for _ in range(3)] == ["weave.local."] * 3
    assert len(said) == 1
    monkeypatch.setattr("weavemw.router.client._REMEMBER", 0)
    client.domain()
    assert len(said) == 2


@pytest.mark.parametrize(("words", "error"), [
    ("Unable to claim: address 10.2.1.1/24 is already owned by abc", AddressTaken), ("no", RouterError),
    ("<!DOCTYPE html>\n<html>", NotARouter), ("", RouterError),
])
def test_a_refusal_is_what_it_says(monkeypatch: pytest.MonkeyPatch, words: str, error: type[RouterError]) -> None:
    """In the words of a router, ours or Weave Net's; what answers in HTML is none."""
    client = RouterClient("127.0.0.1:1")
    monkeypatch.setattr(client._http, "ask", lambda *_, **__: Answer(400, words.encode()))
    with pytest.raises(RouterError) as raised:
        client.claim("a", ip_interface("10.2.1.1/24"))
    assert type(raised.value) is error
    assert raised.value.is_mistake is (error is not NotARouter)
    if isinstance(raised.value, AddressTaken):
        assert (raised.value.address, raised.value.owner) == ("10.2.1.1/24", "abc")
