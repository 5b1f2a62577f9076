"""``python -m bench.tls``: the proxy and haproxy, each with TLS and client certificates, side by side in one table.

Both stand before a synthetic daemon; ``plain`` is the proxy without TLS. Volume goes by curl, quiet streams by Python.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host import TestHost, why_not

from bench.proxies import Served, haproxy, inside, synthetic, weave_server
from bench.table import Row, table
from weavemw.serving import certs

_MB = 1 << 20


@dataclass(frozen=True)
class Secured:
    """A proxy by TCP in the host's namespace, with or without TLS."""

    served: Served
    tls: Path | None

    def curl(self, *arguments: str) -> list[str]:
        """A curl command line for a target's path."""
        shown = ["--cacert", f"{self.tls}/ca.pem", "--cert", f"{self.tls}/cert.pem", "--key", f"{self.tls}/key.pem"]
        return ["curl", "-sS", "-o", "/dev/null", "-w", "%{time_total}", *(shown if self.tls else []), *arguments]

    def url(self, path: str) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.served.port}{path}"

    def connect(self) -> socket.socket:
        """A connection from here, whose namespace is the host's."""
        sock = socket.create_connection(("127.0.0.1", self.served.port), 60)
        if self.tls is None:
            return sock
        context = ssl.create_default_context(cafile=f"{self.tls}/ca.pem")
        context.load_cert_chain(f"{self.tls}/cert.pem", f"{self.tls}/key.pem")
        return context.wrap_socket(sock, server_hostname="127.0.0.1")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare the proxy with haproxy, both with TLS.")
    parser.add_argument("--quick", action="store_true", help="a few seconds each: figures that mean nothing")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors", flush=True)
    print(table(measured(options.quick), ("plain", "weave", "haproxy"), ("weave", "haproxy")))


def measured(quick: bool) -> Iterator[Row]:
    """All rows."""
    rounds, size = (1, 64 * _MB) if quick else (3, 2 << 30)
    with TestHost(images=False) as host, _targets(host) as targets:
        yield from _volume(targets, size, rounds)
        yield _handshakes(targets, 20 if quick else 200)
        yield from _streams(targets, 50 if quick else 1000)


@contextlib.contextmanager
def _targets(host: TestHost) -> Iterator[dict[str, Secured]]:
    directory = host.dir / "tls"
    certs.create(directory, ["127.0.0.1"], days=10)
    both = (directory / "server-cert.pem").read_text() + (directory / "server-key.pem").read_text()
    (directory / "haproxy.pem").write_text(both)
    options = {"WEAVEMW_TLS_VERIFY": "yes", "WEAVEMW_TLS_CACERT": f"{directory}/ca.pem",
               "WEAVEMW_TLS_CERT": f"{directory}/server-cert.pem", "WEAVEMW_TLS_KEY": f"{directory}/server-key.pem"}
    bind = f" ssl crt {directory}/haproxy.pem ca-file {directory}/ca.pem verify required"
    with synthetic(host) as daemon, weave_server(host, daemon.path) as plain, \
            weave_server(host, daemon.path, environ=options) as weave, \
            haproxy(host, daemon.path, bind=bind) as reference:
        yield {"plain": Secured(plain, None), "weave": Secured(weave, directory),
               "haproxy": Secured(reference, directory)}


def _volume(targets: dict[str, Secured], size: int, rounds: int) -> Iterator[Row]:
    big = next(iter(targets.values())).served.host.dir / "big"
    with big.open("wb") as file:
        file.truncate(size)
    kinds = {"down": lambda target: target.curl(target.url(f"/images/get?size={size}")),
             "up": lambda target: target.curl("-H", "Expect:", "-T", str(big), "-X", "POST",
                                        target.url("/images/load"))}
    for kind, command in kinds.items():
        found: dict[str, list[float]] = {name: [] for name in targets}
        for _ in range(rounds):
            for name, target in targets.items():
                seconds = float(target.served.host.run(*command(target), timeout=300).stdout)
                found[name].append(size / _MB / seconds)
        medians = {name: statistics.median(each) for name, each in found.items()}
        yield Row(f"{size / (1 << 30):g} GB {kind}: MB/s", medians)


def _handshakes(targets: dict[str, Secured], count: int) -> Row:
    found = {}
    for name, target in targets.items():
        with inside(target.served.host):
            began = time.monotonic()
            for _ in range(count):
                with target.connect() as sock:
                    _ping(sock)
            found[name] = count / (time.monotonic() - began)
    return Row("new connections with one request each, one after the other: per s", found)


def _streams(targets: dict[str, Secured], count: int) -> Iterator[Row]:
    found = {name: _hold(target, count) for name, target in targets.items()}
    for number, title in enumerate(("KB each", "threads before", "threads after", "/_ping p50 meanwhile, ms")):
        yield Row(f"{count} quiet streams: {title}", {name: values[number] for name, values in found.items()})


def _hold(target: Secured, count: int) -> tuple[float, ...]:
    with inside(target.served.host), contextlib.ExitStack() as stack:
        for _ in range(20):
            _attached(target).close()
        before, memory = target.served.threads(), target.served.memory()
        for _ in range(count):
            stack.enter_context(_attached(target))
        each = (target.served.memory() - memory) / count / 1024
        with target.connect() as sock:
            times = [_ping(sock) for _ in range(200)]
        return each, before, target.served.threads(), statistics.median(times) * 1000


def _attached(target: Secured) -> socket.socket:
    sock = target.connect()
    sock.sendall(b"POST /containers/x/attach HTTP/1.1\r\nHost: localhost\r\n"
                 b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    assert b" 101 " in sock.recv(4096)
    return sock


def _ping(sock: socket.socket) -> float:
    began = time.monotonic()
    sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = b""
    while not data.endswith(b"OK"):
        piece = sock.recv(4096)
        assert piece
        data += piece
    return time.monotonic() - began


if __name__ == "__main__":
    main()
