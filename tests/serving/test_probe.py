from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fakedaemon import FakeDaemon

from weavemw.ops.watcher_state import STATE_FILE, StateFile
from weavemw.serving.probe import complaint


class _Router(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/status" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def router() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Router) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_router_that_answers_is_healthy(router: str) -> None:
    """It is found among the arguments that the router was launched with."""
    assert complaint(["--no-dns", f"--http-addr={router}"], {}) == ""


def test_a_router_that_does_not_is_not() -> None:
    """The address stands in the line that `docker inspect` shows."""
    assert complaint(["--http-addr=127.0.0.1:1"], {}).startswith("http://127.0.0.1:1: ")


@pytest.fixture
def environ(tmp_path: Path, router: str) -> dict[str, str]:
    """Settings of a proxy whose watcher follows Docker's events, and whose router answers."""
    file = StateFile(tmp_path)
    with file.changing() as state:
        state.connected = True
    file.write()
    return {"WEAVEMW_RUN_DIR": str(tmp_path), "WEAVEMW_ROUTER_ADDRESS": router}


def test_a_proxy_is_healthy_when_docker_answers_through_each_listener(tmp_path: Path, environ: dict[str, str]) -> None:
    """The listeners are those of the environment; those that do not answer are named."""
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    with FakeDaemon(one):
        assert complaint([], environ | {"WEAVEMW_LISTENERS": f"unix://{one}"}) == ""
        assert complaint([], environ | {"WEAVEMW_LISTENERS": f"unix://{one} unix://{two}"}) == \
            f"nothing answers at unix://{two}"


def test_a_proxy_is_ill_with_its_watcher_or_its_router(tmp_path: Path, environ: dict[str, str]) -> None:
    """Both are named."""
    with FakeDaemon(tmp_path / "sock"):
        environ |= {"WEAVEMW_LISTENERS": f"unix://{tmp_path}/sock"}
        assert complaint([], environ | {"WEAVEMW_ROUTER_ADDRESS": "127.0.0.1:1"}).startswith("http://127.0.0.1:1: ")
        (tmp_path / STATE_FILE).unlink()
        assert complaint([], environ) == "it does not follow Docker's events: not yet"


def test_as_a_program_it_ends_with_the_answer(tmp_path: Path, environ: dict[str, str]) -> None:
    """1 and a line for Docker, or 0 and nothing."""
    def ask() -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "weavemw.probe"], capture_output=True, text=True,
                              env={**os.environ, **environ, "WEAVEMW_LISTENERS": f"unix://{tmp_path}/sock"})
        return done.returncode, done.stdout + done.stderr

    assert ask() == (1, f"nothing answers at unix://{tmp_path}/sock\n")
    with FakeDaemon(tmp_path / "sock"):
        assert ask() == (0, "")
