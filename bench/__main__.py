"""``python -m bench``: the proxy, the daemon without one, and haproxy, side by side in one table.

Small requests and attach go to a real dockerd; volume and quiet streams to a daemon that costs as little as it can.
``bare`` is an app that does nothing, under the proxy's own server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator

from host import TestHost, why_not

from bench import crowds, measure, names, network, runs
from bench.proxies import Served, haproxy, synthetic, weave_server
from bench.table import Row, table

_COLUMNS = ("direct", "bare", "weave", "haproxy")
_TCP_PORT = 12399


def main() -> None:
    """Measure, print; ``--quick`` is for trying whether it works."""
    parser = argparse.ArgumentParser(description="Compare the proxy with haproxy and with no proxy at all.")
    parser.add_argument("--quick", action="store_true", help="a few seconds each: figures that mean nothing")
    parser.add_argument("--only", help="one kind of measurement",
                        choices=["small", "volume", "streams", "attach", "crowds", "network", "runs", "names"])
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors", flush=True)
    if options.only not in ("network", "runs", "names"):
        print(table(measured(options.quick, options.only), _COLUMNS, ("weave", "haproxy")))
    for kind, lines in (("network", network.lines), ("runs", runs.lines), ("names", names.lines)):
        if options.only in (None, kind):
            for line in lines(options.quick):
                print(line, flush=True)


def measured(quick: bool, only: str | None) -> Iterator[Row]:
    """All rows, or those of one kind."""
    rounds = 1 if quick else 3
    with TestHost(daemon_options=[f"--host=tcp://127.0.0.1:{_TCP_PORT}", "--tls=false"]) as host:
        with real(host) as targets:
            if only in (None, "small"):
                for path in ("/_ping", "/containers/json"):
                    for connections in (1, 8, 64):
                        yield from measure.small_requests(targets, path, connections, 1 if quick else 4, rounds)
                with measure.containers(targets, 50):
                    yield from measure.small_requests(targets, "/containers/json?all=1", 8, 1 if quick else 4, rounds)
            proxies = {name: target for name, target in targets.items() if name != "bare"}
            if only in (None, "crowds"):
                yield from crowds.rows(proxies, 1 if quick else 6)
            if only in (None, "attach"):
                yield from measure.round_trips(proxies, 50 if quick else 1000, rounds)
            if only in (None, "volume"):
                yield from measure.saved_image(proxies, (16 << 20) if quick else (1 << 29), rounds)
        with made_up(host) as targets:
            if only in (None, "volume"):
                yield from measure.volume(targets, (64 << 20) if quick else (2 << 30), rounds)
            if only in (None, "streams"):
                yield from measure.quiet_streams(targets, 100 if quick else 2000)


@contextlib.contextmanager
def real(host: TestHost) -> Iterator[dict[str, Served]]:
    """All that is compared in front of the host's dockerd."""
    with weave_server(host) as weave, weave_server(host, program="bench.bare") as bare, \
            haproxy(host, host.socket) as reference:
        yield {"direct": Served(host, host.socket, _TCP_PORT), "bare": bare, "weave": weave, "haproxy": reference}


@contextlib.contextmanager
def made_up(host: TestHost) -> Iterator[dict[str, Served]]:
    """All that is compared in front of a synthetic daemon."""
    with synthetic(host) as daemon, weave_server(host, daemon.path) as weave, haproxy(host, daemon.path) as reference:
        yield {"direct": daemon, "weave": weave, "haproxy": reference}


if __name__ == "__main__":
    main()
