"""What an address, an attach and a whole ``docker run`` cost: ``python -m bench.network [--quick]``.

The netlink part runs within a test host's network namespace: ``python -m bench.network netlink N``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from ipaddress import ip_interface, ip_network
from pathlib import Path

from host import TestHost
from launched import Launched, eventually

from bench import ROOT
from weavemw.cli.router import router_serves
from weavemw.network.netlink import NetlinkNetwork, ensure_bridge
from weavemw.network.plan import Plan
from weavemw.ops.run_dir import RouterAddress
from weavemw.router.allocator import Allocator
from weavemw.router.store import Database, SqliteStore

_CLIENTS = 4
_RANGE = ip_network("10.32.0.0/12")


def lines(quick: bool) -> Iterator[str]:
    """One line for each measurement."""
    for held in (0, 1000) if quick else (0, 10_000, 100_000):
        yield f"allocations with {held} held: {allocations(held, 1 if quick else 5):.0f}/s, {_CLIENTS} clients"
    with TestHost() as host:
        done = host.run(sys.executable, "-m", "bench.network", "netlink", "64" if quick else "1000",
                        env={"PYTHONPATH": str(ROOT)}, timeout=600)
        yield from done.stdout.splitlines()
        weave = Launched(host)
        yield from run_overhead(weave, 3 if quick else 20)
        yield from runs_at_once(weave, 8 if quick else 40, 1 if quick else 3)
        yield short_runs(weave, 20 if quick else 500)


# Addresses

def allocations(held: int, seconds: float) -> float:
    """Allocations per second over HTTP, each on the disk before it is answered, by a router that holds so many."""
    with tempfile.TemporaryDirectory(dir=ROOT) as directory, _router(Path(directory), held) as port, \
            ProcessPoolExecutor(_CLIENTS) as pool:
        return sum(pool.map(_allocate, [port] * _CLIENTS, range(_CLIENTS), [seconds] * _CLIENTS))


@contextlib.contextmanager
def _router(state: Path, held: int) -> Iterator[int]:
    _fill(state / "router.db", held)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    argv = [sys.executable, "-m", "weavemw.router", f"--state-dir={state}", f"--run-dir={state}/run",
            f"--http-addr=127.0.0.1:{port}",
            "--bridge=", "--no-dns", "--log-level=error", "--force"]
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            if not eventually(lambda: router_serves(RouterAddress(f"127.0.0.1:{port}"))):
                raise RuntimeError("the router does not serve")
            yield port
        finally:
            process.terminate()


def _fill(path: Path, held: int) -> None:
    database = Database(path)
    allocator = Allocator(SqliteStore(database), _RANGE)
    with database.transaction():
        allocator.fit()
        for number in range(held):
            allocator.allocate(_id("held", number))
    database.close()


def _allocate(port: int, client: int, seconds: float) -> float:
    """How many a second one client gets; it is written so that the processors are left to the router."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began, count = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            connection.sendall(f"POST /ip/{_id(str(client), count)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            reply = connection.recv(4096)  # a short answer, sent at once
            if not reply.startswith(b"HTTP/1.1 200 ") or b"/12" not in reply:
                raise RuntimeError(reply)
            count += 1
        return count / passed


def _id(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


# Attaching: in a namespace of its own

def netlink(times: int) -> Iterator[str]:
    """How long an attach takes, alone and 8 at once, and what it leaves of descriptors and threads."""
    ensure_bridge("weave", 1376)
    network = NetlinkNetwork("weave")
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(_namespace()) for _ in range(8)]
        _attach_often(network, pids[0], 0, 4)  # starts what is started once
        before = _descriptors_and_threads()
        yield _spread("attach, alone", _attach_often(network, pids[0], 0, times))
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(functools.partial(_attach_often, network, times=times // 8), pids, range(8))
            yield _spread("attach, 8 at once", [each for one in found for each in one])
        yield f"descriptors and threads: {before} before, {_descriptors_and_threads()} after"


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    argv = ["unshare", "--net", sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def _attach_often(network: NetlinkNetwork, pid: int, number: int, times: int) -> list[float]:
    container, address = _id("attached", number), ip_interface(f"10.32.0.{number + 1}/12")
    took = []
    for _ in range(times):
        began = time.perf_counter()
        with network.namespace(pid) as namespace:
            namespace.prepare(Plan(container, (address,)))
            namespace.commit()
        took.append(time.perf_counter() - began)
        network.detach(container)
    return took


def _spread(what: str, took: list[float]) -> str:
    percentiles = statistics.quantiles(took, n=100)
    return f"{what}: p50 {percentiles[49] * 1000:.1f} ms, p99 {percentiles[98] * 1000:.1f} ms, {len(took)} times"


def _descriptors_and_threads() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


# Whole runs

def run_overhead(weave: Launched, rounds: int) -> Iterator[str]:
    """``docker run --rm busybox true``, without us, left alone, and attached, in turns."""
    ways: dict[str, Callable[[], object]] = {
        "direct": lambda: weave.host.docker("run", "--rm", "busybox", "true"),
        "left alone": lambda: weave.docker("run", "--rm", "-e", "WEAVE_CIDR=none", "busybox", "true"),
        "attached": lambda: weave.docker("run", "--rm", "busybox", "true")}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, action in ways.items():
            took[way].append(_timed(action))
    direct = statistics.median(took["direct"])
    for way, times in took.items():
        median = statistics.median(times)
        yield f"docker run, {way}: {median * 1000:.0f} ms ({(median - direct) * 1000:+.0f}), {rounds} in turns"


def runs_at_once(weave: Launched, runs: int, rounds: int) -> Iterator[str]:
    """Many runs, 8 at a time, without us and attached, in turns; the best of each."""
    took: dict[str, list[float]] = {"direct": [], "attached": []}
    for _ in range(rounds):
        for way, docker in (("direct", weave.host.docker), ("attached", weave.docker)):
            took[way].append(_timed(lambda docker=docker: _many(docker, runs, 8)))
    direct, attached = min(took["direct"]), min(took["attached"])
    yield f"{runs} runs, 8 at a time: direct {direct:.1f} s, attached {attached:.1f} s, ratio {attached / direct:.2f}"


def short_runs(weave: Launched, runs: int) -> str:
    """Many runs, 20 at a time: how many failed, and whether anything is left."""
    before = weave.left()
    began = time.monotonic()
    errors = _many(weave.docker, runs, 20)
    seconds = time.monotonic() - began
    nothing = eventually(lambda: weave.left() == before)
    return (f"{runs} runs, 20 at a time: {len(errors)} failed, {'nothing' if nothing else weave.left()} left, "
            f"{seconds:.0f} s {' '.join(errors[:3])}")


def _many(docker: Callable[..., subprocess.CompletedProcess[str]], runs: int, at_once: int) -> list[str]:
    with ThreadPoolExecutor(at_once) as pool:
        done = pool.map(lambda _: docker("run", "--rm", "busybox", "true", check=False, timeout=120), range(runs))
        return [str(each.stderr) for each in done if each.returncode]


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    for line in netlink(int(sys.argv[2])) if sys.argv[1:2] == ["netlink"] else lines("--quick" in sys.argv):
        print(line, flush=True)
