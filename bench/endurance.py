"""What must hold for long or often: right sums, a clean log, and streams that are silent for a quarter of an hour.

``python -m bench.endurance [sums] [execs] [silence]`` prints one line for each.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from host import TestHost

from bench import ROOT
from bench.proxies import Served, weave_server


def sums(proxy: Served, times: int = 200, size: int = 10 << 20) -> str:
    """Random bytes into ``docker run -i … sha256sum``: the sum must be right each time."""
    def right(_: int) -> bool:
        data = os.urandom(size)
        done = proxy.docker("run", "--rm", "-i", "-e", "WEAVE_CIDR=none", "busybox", "sha256sum", input=data,
                            text=False, timeout=300)
        return bool(done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest())

    began = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        found = sum(pool.map(right, range(times)))
    return f"{found} of {times} sums of {size >> 20} MB right, in {time.monotonic() - began:.0f} s"


def execs(proxy: Served, times: int = 1000) -> str:
    """``docker exec`` again and again: the output is whole each time, and the proxy's log says nothing of it."""
    container = proxy.docker("run", "-d", "-e", "WEAVE_CIDR=none", "busybox", "sleep", "9999").stdout.strip()
    before = proxy.log()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda n: proxy.docker("exec", container, "echo", str(n)).stdout, range(times)))
    right = sum(output == f"{n}\n" for n, output in enumerate(outputs))
    proxy.docker("rm", "-f", container)
    said = proxy.log()[len(before):].splitlines()
    return "\n  ".join([f"{right} of {times} execs right, {len(said)} lines in the proxy's log", *said[:10]])


def silence(proxy: Served, minutes: float = 15) -> str:
    """Streams without a byte for long, then one byte: delivered."""
    docker, host = proxy.host.docker, proxy.host
    container = docker("run", "-d", "busybox", "sh", "-c", "mkfifo /f; while :; do cat /f; done").stdout.strip()
    streams: dict[str, subprocess.Popen[bytes]] = {}
    for via in (proxy.unix, proxy.tcp):
        for name, command in (("events", ["events", "--filter", "type=network", "--format", "x"]),
                              ("logs -f", ["logs", "-f", container]), ("exec", ["exec", "-i", container, "cat"])):
            streams[f"{name} by {via.partition(':')[0]}"] = host.popen(
                "docker", *command, env={"DOCKER_HOST": via}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(60 * minutes)
    docker("network", "create", "silence")
    docker("exec", container, "sh", "-c", "echo x > /f")
    delivered = [name for name, stream in streams.items() if _delivers(stream)]
    docker("network", "rm", "silence")
    docker("rm", "-f", container)
    return f"after {minutes:g} minutes of silence, a byte came through: {', '.join(delivered)} " \
           f"({len(delivered)} of {len(streams)})"


def _delivers(stream: subprocess.Popen[bytes]) -> bool:
    assert stream.stdin is not None
    assert stream.stdout is not None
    stream.stdin.write(b"x\n")  # only exec has a use for it
    stream.stdin.close()
    return stream.stdout.read(1) == b"x"


@contextmanager
def _proxy() -> Iterator[Served]:
    with TestHost() as host:
        host.popen(sys.executable, "-m", "weavemw.cli", "launch-router", "--foreground",
                   env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
        with weave_server(host) as served:
            yield served


def main() -> None:
    """Run those that are named, or all."""
    all_of_them: dict[str, Callable[[Served], str]] = {"sums": sums, "execs": execs, "silence": silence}
    parser = argparse.ArgumentParser(description="Prove what must hold for long or often.")
    parser.add_argument("what", nargs="*", help=f"{', '.join(all_of_them)} (default: all)")
    chosen = parser.parse_args().what or list(all_of_them)
    with _proxy() as proxy:
        for name in chosen:
            print(f"{name}: {all_of_them[name](proxy)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
