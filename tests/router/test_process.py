from __future__ import annotations

import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import requests

from weavemw.router.allocator import Allocator
from weavemw.router.client import RouterClient
from weavemw.router.store import Database, SqliteStore, key_of

ROOT = Path(__file__).parents[2]


class Process:
    """A router of its own process, which can be killed."""

    def __init__(self, state: Path, *options: str) -> None:
        command = [sys.executable, "-m", "weavemw.router", "--state-dir", str(state), "--run-dir", str(state / "run"),
                   "--http-addr", "127.0.0.1:0", "--bridge", "", "--no-dns", "--force", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if found := re.search(r"the router serves (\S+),", line):
                self.address = found[1]
                return
        raise AssertionError("the router did not start")

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stderr
        if not self.process.stderr.closed:
            self.process.communicate()
        return self.process.wait()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def launch(*options: str) -> Process:
        started.append(Process(tmp_path, *options))
        return started[-1]

    yield launch
    for process in started:
        process.end(signal.SIGKILL)


class Client(threading.Thread):
    """Allocates and frees as fast as it can, and remembers what it was told, until the router is gone."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__()
        self.told: dict[str, str | None] = {}     # owner: its address, or None once it was freed
        self._address = address
        self._name = name
        self.start()

    def run(self) -> None:
        session = requests.Session()
        try:
            for number in range(100_000):
                self._step(session, f"{self._name}-{number}", number)
        except requests.RequestException:
            session.close()

    def _step(self, session: requests.Session, owner: str, number: int) -> None:
        address = session.post(f"http://{self._address}/ip/{owner}").text
        self.told[owner] = address
        if number % 3 == 0:
            del self.told[owner]     # from here on either is right, until the answer is there
            session.delete(f"http://{self._address}/ip/{owner}").raise_for_status()
            self.told[owner] = None


def test_killed_at_any_instant(launch: Callable[..., Process], tmp_path: Path) -> None:
    """Killed at random points, the router keeps every promise that it made, gives no address twice, and loses none."""
    chance = random.Random(7)
    told: dict[str, str | None] = {}
    for life in range(8):
        router = launch()
        clients = [Client(router.address, f"life{life}-{number}") for number in range(3)]
        clients[0].join(timeout=chance.uniform(0.05, 0.6))
        router.end(signal.SIGKILL)
        for client in clients:
            client.join()
            told |= client.told
        check(tmp_path / "router.db", told)
    assert len(told) > 50


def check(path: Path, told: dict[str, str | None]) -> None:
    database = Database(path)
    store = SqliteStore(database)
    allocator = Allocator(store, IPv4Network("10.32.0.0/12"))
    owned = {owner: str(interfaces[0]) for owner, interfaces in allocator.owned().items()}
    for owner, address in told.items():
        assert owned.get(owner) == address
    assert len(set(owned.values())) == len(owned)
    places = [key_of(interface.ip) for interfaces in allocator.owned().values() for interface in interfaces]
    places += [int.from_bytes(row[0], "big") for row in database.execute("SELECT key FROM resting")]
    free = [tuple(int.from_bytes(end, "big") for end in row) for row in database.execute("SELECT low, high FROM free")]
    assert len(set(places)) == len(places)
    assert len(places) + sum(high - low + 1 for low, high in free) == allocator.range.num_addresses
    assert not any(low <= place <= high for place in places for low, high in free)
    database.close()


def test_everything_survives_a_restart(launch: Callable[..., Process]) -> None:
    """Addresses, names and extra records are there again after the router was killed."""
    router = launch()
    client = RouterClient(router.address)
    address = client.allocate("a")
    client.register("a", address, "web.weave.local")
    client.register("weave:extern", address, "extra.weave.local")
    router.end(signal.SIGKILL)
    client = RouterClient(launch().address)
    assert client.owned() == {"a": (address,)}
    assert [row["Hostname"] for row in client.names()] == ["extra.weave.local.", "web.weave.local."]


def test_sigterm_ends_it_cleanly(launch: Callable[..., Process]) -> None:
    """SIGTERM ends the router with status 0, also while clients keep their connections open."""
    router = launch()
    client = RouterClient(router.address)
    client.allocate("a")
    assert router.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(("options", "line"), [
    pytest.param(["--state-dir", "{state}"], "weave router: already running: another router uses {state}", id="twice"),
    pytest.param(["--http-addr", "{address}"], "weave router: can't listen on {address}: Address already in use",
                 id="port taken"),
    pytest.param(["--http-addr", "nonsense"], "weave router: address 'nonsense': write HOST:PORT", id="no address"),
    pytest.param(["--ipalloc-range", "127.0.0.0/9", "--http-addr", "{address}"],
                 "weave router: can't listen on {address}: Address already in use", id="forced range, port taken"),
    pytest.param(["--dns-domain", "a..b"], "weave router: DNS domain 'a..b': invalid host name: 'a..b'", id="domain"),
    pytest.param(["--ipalloc-default-subnet", "10.0.0.0/24"],
                 "weave router: default subnet 10.0.0.0/24 is not within the range 10.32.0.0/12", id="default subnet"),
    pytest.param(["--state-dir", "/proc/nowhere"], "weave router: can't make /proc/nowhere: No such file or directory; "
                 "--state-dir names another directory", id="state directory"),
])
def test_mistakes_are_one_line(launch: Callable[..., Process], tmp_path: Path, options: list[str], line: str) -> None:
    """What can't start says why in one line, and exits with status 1."""
    known = {"state": str(tmp_path), "address": launch().address}
    command = [sys.executable, "-m", "weavemw.router", "--state-dir", str(tmp_path / "other"),
               "--run-dir", str(tmp_path / "other/run"), "--bridge", "",
               "--no-dns", "--force", *(option.format(**known) for option in options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, env=os.environ)
    assert (done.returncode, done.stderr.strip()) == (1, line.format(**known))


def test_state_of_a_newer_version_is_left_as_it_is(launch: Callable[..., Process], tmp_path: Path) -> None:
    """Who goes back to an older version is told so in one line, and nothing is lost."""
    launch().end(signal.SIGTERM)
    database = sqlite3.connect(tmp_path / "router.db")
    database.execute("PRAGMA user_version = 99")
    command = [sys.executable, "-m", "weavemw.router", "--state-dir", str(tmp_path), "--run-dir", str(tmp_path / "run"),
               "--http-addr", "127.0.0.1:0", "--bridge", "", "--no-dns", "--force"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, env=os.environ)
    assert done.returncode == 1
    assert done.stderr == (f"weave router: {tmp_path}/router.db is of a newer version (format 99, here 1): "
                           "install that version again\n")
    assert database.execute("PRAGMA user_version").fetchone() == (99,)
    database.close()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_hears_when_it_serves(launch: Callable[..., Process], tmp_path: Path, abstract: bool,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """With NOTIFY_SOCKET, READY=1 comes when the API answers."""
    name = f"\0weave-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(30)
        router = launch()
        assert systemd.recv(100) == b"READY=1"
    assert requests.get(f"http://{router.address}/status", timeout=5).ok


def test_at_a_terminal_it_stops_when_told(launch: Callable[..., Process]) -> None:
    """^C ends it as SIGTERM does, with status 0."""
    assert launch().end(signal.SIGINT) == 0
