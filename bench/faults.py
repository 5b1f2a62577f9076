"""Faults at random on a host under load: how soon each is mended, and whether health told the truth meanwhile.

``python bench/faults.py SECONDS [FILE]``. A line of JSON for each fault is appended to FILE (by default
``faults.jsonl``), so that a run may be ended and begun again; the summary at the end is of all of the file.

A fault is over when every container has its address and its name, reaches another, and ``weave healthcheck`` is
content. Health lied for as long as it was content while somebody was cut off.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/engine"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from host import TestHost, sweep, why_not
from launched import Launched

from weavemw.errors import WeaveError
from weavemw.network.netlink import NetlinkNetwork
from weavemw.network.plan import host_names
from weavemw.network.reach import echo

__all__ = ["main", "summary"]

_NAMES = ("web", "db", "api", "hand")
_LIMIT = 60.0
_HELD = 5.0  # seconds that a process is stopped


class Site:
    """A host with four containers, one attached by hand; beside them containers come and go."""

    def __init__(self, host: TestHost) -> None:
        self.host, self.launched = host, Launched(host)
        for name in _NAMES[:-1]:
            self.launched.docker("run", "-d", "--restart=always", "--name", name, "busybox", "sleep", "86400")
        host.docker("run", "-d", "--name", _NAMES[-1], "busybox", "sleep", "86400")
        self.launched.weave("attach", _NAMES[-1])
        self.addresses = {name: self.launched.ethwe(name) for name in _NAMES}
        self.pids = {name: self.pid(name) for name in _NAMES}
        self._ended = threading.Event()
        threading.Thread(target=self._load, daemon=True).start()

    def pid(self, container: str) -> int:
        """The container's process."""
        return int(self.host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout)

    def end(self, container: str) -> str:
        """The host's end of a container's pair."""
        return host_names(self.host.docker("inspect", "-f", "{{.Id}}", container).stdout.strip())[0]

    def inside(self, container: str, *argv: str, check: bool = True) -> bool:
        """Run a command in the container's network namespace."""
        argv = ("nsenter", "-t", str(self.pids[container]), "-n", *argv)
        return self.host.run(*argv, check=check, timeout=10).returncode == 0

    def is_whole(self) -> bool:
        """Whether each has its address and reaches the next one."""
        try:
            return all(self._reaches(one, other) for one, other in zip(_NAMES, _NAMES[1:] + _NAMES[:1], strict=True))
        except (WeaveError, OSError, ValueError):
            return False

    def has_names(self) -> bool:
        """Whether the router has the names of all."""
        try:
            known = {name.partition(".")[0] for name, _ in self.launched.names()}
        except (subprocess.SubprocessError, ValueError):
            return False
        return set(_NAMES) <= known

    def is_healthy(self) -> bool:
        """What `weave healthcheck` says."""
        return self.launched.weave("healthcheck", check=False).returncode == 0

    def close(self) -> None:
        """End the load."""
        self._ended.set()

    def _reaches(self, one: str, other: str) -> bool:
        source, target = (self.addresses[name].partition("/")[0] for name in (one, other))
        raw = partial(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with NetlinkNetwork().visit(self.pids[one], "", raw) as sock:
            sock.bind((source, 0))
            return echo(sock, target)

    def _load(self) -> None:
        while not self._ended.wait(0.5):
            self.launched.docker("run", "--rm", "busybox", "true", check=False, timeout=90)


def _stop(site: Site, container: str) -> None:
    pid = site.pid(container)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(_HELD)
    os.kill(pid, signal.SIGCONT)


def _kill(site: Site, container: str) -> None:
    os.kill(site.pid(container), signal.SIGKILL)


def _dockerd_hangs(site: Site) -> None:
    assert site.host.dockerd
    site.host.dockerd.send_signal(signal.SIGSTOP)
    time.sleep(_HELD)
    site.host.dockerd.send_signal(signal.SIGCONT)


def _disk_full(site: Site) -> None:
    """For a moment no file can be made in the state directory: the container does not see a mount made over it."""
    site.host.run("chattr", "+i", site.host.state_dir)
    try:
        time.sleep(_HELD)
    finally:
        site.host.run("chattr", "-i", site.host.state_dir)


def _no_descriptors(site: Site) -> None:
    pid = site.pid("weave")
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    time.sleep(_HELD)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def _flush(site: Site) -> None:
    site.host.run("iptables", "-F")
    site.host.run("iptables", "-P", "FORWARD", "DROP")


def _forget(site: Site) -> None:
    site.host.docker("kill", "weave")
    for file in site.host.state_dir.glob("router.db*"):
        file.unlink()
    site.host.docker("start", "weave")


#: By name; each takes the site and one of its containers.
FAULTS: dict[str, Callable[[Site, str], Any]] = {
    "bridge deleted": lambda site, _: site.host.ip("link", "delete", "weave"),
    "bridge down": lambda site, _: site.host.ip("link", "set", "weave", "down"),
    "off the bridge": lambda site, name: site.host.ip("link", "set", site.end(name), "nomaster"),
    "host's end down": lambda site, name: site.host.ip("link", "set", site.end(name), "down"),
    "pair deleted": lambda site, name: site.host.ip("link", "delete", site.end(name)),
    "ethwe down": lambda site, name: site.inside(name, "ip", "link", "set", "ethwe", "down"),
    "addresses flushed": lambda site, name: site.inside(name, "ip", "address", "flush", "dev", "ethwe"),
    "iptables flushed": lambda site, _: _flush(site),
    "names wiped": lambda site, _: site.host.run("curl", "-sf", "-X", "DELETE", "http://127.0.0.1:6784/name"),
    "router forgot": lambda site, _: _forget(site),
    "router killed": lambda site, _: _kill(site, "weave"),
    "proxy killed": lambda site, _: _kill(site, "weaveproxy"),
    "router stopped": lambda site, _: _stop(site, "weave"),
    "dockerd hangs": lambda site, _: _dockerd_hangs(site),
    "state directory closed": lambda site, _: _disk_full(site),
    "router without descriptors": lambda site, _: _no_descriptors(site),
}


def inject(site: Site, fault: str, container: str) -> dict[str, Any]:
    """One fault, and what became of it; times in seconds from when it was over, or done."""
    FAULTS[fault](site, container)
    begun, cut_off, lies, mended = time.monotonic(), 0.0, 0.0, None
    while time.monotonic() - begun < _LIMIT:
        before, now, seen = time.monotonic(), site.is_whole() and site.has_names(), time.monotonic()
        healthy = site.is_healthy()
        if now and healthy:
            mended = round(seen - begun, 2)
            break
        if not now:
            cut_off = time.monotonic() - begun
            lies += (time.monotonic() - before) if healthy and not site.is_whole() else 0.0
        time.sleep(0.1)
    return {"fault": fault, "container": container, "mended": mended, "cut_off": round(cut_off, 2),
            "lied": round(lies, 2)}


def summary(rows: list[dict[str, Any]]) -> str:
    """Median and worst of each fault, and of all. Pure."""
    lines = []
    for fault in [*dict.fromkeys(row["fault"] for row in rows), ""]:
        these = [row for row in rows if fault in ("", row["fault"])]
        times = [row["mended"] if row["mended"] is not None else float("inf") for row in these]
        lied = sum(row["lied"] >= 1 for row in these)
        if times:
            lines.append(f"{fault or 'all':28} {len(these):4} median {statistics.median(times):6.1f} s  "
                         f"worst {max(times):6.1f} s  health lied in {lied}")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Inject faults for so many seconds."""
    if reason := why_not():
        sys.exit(reason)
    until, file = time.monotonic() + float(arguments[0]), Path(arguments[1] if arguments[1:] else "faults.jsonl")
    sweep()
    with TestHost() as host:
        site = Site(host)
        while time.monotonic() < until:
            row = inject(site, random.choice(list(FAULTS)), random.choice(_NAMES))  # noqa: S311
            print(json.dumps(row), flush=True)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")
        site.close()
    print(summary([json.loads(line) for line in file.read_text().splitlines()]))


if __name__ == "__main__":
    main(sys.argv[1:] or ["600"])
