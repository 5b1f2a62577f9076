"""Every WSGI server that one might think of: what works under it, and the table of docs/servers.md.

``python tests/transport/test_servers.py`` prints the table.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakedaemon import FakeDaemon, Request

_TESTS = Path(__file__).parents[1]
_DOCS = _TESTS.parent / "docs" / "servers.md"
_GUNICORN = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-b", "127.0.0.1:{port}", "serving:reading", "-k"]
_UWSGI = [shutil.which("uwsgi", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "uwsgi", "--need-app",
          "--die-on-term", "--module", "serving:reading", "--http-socket", "127.0.0.1:{port}"]
_PYTHON = [sys.executable, "-c"]

#: Name in the table, what must be installed, and the command.
SERVERS = {
    "ours (`weave launch-proxy`)": ("gunicorn", [*_GUNICORN, "weavemw.serving.worker.Worker", "--threads", "4"]),
    "gunicorn, sync": ("gunicorn", [*_GUNICORN, "sync"]),
    "gunicorn, gthread": ("gunicorn", [*_GUNICORN, "gthread", "--threads", "4"]),
    "gunicorn, gevent": ("gevent", [*_GUNICORN, "gevent"]),
    "Werkzeug, `run_simple`": ("werkzeug", [*_PYTHON, """
from werkzeug.serving import run_simple; import serving
run_simple("127.0.0.1", {port}, serving.reading)"""]),
    "Werkzeug, `threaded=True`": ("werkzeug", [*_PYTHON, """
from werkzeug.serving import run_simple; import serving
run_simple("127.0.0.1", {port}, serving.reading, threaded=True)"""]),
    "waitress": ("waitress", [*_PYTHON, """
import waitress, serving
waitress.serve(serving.reading, listen="127.0.0.1:{port}")"""]),
    "gevent, patched": ("gevent", [*_PYTHON, """
from gevent import monkey; monkey.patch_all()
from gevent.pywsgi import WSGIServer; import serving
WSGIServer(("127.0.0.1", {port}), serving.reading).serve_forever()"""]),
    "gevent, not patched": ("gevent", [*_PYTHON, """
from gevent.pywsgi import WSGIServer; import serving
WSGIServer(("127.0.0.1", {port}), serving.reading).serve_forever()"""]),
    "uWSGI, `--threads`": ("uwsgi", [*_UWSGI, "--threads", "8"]),
    "uWSGI": ("uwsgi", _UWSGI),
    "wsgiref": ("wsgiref", [*_PYTHON, """
from wsgiref.simple_server import make_server; import serving
make_server("127.0.0.1", {port}, serving.reading).serve_forever()"""]),
}

_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Daemon:
    """A daemon with one container: a wait ends with its start, logs go on until ``more``."""

    def __init__(self) -> None:
        self.started, self.more = threading.Event(), threading.Event()
        self.handlers = {"/containers/x/start": self._start, "/containers/x/wait": self._wait,
                         "/containers/x/logs": self._logs, "/containers/x/attach": self._attach}

    def _start(self, request: Request) -> None:
        self.started.set()
        request.answer(b"", "204 No Content")

    def _wait(self, request: Request) -> None:
        request.connection.sendall(_CHUNKED)
        if self.started.wait(10):
            request.connection.sendall(b"10\r\n{\"StatusCode\":0}\r\n0\r\n\r\n")
        raise ConnectionError

    def _logs(self, request: Request) -> None:
        request.connection.sendall(_CHUNKED + b"3\r\none\r\n")
        if self.more.wait(10):
            request.connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
        raise ConnectionError

    def _attach(self, request: Request) -> None:
        if request.header("upgrade"):
            request.connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            request.connection.sendall(b"out: " + (request.rest or request.connection.recv(100)))
        else:
            request.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nout: ")
        raise ConnectionError



class Served:
    """A server that serves, and the daemon behind it."""

    def __init__(self, port: int, daemon: Daemon) -> None:
        self.port = port
        self.daemon = daemon

    def ask(self, line: str, *headers: str, body: bytes = b"") -> socket.socket:
        """Send a request; the connection to read its answer from."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        lines = [f"{line} HTTP/1.1", "Host: docker", *headers]
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return client

    def answered(self, line: str, *headers: str, body: bytes = b"") -> str:
        """The status of an answer, and that it is Docker's or has a message."""
        with self.ask(line, *headers, "Connection: close", body=body) as client:
            return status_of(client)


def status_of(client: socket.socket) -> str:
    """Read a head; of a 501 the body too, which has to be a message."""
    head = _read_until(client, b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode()
    if status == "501":
        assert json.loads(_read_until(client, b"}"))["message"]
    return status


def _read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = client.recv(1)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


# Each says "yes", "501", or fails.

def _ping(served: Served) -> str:
    assert served.answered("GET /_ping") == "200"
    return "yes"


def _create_and_start(served: Served) -> str:
    assert served.answered("POST /containers/create", "Content-Length: 2", body=b"{}") == "200"
    assert served.answered("POST /containers/x/start", "Content-Length: 0") == "204"
    served.daemon.started.clear()
    return "yes"


def _wait_before_start(served: Served) -> str:
    with served.ask("POST /containers/x/wait", "Content-Length: 0", "Connection: close") as client:
        if status_of(client) == "501":
            return "501"
        assert served.answered("POST /containers/x/start", "Content-Length: 0") == "204"
        _read_until(client, b'"StatusCode":0')
    return "yes"


def _logs_as_they_come(served: Served) -> str:
    with served.ask("GET /containers/x/logs?follow=1&stdout=1", "Connection: close") as client:
        if status_of(client) == "501":
            return "501"
        _read_until(client, b"one")
        served.daemon.more.set()
        _read_until(client, b"two")
    return "yes"


def _attach(served: Served) -> str:
    with served.ask("POST /containers/x/attach?stream=1&stdout=1", "Content-Length: 0") as client:
        if status_of(client) == "501":
            return "501"
        _read_until(client, b"out: ")
    return "yes"


def _upgrade(served: Served) -> str:
    with served.ask("POST /containers/x/attach?stream=1&stdin=1&stdout=1", "Content-Length: 0", "Connection: Upgrade",
                    "Upgrade: tcp") as client:
        if status_of(client) == "501":
            return "501"
        client.sendall(b"in")
        _read_until(client, b"out: in")
    return "yes"


def _chunked_body(served: Served) -> str:
    status = served.answered("POST /build", "Transfer-Encoding: chunked", body=b"3\r\ntar\r\n0\r\n\r\n")
    return {"200": "yes", "501": "501"}[status]


COLUMNS: dict[str, Callable[[Served], str]] = {
    "ping": _ping, "create, start": _create_and_start, "wait before start": _wait_before_start,
    "logs -f": _logs_as_they_come, "attach, to watch": _attach, "attach, run -it, exec": _upgrade,
    "build, load": _chunked_body,
}


@contextlib.contextmanager
def serve(name: str, directory: Path) -> Iterator[Served]:
    """Start a server of the table."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = Daemon()
    argv = [argument.replace("{port}", str(port)) for argument in SERVERS[name][1]]
    path = os.pathsep.join([str(_TESTS.parent), str(_TESTS)])
    with FakeDaemon(directory / "daemon.sock", handlers=daemon.handlers) as fake, (directory / "log").open("wb") as log:
        child = subprocess.Popen(argv, stdout=log, stderr=log, cwd=_TESTS,
                                 env={**os.environ, "UPSTREAM": str(fake.path), "PYTHONPATH": path})
        try:
            _await_port(port, child, directory / "log")
            yield Served(port, daemon)
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            child.kill()
            child.wait()


def _await_port(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


def row(name: str, directory: Path) -> str:
    """A server's line in the table."""
    with serve(name, directory) as served:
        return f"| {name} | {' | '.join(column(served) for column in COLUMNS.values())} |"


def is_installed(name: str) -> bool:
    """Whether what the server needs is there."""
    needed = SERVERS[name][0]
    return bool(importlib.util.find_spec(needed) or (shutil.which(SERVERS[name][1][0]) and needed == "uwsgi"))


@pytest.mark.parametrize("name", SERVERS)
def test_the_table_of_servers(name: str, tmp_path: Path) -> None:
    """Everything works, or says at once that it does not; nothing hangs; the docs say which."""
    if not is_installed(name):
        pytest.skip(f"{SERVERS[name][0]} is not installed")
    assert row(name, tmp_path) in _DOCS.read_text().splitlines()


def _table() -> Iterator[str]:
    yield f"| server | {' | '.join(COLUMNS)} |"
    yield "| --- |" + " --- |" * len(COLUMNS)
    for name in SERVERS:
        with tempfile.TemporaryDirectory() as directory:
            yield row(name, Path(directory))


if __name__ == "__main__":
    for line in _table():
        print(line, flush=True)
