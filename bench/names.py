"""Names: how many questions a second, and how soon a name is there and gone again: ``python -m bench --only names``.

The questions go to our router and to dnsmasq in turns, on loopback in a test host's network namespace, with the same
1,000 names. Neither is pinned to a processor. The second part is on a real engine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import requests
from host import TestHost
from launched import Launched, eventually

from bench import ROOT
from bench.proxies import inside
from bench.table import Row, table
from weavemw.router.names import Names
from weavemw.router.store import Database
from weavemw.router.zone import Zone

_COUNT, _CLIENTS = 1000, 8
_DOMAIN = "weave.local"
_STEADY = 10_000  # questions a second that both carry easily
_OURS, _DNSMASQ = 5301, 5302


def lines(quick: bool) -> Iterator[str]:
    """A table, and one line for each measurement on the engine."""
    with TestHost() as host:
        yield table(served(host, 1 if quick else 10, 1 if quick else 2), ("weave", "dnsmasq"), ("weave", "dnsmasq"))
        yield from lives(Launched(host), 3 if quick else 200)


# Questions per second

@dataclass(frozen=True)
class _Server:
    port: int
    pid: int

    def processor(self) -> float:
        """Seconds of processor that it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Load:
    """What dnsperf says of one run, times in milliseconds; ``cost`` is the server's, in microseconds per answer."""

    rate: float
    cost: float
    average: float
    lost: float
    latencies: list[float]


def served(host: TestHost, rounds: int, seconds: int) -> list[Row]:
    """As fast as they can, and at a steady rate; the medians of all rounds, and all that was lost."""
    questions = host.dir / "questions"
    questions.write_text("".join(f"{name} A\n" for name in _addresses()))
    full: dict[str, list[_Load]] = {"weave": [], "dnsmasq": []}
    steady: dict[str, list[_Load]] = {"weave": [], "dnsmasq": []}
    with _router(host) as ours, _dnsmasq(host) as dnsmasq:
        for _ in range(rounds):
            for name, server in (("weave", ours), ("dnsmasq", dnsmasq)):
                full[name].append(_dnsperf(host, questions, server, seconds))
                steady[name].append(_dnsperf(host, questions, server, seconds, "-v", "-Q", str(_STEADY)))
    what = f"{_COUNT:,} names, {_CLIENTS} clients"
    return [_row(f"{what}: questions/s", full, lambda load: load.rate, aim="≥ 0.8 of dnsmasq"),
            _row(f"{what}: the server's µs of processor per answer", full, lambda load: load.cost),
            _row(f"{what}: average ms", full, lambda load: load.average),
            _row(f"{_STEADY:,} questions/s: the server's µs of processor per answer", steady, lambda load: load.cost),
            _row(f"{_STEADY:,} questions/s: p50 ms", steady, lambda load: _percentile(load.latencies, 50)),
            _row(f"{_STEADY:,} questions/s: p99 ms", steady, lambda load: _percentile(load.latencies, 99)),
            Row("lost", {name: sum(load.lost for load in [*full[name], *steady[name]]) for name in full}, "0")]


def _row(title: str, loads: dict[str, list[_Load]], value: Callable[[_Load], float], aim: str = "") -> Row:
    return Row(title, {name: statistics.median(map(value, each)) for name, each in loads.items()}, aim)


def _dnsperf(host: TestHost, questions: Path, server: _Server, seconds: int, *options: str) -> _Load:
    """One run; with ``-v`` it tells of every single question."""
    before = server.processor()
    said = host.run("dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", questions, "-c", str(_CLIENTS),
                    "-l", str(seconds), *options, timeout=seconds + 60).stdout
    spent = server.processor() - before
    if not re.search(r"Response codes: +NOERROR [0-9]+ \(100.00%\)", said):
        raise RuntimeError(f"not every answer is right:\n{said[-2000:]}")
    latencies = [float(each) * 1000 for each in re.findall(r"^> NOERROR .* ([0-9.]+)$", said, re.MULTILINE)]
    return _Load(_number(said, "Queries per second"), spent / _number(said, "Queries completed") * 1e6,
                 _number(said, r"Average Latency \(s\)") * 1000, _number(said, "Queries lost"), latencies)


def _number(said: str, title: str) -> float:
    found = re.search(rf"{title}: +([0-9.]+)", said)
    assert found, said[-2000:]
    return float(found[1])


def _addresses() -> dict[str, IPv4Address]:
    return {f"c{number}.{_DOMAIN}": IPv4Address("10.32.0.1") + number for number in range(_COUNT)}


@contextlib.contextmanager
def _router(host: TestHost) -> Iterator[_Server]:
    state = host.dir / "names"
    state.mkdir()
    database = Database(state / "router.db")
    with database.transaction():
        names = Names(database, Zone(_DOMAIN))
        for name, address in _addresses().items():
            names.add("bench", address, name)
    database.close()
    argv = [sys.executable, "-m", "weavemw.router", f"--state-dir={state}", f"--run-dir={state}/run",
            "--http-addr=127.0.0.1:6799", "--bridge=",
            "--dns-listen=127.0.0.1", f"--dns-port={_OURS}", "--upstream=127.0.0.1:9", "--log-level=error", "--force"]
    with _answering(host, _OURS, argv) as server:
        yield server


@contextlib.contextmanager
def _dnsmasq(host: TestHost) -> Iterator[_Server]:
    """As quick as it can be: from memory, without a log, and without asking anyone else."""
    hosts = host.dir / "hosts"
    hosts.write_text("".join(f"{address} {name}\n" for name, address in _addresses().items()))
    argv = [shutil.which("dnsmasq") or "/usr/sbin/dnsmasq", "--keep-in-foreground", f"--port={_DNSMASQ}",
            "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts", f"--addn-hosts={hosts}",
            f"--local=/{_DOMAIN}/", "--local-ttl=1", "--conf-file=/dev/null", "--user=root", "--pid-file="]
    with _answering(host, _DNSMASQ, argv) as server:
        yield server


@contextlib.contextmanager
def _answering(host: TestHost, port: int, argv: list[str]) -> Iterator[_Server]:
    process = host.popen(*argv, env={"PYTHONPATH": str(ROOT)})
    try:
        with _Resolver(host, "127.0.0.1", port) as resolver:
            if not eventually(lambda: resolver.ask(f"c0.{_DOMAIN}") is True):
                raise RuntimeError(f"{argv[0]} does not answer")
        yield _Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(10)


class _Resolver:
    """Asks a DNS server within the host's namespace."""

    def __init__(self, host: TestHost, address: str, port: int = 53) -> None:
        with inside(host):
            self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.settimeout(1)
        self._socket.connect((address, port))

    def __enter__(self) -> _Resolver:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, name: str) -> bool | None:
        """Whether there is such a name; ``None`` if nobody said."""
        query = dns.message.make_query(name, "A")
        with contextlib.suppress(OSError):
            self._socket.send(query.to_wire())
            while True:
                reply = dns.message.from_wire(self._socket.recv(4096))
                if query.is_response(reply):
                    return {dns.rcode.NOERROR: True, dns.rcode.NXDOMAIN: False}.get(reply.rcode())
        return None

    def until(self, name: str, there: bool, within: float = 30.0) -> float:
        """When the name was there, or not there, for the first time; as seconds since 1970."""
        deadline = time.time() + within
        while self.ask(name) is not there:
            if time.time() > deadline:
                raise RuntimeError(f"{name} is {'not there' if there else 'still there'} after {within:g} s")
            time.sleep(0.0005)
        return time.time()


# From a container's birth to its name, and from its death to no name

@dataclass(frozen=True)
class _Life:
    """Seconds from one event to another."""

    put: float
    started: float
    killed: float
    ended: float


def lives(weave: Launched, times: int) -> Iterator[str]:
    """Names that come and go, of records by hand and of containers, while one asks for them all the time."""
    server = weave.host.run("curl", "-sf", "http://127.0.0.1:6784/dns-address").stdout.strip()
    with _Resolver(weave.host, server) as resolver, ThreadPoolExecutor(1) as pool, inside(weave.host):
        found = [_life(weave, resolver, pool, f"life{number}") for number in range(times)]
    titles = ("PUT /name sent → resolvable", "docker run -d: process started → resolvable",
              "docker kill sent → NXDOMAIN", "process ended → NXDOMAIN")
    for title, values in zip(titles, zip(*((life.put, life.started, life.killed, life.ended) for life in found),
                                         strict=True), strict=True):
        yield (f"{title}: p50 {_percentile(values, 50) * 1000:.1f} ms, p99 {_percentile(values, 99) * 1000:.1f} ms, "
               f"max {max(values) * 1000:.1f} ms, {times} times")


def _life(weave: Launched, resolver: _Resolver, pool: ThreadPoolExecutor, name: str) -> _Life:
    fqdn = f"{name}.{_DOMAIN}"
    put = _registered(resolver, f"by-hand-{fqdn}")
    running = pool.submit(weave.docker, "run", "-d", f"--name={name}", "busybox", "sleep", "9999")
    there = resolver.until(fqdn, True)
    running.result()
    started = _stamp(weave, name, "StartedAt")
    sent = time.time()
    killing = pool.submit(weave.host.docker, "kill", name)
    gone = resolver.until(fqdn, False)
    killing.result()
    ended = _stamp(weave, name, "FinishedAt")
    weave.docker("rm", "-f", name)
    return _Life(put, there - started, gone - sent, gone - ended)


def _registered(resolver: _Resolver, fqdn: str) -> float:
    began = time.time()
    with requests.Session() as session:
        session.trust_env = False
        session.put("http://127.0.0.1:6784/name/weave:extern/192.0.2.1", data={"fqdn": fqdn}, timeout=10)
        took = resolver.until(fqdn, True) - began
        session.delete("http://127.0.0.1:6784/name/weave:extern", params={"fqdn": fqdn}, timeout=10)
    return took


def _stamp(weave: Launched, container: str, which: str) -> float:
    said = weave.host.docker("inspect", "-f", f"{{{{.State.{which}}}}}", container).stdout.strip()
    return datetime.fromisoformat(said).timestamp()


def _percentile(values: Iterator[float] | list[float] | tuple[float, ...], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) * share // 100, len(ordered) - 1)]
