"""The whole proxy as it is launched, in front of a daemon that notes what it would do; for attacks and fuzzing."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from fakedaemon import FakeDaemon, Request

from weavemw.dockerapi.wait_mount import path_in

_PROXY = """
import json, sys
from weavemw.serving import program, worker
from weavemw.settings import Settings

worker._start_watching = lambda settings, worker: None
program.serve(Settings.from_mapping(json.loads(sys.argv[1])))
"""
_IMAGE = json.dumps({"Id": "i1", "Config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}}).encode()


class Attacked:
    """A proxy on a unix socket and a TCP port; ``seen`` is what the daemon was asked on behalf of clients."""

    def __init__(self, directory: Path, daemon: FakeDaemon) -> None:
        self.path, self.log = directory / "weave.sock", directory / "log"
        self.daemon = daemon

    @property
    def seen(self) -> list[Request]:
        return [request for request in self.daemon.requests if not request.path.endswith("/images/busybox/json")]

    def send(self, data: bytes, *, after: Callable[[], object] | None = None, timeout: float = 10) -> bytes:
        """Send bytes and half-close, ``after`` something if it happens soon; everything that comes back."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout)
            client.connect(str(self.path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(data)
                _await(after or bool, 2 if after else 0)
                client.shutdown(socket.SHUT_WR)
            return _read_all(client)

    def answers(self) -> bool:
        try:
            return b"200 OK" in self.send(b"GET /_ping HTTP/1.0\r\n\r\n", after=lambda: self.seen)
        except (FileNotFoundError, ConnectionRefusedError):  # it is not bound yet, or does not listen yet
            return False


def _await(condition: Callable[[], object], within: float) -> bool:
    deadline = time.monotonic() + within
    while not (found := bool(condition())) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _read_all(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            answer += data
    return answer


def creates(request: Request) -> bool:
    """Whether the daemon, at its most generous, would take the request as a create with a configuration."""
    return is_create_target(request.line) and _json(request.body) is not None


def is_create_target(line: str) -> bool:
    """By Go's rules for the path, redirects taken as followed."""
    method, target = line.split(" ")[:2]
    target = re.sub("^[a-z]+://[^/?]*", "", target)
    path = unquote_to_bytes(target.partition("?")[0])
    clean = posixpath.normpath("/" + path.decode("latin-1").lstrip("/"))
    parts = clean.split("/")
    if len(parts) > 1 and parts[1][:1] == "v" and parts[1][1:].replace(".", "").isdigit():
        parts = ["", *parts[2:]]
    return method == "POST" and "/".join(parts) == "/containers/create" and not path.endswith(b"/")


def is_wrapped(request: Request) -> bool:
    """Whether the command waits for its network: one Entrypoint, in whichever case, that begins with our program."""
    found = [value for key, value in _json(request.body) or () if key.lower() == "entrypoint"]
    return len(found) == 1 and isinstance(found[0], list) and bool(found[0]) and bool(path_in(str(found[0][0])))


def _json(body: bytes) -> list[tuple[str, object]] | None:
    try:
        value, _ = json.JSONDecoder(object_pairs_hook=list).raw_decode(body.decode(errors="replace").lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value) else None


def _answer(request: Request) -> None:
    try:
        request.read_body()
    except AssertionError as error:  # trailers, which this daemon does not know
        raise ConnectionError from error
    if request.path.endswith("/images/busybox/json"):
        request.answer(_IMAGE)
    elif "/attach" in request.path:
        request.connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        request.connection.settimeout(1)
        while request.connection.recv(1 << 16):
            pass
        raise ConnectionError
    elif is_create_target(request.line):
        request.answer(b'{"Id":"c1","Warnings":[]}', "201 Created")
    elif "/json" in request.path:
        request.answer(b'{"message":"No such container"}', "404 Not Found")
    else:
        request.answer()


@contextlib.contextmanager
def attacked(directory: Path, **values: str) -> Iterator[Attacked]:
    """Start one, and end it."""
    settings = {"docker_host": f"unix://{directory}/docker.sock", "state_dir": f"{directory}/state",
                "run_dir": f"{directory}/run", "listeners": f"{directory}/weave.sock", "workers": "1",
                "with_dns": "false", "log_level": "debug", **values}
    with FakeDaemon(directory / "docker.sock", handlers={"": _answer}) as daemon, (directory / "log").open("w") as log:
        child = subprocess.Popen([sys.executable, "-c", _PROXY, json.dumps(settings)], stderr=log,
                                 cwd=Path(__file__).parents[1])
        proxy = Attacked(directory, daemon)
        try:
            assert _await(lambda: child.poll() is not None or proxy.answers(), 20)
            assert child.poll() is None, proxy.log.read_text()
            daemon.requests.clear()
            yield proxy
        finally:
            child.terminate()
            child.wait(10)
