"""Where the milliseconds of ``docker run --rm busybox true`` go: its API calls one by one, each way in turns.

The calls are those of the docker CLI, in its order and on as many connections, made by a client that costs little.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from host import TestHost
from launched import Launched, eventually

__all__ = ["lines"]

_API = "/v1.41"
_STAGES = ("ping", "create", "attach", "wait", "start", "output ended", "removed")
#: What a container is created with, each way.
_WAYS: Mapping[str, tuple[str, ...]] = {"direct": (), "left alone": ("WEAVE_CIDR=none",), "attached": ()}


def lines(quick: bool) -> Iterator[str]:
    """One line for each call, and one for the whole; the median in ms of many runs, made in turns."""
    with TestHost() as host:
        weave = Launched(host)
        took = _measured({way: host.socket if way == "direct" else weave.socket for way in _WAYS}, 3 if quick else 40)
        yield from _shown(took)
        yield from _spent(weave, 3 if quick else 40)


def _measured(sockets: Mapping[str, Path], rounds: int) -> dict[str, list[dict[str, float]]]:
    took: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
    for number in range(rounds + 1):
        for way, path in sockets.items():
            found = run(path, _WAYS[way])
            if number:  # the first of each is to warm up
                took[way].append(found)
    return took


def _shown(took: Mapping[str, list[dict[str, float]]]) -> Iterator[str]:
    yield f"{'ms, median of each call':26}" + "".join(f"{way:>12}" for way in took)
    for stage in (*_STAGES, "all"):
        medians = [statistics.median(one[stage] for one in runs) * 1000 for runs in took.values()]
        yield f"{stage:26}" + "".join(f"{median:12.1f}" for median in medians)


def _spent(weave: Launched, rounds: int) -> Iterator[str]:
    """Our processes' own time at a processor: what is told of it does not depend on how busy the machine is."""
    pids = [int(pid) for one in ("weaveproxy", "weave")
            for pid in weave.host.docker("top", one, "-eo", "pid").stdout.split()[1:]]
    for way, env in _WAYS.items():
        if way != "direct":
            before = sum(map(processor_time, pids))
            for _ in range(rounds):
                run(weave.socket, env)
            eventually(lambda: not weave.veths())
            yield f"processor time of proxy and router, {way}: " \
                  f"{(sum(map(processor_time, pids)) - before) / rounds * 1000:.1f} ms a run"


def processor_time(pid: int) -> float:
    """The seconds that a process's threads have spent at a processor (those that have ended are not in it)."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def run(path: Path, env: tuple[str, ...]) -> dict[str, float]:
    """One run, by the socket at ``path``: the seconds that each stage took."""
    marks = [time.perf_counter()]

    def done() -> None:
        marks.append(time.perf_counter())

    with Client(path) as main, Client(path) as attached, Client(path) as starting:
        main.ask("HEAD", "/_ping")
        done()
        container = json.loads(main.ask("POST", "/containers/create", _config(env)))["Id"]
        done()
        attached.send("POST", f"/containers/{container}/attach?stderr=1&stdout=1&stream=1", upgrade=True)
        attached.head()
        done()
        main.send("POST", f"/containers/{container}/wait?condition=removed")
        main.head()
        done()
        starting.ask("POST", f"/containers/{container}/start")
        done()
        attached.rest()
        done()
        main.rest_of_chunks()
        done()
    stages = {stage: after - before for stage, before, after in zip(_STAGES, marks, marks[1:], strict=False)}
    return {**stages, "all": marks[-1] - marks[0]}


def _config(env: tuple[str, ...]) -> bytes:
    return json.dumps({"Image": "busybox", "Cmd": ["true"], "Env": env, "AttachStdout": True, "AttachStderr": True,
                       "HostConfig": {"AutoRemove": True, "NetworkMode": "default"}}).encode()


class Client:
    """One connection to an engine's socket. Answers are small."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = b""

    def __enter__(self) -> Client:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of the answer."""
        self.send(method, path, body)
        head = self.head()
        if "content-length: " not in head or method == "HEAD":
            return b""
        return self._take(int(head.partition("content-length: ")[2].partition("\r")[0]))

    def send(self, method: str, path: str, body: bytes = b"", upgrade: bool = False) -> None:
        """One request."""
        more = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        self._socket.sendall(f"{method} {_API if path != '/_ping' else ''}{path} HTTP/1.1\r\nHost: docker\r\n{more}"
                             f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def head(self) -> str:
        """The answer's head, in small letters."""
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        if head[9:10] not in b"12":
            raise RuntimeError(head + self._read)
        return f"{head.decode().lower()}\r\n"

    def rest(self) -> None:
        """All until the end."""
        while self._socket.recv(65536):
            pass

    def rest_of_chunks(self) -> None:
        """The rest of an answer in chunks."""
        while not self._read.endswith(b"0\r\n\r\n"):
            self._receive()

    def _take(self, length: int) -> bytes:
        while len(self._read) < length:
            self._receive()
        taken, self._read = self._read[:length], self._read[length:]
        return taken

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the connection ended early")
        self._read += data
