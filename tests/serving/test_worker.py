"""What we use of gunicorn, and what a worker does when one of its threads dies."""

from __future__ import annotations

import ast
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.base import Worker as GunicornWorker

from weavemw.serving import worker
from weavemw.settings import Settings

_PACKAGE = Path(worker.__file__).parents[1]


def test_only_one_file_knows_gunicorn() -> None:
    """All others would break unseen with a new version."""
    importing = [path.relative_to(_PACKAGE).as_posix() for path in _PACKAGE.rglob("*.py")
                 for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.ImportFrom | ast.Import)
                 for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names])
                 if name.split(".")[0] == "gunicorn"]
    assert set(importing) == {"serving/worker.py"}


def test_the_contract_with_its_worker_class() -> None:
    """Every attribute that our worker takes from gunicorn's is there, and means what we think."""
    assert list(inspect.signature(GunicornWorker.__init__).parameters) == [
        "self", "age", "ppid", "sockets", "app", "timeout", "cfg", "log"]
    given = inspect.getsource(GunicornWorker)
    for attribute in ("self.ppid = ppid", "self.sockets = sockets", "self.cfg = cfg", "self.log = log",
                      "self.alive = True", "self.PIPE = os.pipe()", "self.wsgi = self.app.wsgi()",
                      "signal.set_wakeup_fd(self.PIPE[1])", "util.set_non_blocking(p)"):
        assert attribute in given, attribute
    handle_exit = inspect.getsource(GunicornWorker.handle_exit)
    assert "self.alive = False" in handle_exit
    assert callable(GunicornWorker.notify)
    used = {node.attr for node in ast.walk(ast.parse(inspect.getsource(worker.Worker).lstrip()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"}
    ours = {"allowed", "front", "tally", "_sleep", "_thread_died"}
    assert used - ours == {"PIPE", "alive", "cfg", "log", "notify", "ppid", "sockets", "wsgi"}


def test_the_contract_with_its_settings_and_arbiter() -> None:
    """Each setting is one of gunicorn's, of the right kind; the arbiter takes an application."""
    config = Config()
    for name, value in (worker.options(Settings()) | {"bind": ["fd://3"]}).items():
        config.set(name, value)
    for name in ("threads", "worker_connections", "workers", "graceful_timeout"):
        assert isinstance(getattr(config, name), int)
    assert list(inspect.signature(Arbiter.__init__).parameters) == ["self", "app"]
    assert {"load", "load_config"} <= set(vars(BaseApplication))


_DYING = """
import json, sys, threading
from weavemw.serving import program, worker
from weavemw.settings import Settings

def die():
    raise RuntimeError("out of luck")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/die":
        threading.Thread(target=die, name="relay").start()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"OK"]

worker._start_watching = lambda settings, worker: None
program.serve(Settings.from_mapping(json.loads(sys.argv[1])), lambda: app)
"""


@pytest.mark.root
def test_a_worker_whose_thread_dies_is_replaced(tmp_path: Path) -> None:
    """And the log says which thread, and of what."""
    import json
    import socket

    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind(str(tmp_path / "docker.sock"))
    values = {"docker_host": f"unix://{tmp_path}/docker.sock", "state_dir": f"{tmp_path}/state", "workers": "1",
              "run_dir": f"{tmp_path}/run", "listeners": f"{tmp_path}/weave.sock"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", _DYING, json.dumps(values)], stderr=log)
    try:
        first = _eventually(lambda: _worker_of(process.pid))
        assert _eventually(lambda: _get(tmp_path / "weave.sock", "/die"))
        assert _eventually(lambda: (pid := _worker_of(process.pid)) and pid != first)
        assert _eventually(lambda: _get(tmp_path / "weave.sock", "/"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)
    assert "thread relay died of RuntimeError('out of luck')" in (tmp_path / "log").read_text()


def _worker_of(master: int) -> int:
    try:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def _get(path: Path, target: str) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode())
            return client.recv(100).startswith(b"HTTP/1.1 200 OK")
        except OSError:
            return False


def _eventually(condition: Any) -> Any:
    deadline = time.monotonic() + 20
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_a_thread_that_dies_ends_the_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever thread it was: the process ends, and says so."""
    made = worker.Worker.__new__(worker.Worker)
    said: list[str] = []
    made.alive, made.PIPE = True, os.pipe()
    made.log = type("Log", (), {"critical": lambda self, text, *args, **more: said.append(text % args)})()
    thread = threading.Thread(name="tls")
    made._thread_died(threading.ExceptHookArgs((RuntimeError, RuntimeError("x"), None, thread)))
    assert not made.alive
    assert os.read(made.PIPE[0], 1) == b"1"
    assert said == ["thread tls died of RuntimeError('x'): this process ends, and another takes its place"]
    for fd in made.PIPE:
        os.close(fd)
