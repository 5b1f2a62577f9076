"""What is measured: the proxy, haproxy, and a server that does nothing, all in a test host's network namespace."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import TestHost

from bench import ROOT
from weavemw.dockerapi.hosts import Unix
from weavemw.serving import listeners

_ports = itertools.count(12400)
_READY_WITHIN = 30.0


@dataclass(frozen=True)
class Served:
    """A daemon, as it is reached in one way: by a unix socket and by TCP within the host's namespace."""

    host: TestHost
    path: Path
    port: int
    process: subprocess.Popen[Any] | None = None
    log_file: Path | None = None

    @property
    def unix(self) -> str:
        """For ``docker -H``."""
        return f"unix://{self.path}"

    @property
    def tcp(self) -> str:
        """For ``docker -H``, within the namespace."""
        return f"tcp://127.0.0.1:{self.port}"

    def docker(self, *args: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """The docker CLI, this way."""
        return self.host.docker(*args, host=self.unix, **options)

    def log(self) -> str:
        """What the program has logged."""
        return self.log_file.read_text() if self.log_file else ""

    def pids(self) -> list[int]:
        """The program's processes."""
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def threads(self) -> int:
        """How many threads they have in all."""
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in self.pids())

    def memory(self) -> int:
        """Their memory in bytes, each shared page counted once (PSS)."""
        return sum(_pss(pid) for pid in self.pids())


def _pss(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in rollup if line.startswith("Pss:"))


@contextmanager
def inside(host: TestHost) -> Iterator[None]:
    """This thread in the host's network namespace."""
    from weavemw.network.netlink import setns

    home, there = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", f"/run/netns/{host.name}"))
    setns(there)
    try:
        yield
    finally:
        setns(home)
        os.close(home)
        os.close(there)


@contextmanager
def weave_server(host: TestHost, upstream: Path | None = None, program: str = "weavemw.server",
                 environ: Mapping[str, str] | None = None) -> Iterator[Served]:
    """The proxy's own server with 2 workers, or another program with the same settings; ``environ`` has more."""
    port, directory = next(_ports), host.dir
    path = directory / f"weave{port}.sock"
    settings = {"PYTHONPATH": str(ROOT), "DOCKER_HOST": f"unix://{upstream or host.socket}", "WEAVEMW_WORKERS": "2",
               "WEAVEMW_LISTENERS": f"unix://{path} tcp://127.0.0.1:{port}", "WEAVEMW_LOG_LEVEL": "info",
               "WEAVEMW_RUN_DIR": str(directory / f"run{port}"), "WEAVEMW_DEFAULT_IPALLOC": "no"}
    (directory / f"run{port}").mkdir()
    with _running(host, path, port, [sys.executable, "-m", program],
                  {**settings, **(environ or {})}) as served:
        yield served


@contextmanager
def haproxy(host: TestHost, upstream: Path, bind: str = "") -> Iterator[Served]:
    """The distribution's haproxy with its own defaults: as many threads as there are processors.

    ``bind`` is more for its TCP listener.
    """
    port = next(_ports)
    path, config = host.dir / f"haproxy{port}.sock", host.dir / f"haproxy{port}.cfg"
    config.write_text(_HAPROXY.format(path=path, port=port, upstream=upstream, bind=bind))
    with _running(host, path, port, [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(config)],
                  {}) as served:
        yield served


_HAPROXY = """\
global
  maxconn 4000
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  option splice-auto
frontend docker
  bind unix@{path}
  bind 127.0.0.1:{port}{bind}
  default_backend dockerd
backend dockerd
  server dockerd unix@{upstream}
"""


@contextmanager
def synthetic(host: TestHost) -> Iterator[Served]:
    """The daemon of :mod:`bench.synthetic`."""
    path = host.dir / "synthetic.sock"
    with _running(host, path, 0, [sys.executable, "-m", "bench.synthetic", str(path)], {"PYTHONPATH": str(ROOT)}) as it:
        yield it


@contextmanager
def _running(host: TestHost, path: Path, port: int, argv: list[str], environ: dict[str, str]) -> Iterator[Served]:
    log = path.with_suffix(".log")
    with log.open("wb") as output:
        process = host.popen(*argv, env=environ, stdout=output, stderr=output)
    served = Served(host, path, port, process, log)
    try:
        _wait_for(served)
        yield served
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(served: Served) -> None:
    assert served.process is not None
    deadline = time.monotonic() + _READY_WITHIN
    while not listeners.ping(Unix(str(served.path))):
        if served.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it does not serve:\n{served.log()}")
        time.sleep(0.05)
