from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weavemw.dockerapi import hosts
from weavemw.dockerapi.hosts import Unix
from weavemw.errors import SettingsError
from weavemw.ops import run_file
from weavemw.serving import listeners, program
from weavemw.settings import Settings

#: The proxy with an app in place of its stack, and nothing to watch.
_PROXY = """
import json, sys
from weavemw.serving import program, worker
from weavemw.settings import Settings

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fails":
        raise RuntimeError("secret")
    body = json.dumps({"path": environ["PATH_INFO"], "script": environ["SCRIPT_NAME"],
                       "scheme": environ["wsgi.url_scheme"], "long": len(environ.get("HTTP_LONG", ""))}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

worker._start_watching = lambda settings, worker: None
program.serve(Settings.from_mapping(json.loads(sys.argv[1])), lambda: app)
"""

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def values(tmp_path: Path) -> dict[str, object]:
    """Settings of a proxy on a unix socket and a free port, beside a Docker socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind(str(tmp_path / "docker.sock"))
    (tmp_path / "docker.sock").chmod(0o660)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {"docker_host": f"unix://{tmp_path}/docker.sock", "state_dir": f"{tmp_path}/state",
            "run_dir": f"{tmp_path}/run", "listeners": f"{tmp_path}/weave.sock 127.0.0.1:{port}", "workers": "1"}


@pytest.fixture
def start(values: dict[str, object], tmp_path: Path) -> Iterator[Start]:
    """Starts the proxy, and waits until it serves."""
    with contextlib.ExitStack() as stack:
        def begin() -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "log").open("a"))
            child = subprocess.Popen([sys.executable, "-c", _PROXY, json.dumps(values)], stderr=log, text=True)
            stack.callback(child.wait, 10)
            stack.callback(child.kill)
            _wait_until(lambda: child.poll() is not None or listeners.ping(Unix(str(tmp_path / "weave.sock"))))
            return child

        yield begin


def _wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _exchange(path: Path, request: bytes) -> tuple[str, str, bytes] | None:
    """Status line, the head's other lines and body of the answer; ``None`` if nobody listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        if sock.connect_ex(str(path)):
            return None
        sock.sendall(request)
        with sock.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    status, _, rest = head.decode().partition("\r\n")
    return status, rest, body


def _get(path: Path, target: str, *headers: str) -> tuple[str, str, bytes] | None:
    lines = [f"GET {target} HTTP/1.1", "Host: docker", "Connection: close", *headers, "", ""]
    return _exchange(path, "\r\n".join(lines).encode())


@pytest.mark.root
def test_it_serves_on_every_listener_until_it_is_told_to_stop(start: Start, tmp_path: Path,
                                                              values: dict[str, object]) -> None:
    """SIGTERM ends it with status 0, within its grace, and no socket file stays."""
    proxy = start()
    where = [hosts.parse(each) for each in str(values["listeners"]).split()]
    assert all(map(listeners.ping, where))
    assert stat.S_IMODE((tmp_path / "weave.sock").stat().st_mode) == 0o660
    assert (run_file.running(tmp_path / "run/proxy.json") or {})["pid"] == proxy.pid
    proxy.send_signal(signal.SIGTERM)
    assert proxy.wait(10) == 0
    assert not (tmp_path / "weave.sock").exists()
    assert run_file.running(tmp_path / "run/proxy.json") is None


@pytest.mark.root
def test_it_may_open_as_many_files_as_the_system_allows(start: Start) -> None:
    """The soft limit, often 1024, becomes the hard one: each stream takes two descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        proxy = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.root
def test_it_starts_again_at_once_after_it_was_killed(start: Start, tmp_path: Path) -> None:
    """A killed master takes its workers along: its socket, its port and its run file are free."""
    killed = start()
    killed.kill()
    killed.wait()
    again = start()
    assert again.poll() is None
    assert _get(tmp_path / "weave.sock", "/") is not None


@pytest.mark.root
def test_it_takes_up_its_configuration_again_without_closing_its_listeners(start: Start, tmp_path: Path) -> None:
    """SIGHUP gives new workers the sockets that are there."""
    proxy = start()
    before = (tmp_path / "weave.sock").stat().st_ino
    proxy.send_signal(signal.SIGHUP)
    _wait_until(lambda: "Hang up" in (tmp_path / "log").read_text())
    assert _get(tmp_path / "weave.sock", "/") is not None
    assert (tmp_path / "weave.sock").stat().st_ino == before


@pytest.mark.root
@pytest.mark.parametrize(("request_", "status", "message"), [
    pytest.param(b"GARBAGE\r\n\r\n", 400, "malformed HTTP request", id="no HTTP"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (2 << 20) + b"\r\n\r\n", 431,
                 "Request Header Fields Too Large", id="a header that is too large"),
    pytest.param(b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n", 500, "the weave proxy failed; its log says why",
                 id="a mistake of our own"),
])
def test_every_answer_is_one_that_docker_clients_can_show(start: Start, tmp_path: Path, request_: bytes, status: int,
                                                          message: str) -> None:
    """What the server itself refuses is JSON with a message, and the connection ends."""
    start()
    answer = _exchange(tmp_path / "weave.sock", request_)
    assert answer is not None
    line, head, body = answer
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert "Content-Type: application/json" in head
    assert "Connection: close" in head
    assert json.loads(body)["message"] == message


@pytest.mark.root
def test_long_heads_are_read(start: Start, tmp_path: Path) -> None:
    """Filters in the request line and logins in a header may have 100 KB each."""
    start()
    answer = _get(tmp_path / "weave.sock", "/?" + "f" * 100_000, "Long: " + "x" * 100_000)
    assert answer is not None
    assert json.loads(answer[2])["long"] == 100_000


@pytest.mark.root
def test_a_client_says_what_it_wants_by_the_request_line_alone(start: Start, tmp_path: Path) -> None:
    """Headers that servers believe from proxies in front of them change neither path nor scheme."""
    start()
    answer = _get(tmp_path / "weave.sock", "/containers/create", "PATH_INFO: /_ping", "SCRIPT_NAME: /containers",
                  "X-Forwarded-Proto: https")
    assert answer is not None
    assert json.loads(answer[2]) == {"path": "/containers/create", "script": "", "scheme": "http", "long": 0}


def test_a_listener_that_is_dockers_socket_is_refused(values: dict[str, object], tmp_path: Path) -> None:
    """The proxy can't be made to talk to itself."""
    settings = Settings.from_mapping(values | {"listeners": f"{tmp_path}/docker.sock"})
    with pytest.raises(SettingsError, match="the proxy would talk to itself"):
        program.bind_all(settings)


def test_a_docker_that_is_not_there_is_named(values: dict[str, object], tmp_path: Path) -> None:
    """Without Docker's socket nobody knows who may use ours."""
    os.unlink(tmp_path / "docker.sock")
    with pytest.raises(SettingsError, match=f"no Docker at {tmp_path}/docker.sock: No such file or directory"):
        program.bind_all(Settings.from_mapping(values))


def test_either_all_listeners_are_had_or_none(values: dict[str, object], tmp_path: Path) -> None:
    """When the second one fails, the first one's socket file goes with it."""
    settings = Settings.from_mapping(values | {"listeners": f"{tmp_path}/weave.sock {tmp_path}/none/weave.sock"})
    with pytest.raises(SettingsError, match="none/weave"):
        program.bind_all(settings)
    assert not (tmp_path / "weave.sock").exists()


def test_tcp_without_tls_is_said_out_loud(values: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    """One line, with the listeners and with the way to open none."""
    program.close_all(program.bind_all(Settings.from_mapping(values)))
    (line,) = caplog.messages
    assert "without TLS" in line
    assert "weave launch-proxy -H unix:///var/run/weave.sock" in line
