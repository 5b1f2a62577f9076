"""Crowds of clients that hold on to a server: how long does ``/_ping`` of somebody else take meanwhile?"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from bench.proxies import Served
from bench.table import Row

_HALF_HEAD = b"GET /_ping HT"
_HALF_BODY = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 99\r\n\r\n{"
_LARGE = b"GET /images/json?all=1 HTTP/1.1\r\nHost: d\r\n\r\n" * 400

Connect = Callable[[], socket.socket]


def rows(targets: dict[str, Served], seconds: float) -> Iterator[Row]:
    """The worst and the median of pings, one crowd after the other."""
    crowds = {
        "200 half-sent heads": lambda connect: _held(connect, 200, _HALF_HEAD),
        "400 half-sent bodies": lambda connect: _held(connect, 400, _HALF_BODY),
        "1,000 silent connections": lambda connect: _held(connect, 1000, b""),
        "100 readers that never read": lambda connect: _held(connect, 100, _LARGE),
        "60 new silent ones a second": lambda connect: _arriving(connect, 60),
    }
    for title, crowd in crowds.items():
        found = {name: _pings(target, crowd, seconds) for name, target in targets.items()}
        for number, unit in enumerate(("median ms", "worst ms")):
            yield Row(f"/_ping beside {title}: {unit}", {name: values[number] for name, values in found.items()},
                      "≤ 50" if number else "")


def _pings(target: Served, crowd: Callable[[Connect], contextlib.AbstractContextManager[None]],
           seconds: float) -> tuple[float, float]:
    with crowd(lambda: _connected(target)):
        time.sleep(0.5)
        taken = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            taken.append(_ping(target))
            time.sleep(0.02)
    taken.sort()
    return taken[len(taken) // 2] * 1000, taken[-1] * 1000


def _ping(target: Served) -> float:
    began = time.monotonic()
    with _connected(target) as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    return time.monotonic() - began


def _connected(target: Served) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(15)
    client.connect(str(target.path))
    return client


@contextlib.contextmanager
def _held(connect: Connect, count: int, data: bytes) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(connect())
            client.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                client.send(data)
        yield


@contextlib.contextmanager
def _arriving(connect: Connect, rate: int) -> Iterator[None]:
    stop = threading.Event()

    def arrive() -> None:
        with contextlib.ExitStack() as stack:
            while not stop.wait(1 / rate):
                stack.enter_context(connect())

    thread = threading.Thread(target=arrive)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
