"""The measurements: each gives rows, and asks all that it compares in turn within the same run."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping

from bench.proxies import Served
from bench.table import Row

Targets = Mapping[str, Served]

_MB = 1 << 20
_UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


# -- small requests --------------------------------------------------------------------------------------------------

def small_requests(targets: Targets, path: str, connections: int, seconds: int, rounds: int) -> list[Row]:
    """Requests one after the other on each of so many connections, by wrk over TCP."""
    found = _in_turn(targets, rounds, lambda target: _wrk(target, path, connections, seconds))
    title = f"GET {path}, {connections} connection{'s' * (connections > 1)}"
    units = (("req/s", "≥ 0.5 of haproxy"), ("p50 ms", ""), ("p99 ms", ""))
    return [Row(f"{title}: {unit}", {name: values[n] for name, values in found.items()}, aim)
            for n, (unit, aim) in enumerate(units)]


@contextlib.contextmanager
def containers(targets: Targets, count: int) -> Iterator[None]:
    """So many containers that have been created, for ``?all=1`` to show."""
    direct = targets["direct"]
    made = [direct.docker("create", "busybox").stdout.strip() for _ in range(count)]
    try:
        yield
    finally:
        direct.docker("rm", *made)


def _wrk(target: Served, path: str, connections: int, seconds: int) -> tuple[float, ...]:
    said = target.host.run("wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "--timeout", "10",
                           f"http://127.0.0.1:{target.port}{path}", timeout=seconds + 60).stdout
    if "Socket errors" in said or "Non-2xx" in said:
        raise RuntimeError(said)
    p50, p99 = (_milliseconds(re.search(rf"^ +{share}% +(\S+)", said, re.MULTILINE)) for share in (50, 99))
    rate = re.search(r"Requests/sec:\s+(\S+)", said)
    assert rate
    return float(rate[1]), p50, p99


def _milliseconds(found: re.Match[str] | None) -> float:
    assert found
    number, unit = re.fullmatch(r"([0-9.]+)(\D+)", found[1]).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


# -- volume ----------------------------------------------------------------------------------------------------------

def volume(targets: Targets, size: int, rounds: int) -> list[Row]:
    """So many bytes down and up, in both framings, in MB/s."""
    kinds: dict[str, Callable[[Served], float]] = {
        "down, by length": lambda target: _download(target, size),
        "down, chunked": lambda target: _download(target, size, "&chunked=1"),
        "up, by length": lambda target: _upload(target, "/images/load", size, chunked=False),
        "up, chunked": lambda target: _upload(target, "/build", size, chunked=True)}
    rows = []
    for kind, run in kinds.items():
        found = _in_turn(targets, rounds, lambda target, run=run: (run(target),))  # type: ignore[misc]
        rows.append(Row(f"{size / (1 << 30):g} GB {kind}: MB/s", {name: value for name, (value,) in found.items()},
                        "≥ 0.95 of haproxy"))
    return rows


def saved_image(targets: Targets, size: int, rounds: int) -> list[Row]:
    """An image of so many bytes, as ``docker save`` asks a real daemon for it, in MB/s."""
    direct = targets["direct"]
    direct.docker("import", "-", "big", input=_tar(size), text=False, timeout=300)
    try:
        found = _in_turn(targets, rounds, lambda target: (_download(target, size, path="/images/big/get"),))
    finally:
        direct.docker("rmi", "big")
    return [Row(f"{size / (1 << 30):g} GB image saved: MB/s", {name: value for name, (value,) in found.items()},
                "≥ 0.95 of haproxy")]


def _tar(size: int) -> bytes:
    with io.BytesIO() as out, tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = size
        tar.addfile(entry, io.BytesIO(bytes(size)))
        tar.close()
        return out.getvalue()


def _download(target: Served, size: int, framing: str = "", path: str = "/images/get") -> float:
    with _connected(target) as client:
        began = time.monotonic()
        client.sendall(_request("GET", f"{path}?size={size}{framing}", "Connection: close\r\n"))
        buffer, total = bytearray(_MB), 0
        while count := client.recv_into(buffer):
            total += count
        assert total >= size, f"{total} bytes of {size}"
        return size / _MB / (time.monotonic() - began)


def _upload(target: Served, path: str, size: int, *, chunked: bool) -> float:
    block = b"100000\r\n" + bytes(_MB) + b"\r\n" if chunked else bytes(_MB)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    with _connected(target) as client:
        began = time.monotonic()
        client.sendall(_request("POST", path, f"{framing}\r\nConnection: close\r\n"))
        for _ in range(size // _MB):
            client.sendall(block)
        if chunked:
            client.sendall(b"0\r\n\r\n")
        assert b" 200 OK" in _read_until(client, b"OK")
        return size / _MB / (time.monotonic() - began)


# -- quiet streams ---------------------------------------------------------------------------------------------------

def quiet_streams(targets: Targets, count: int) -> list[Row]:
    """So many attached connections on which nothing happens: what they cost, and what they do to others."""
    found = {name: _hold(target, count) for name, target in targets.items()}
    titles = (("seconds to open", ""), ("KB each", "≤ 8"), ("threads before", ""), ("threads after", "as before"),
              ("/_ping p99 before, ms", ""), ("/_ping p99 meanwhile, ms", "as before"))
    return [Row(f"{count} quiet streams: {title}", {name: values[n] for name, values in found.items()}, aim)
            for n, (title, aim) in enumerate(titles)]


def _hold(target: Served, count: int) -> tuple[float, ...]:
    for _ in range(200):
        _attached_and_closed(target)  # whatever is made once is made now, the threads of a pool included
    ping_before = _ping_p99(target)
    threads, memory, began = target.threads(), target.memory(), time.monotonic()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(_attached(target, "/containers/x/attach"))
        opened = time.monotonic() - began
        ping = _ping_p99(target)
        each = (target.memory() - memory) / count / 1024
        return opened, each, threads, target.threads(), ping_before, ping


def _attached_and_closed(target: Served) -> None:
    with _attached(target, "/containers/x/attach"):
        pass


def _ping_p99(target: Served, count: int = 500) -> float:
    times = []
    with _connected(target) as client:
        for _ in range(count):
            began = time.monotonic()
            client.sendall(_request("GET", "/_ping", ""))
            _read_until(client, b"OK")
            times.append(time.monotonic() - began)
    return statistics.quantiles(times, n=100)[98] * 1000


# -- a byte there and back -------------------------------------------------------------------------------------------

def round_trips(targets: Targets, count: int, rounds: int) -> list[Row]:
    """A byte written to an attached ``cat``, until it comes back."""
    direct = targets["direct"]
    container = direct.docker("run", "-dit", "busybox", "sh", "-c", "stty raw -echo; cat").stdout.strip()
    try:
        path = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1"
        found = _in_turn(targets, rounds, lambda target: (_round_trip(target, path, count),))
    finally:
        direct.docker("rm", "-f", container)
    times = {name: value for name, (value,) in found.items()}
    return [Row("attach, a byte there and back: µs", times),
            Row("attach, a byte there and back: µs above direct",
                {name: value - times["direct"] for name, value in times.items() if name != "direct"})]


def _round_trip(target: Served, path: str, count: int) -> float:
    times = []
    with _attached(target, path) as client:
        for _ in range(count):
            began = time.perf_counter()
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


# -- what they have in common ----------------------------------------------------------------------------------------

def _in_turn(targets: Targets, rounds: int,
             measure: Callable[[Served], tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """The medians of some rounds, in each of which every target has its turn."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in targets}
    for _ in range(rounds):
        for name, target in targets.items():
            found[name].append(measure(target))
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in found.items()}


@contextlib.contextmanager
def _connected(target: Served) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(120)
        client.connect(str(target.path))
        yield client


@contextlib.contextmanager
def _attached(target: Served, path: str) -> Iterator[socket.socket]:
    with _connected(target) as client:
        client.sendall(_request("POST", path, _UPGRADE))
        assert b" 101 " in _read_until(client, b"\r\n\r\n")
        yield client


def _read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = client.recv(4096)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def _request(method: str, target: str, headers: str) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n".encode()
