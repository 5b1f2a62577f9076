from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from weavemw.errors import SettingsError
from weavemw.ops.run_dir import router_at

ROOT = Path(__file__).parents[2]


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("weave", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(connection: http.client.HTTPConnection, method: str, path: str, **headers: str) -> tuple[int, str]:
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return reply.status, reply.read().decode().strip()
    finally:
        connection.close()


def _tcp(router: Any) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(router.address, timeout=10)


def _unix(router: Any) -> _Unix:
    return _Unix(router.settings.at.socket)


@pytest.fixture
def docker_socket(tmp_path: Path) -> Iterator[Path]:
    """A socket that stands for Docker's."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o620)
        yield path


def test_the_socket_is_as_dockers(start: Callable[..., Any], docker_socket: Path) -> None:
    """Owner, group and mode; it is gone with the router, and one that a killed router left is no obstacle."""
    if os.geteuid() == 0:
        os.chown(docker_socket, 0, 4242)
    router = start(docker_host=f"unix://{docker_socket}")
    path = router.settings.at.socket
    found, like = path.stat(), docker_socket.stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (like.st_mode, like.st_uid, like.st_gid)
    assert _ask(_unix(router), "POST", "/ip/abc") == (200, "10.32.0.1/12")
    assert _ask(_tcp(router), "GET", "/ip/abc") == (200, "10.32.0.1/12")
    router.stop()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert _ask(_unix(start(docker_host=f"unix://{docker_socket}")), "GET", "/ip/abc")[0] == 200


def test_without_docker_it_is_for_root(start: Callable[..., Any]) -> None:
    """Whose group it should be can't be known."""
    router = start(docker_host="unix:///none")
    path = router.settings.at.socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _ask(_unix(router), "GET", "/domain") == (200, "weave.local.")


def test_each_address_has_a_socket_of_its_own(tmp_path: Path) -> None:
    """So nobody takes one router for another."""
    assert router_at(tmp_path, "127.0.0.1:6784").socket == tmp_path / "router.sock"
    assert router_at(tmp_path, "10.0.0.1:6784").socket == tmp_path / "router-10.0.0.1:6784.sock"


def test_a_run_directory_that_others_can_write_is_refused(start: Callable[..., Any], tmp_path: Path) -> None:
    """They could put a socket of theirs there."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SettingsError, match="open can be written by others"):
        start(run_dir=tmp_path / "open")


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/ip/abc"), ("PUT", "/ip/abc/10.32.0.9/12"), ("DELETE", "/ip/abc"), ("DELETE", "/name"),
    ("PUT", "/name/abc/10.32.0.9?fqdn=a.weave.local"), ("POST", "/connect"), ("POST", "/forget"),
    ("DELETE", "/peer/1")])
def test_read_only_by_tcp(start: Callable[..., Any], method: str, path: str) -> None:
    """Changes are refused there, and made by the unix socket; questions are answered at both."""
    router = start(http_read_only=True)
    assert _ask(_tcp(router), method, path) == (
        403, "only the router's unix socket takes changes (--http-read-only)")
    assert _ask(_tcp(router), "GET", "/ip") == (200, '{"owned": []}')
    assert _ask(_unix(router), method, path)[0] in (200, 204, 400)


@pytest.mark.parametrize(("headers", "status"), [
    pytest.param({"Host": "127.0.0.1:6784"}, 200, id="address"),
    pytest.param({"Host": "[::1]:6784"}, 200, id="address of IPv6"),
    pytest.param({"Host": "localhost:6784"}, 200, id="localhost"),
    pytest.param({"Host": f"{socket.gethostname().upper()}:6784"}, 200, id="the host's name"),
    pytest.param({"Host": ""}, 200, id="none"),
    pytest.param({"Host": "evil.example.net:6784"}, 403, id="a name that was made to point here"),
    pytest.param({"Host": "login:6784"}, 403, id="one without a dot"),
    pytest.param({"Origin": "http://127.0.0.1:6784"}, 403, id="a page, even one of ours"),
    pytest.param({"Origin": "null"}, 403, id="a page without origin"),
    pytest.param({"Sec_Fetch_Site": "cross-site"}, 403, id="a picture on another site"),
    pytest.param({"Sec_Fetch_Site": "none"}, 200, id="typed by the user"),
])
def test_web_pages_get_nothing(start: Callable[..., Any], headers: dict[str, str], status: int) -> None:
    """By TCP. No browser reaches a unix socket, whose clients may write into the headers what they like."""
    router = start()
    for path in ("/report", "/none"):
        by_tcp, text = _ask(_tcp(router), "GET", path, **headers)
        assert by_tcp == (404 if (status, path) == (200, "/none") else status), text
    assert _ask(_unix(router), "GET", "/report", **headers)[0] == 200


def test_what_can_not_be_read_is_no_trouble(start: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """It is the sender's: a line without what was sent, and not among the last errors."""
    caplog.set_level("INFO")
    router = start()
    host, _, port = router.address.partition(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(b"GET / HTTP/9.9\r\nX-Secret: geheim\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.0 400"
    said = [record for record in caplog.records if record.name == "weavemw.router.listening"]
    assert [(record.levelname, record.getMessage(), record.exc_info) for record in said] == [
        ("INFO", "refused a request that can't be read: BadStatusLine", None)]


def test_idle_connections_take_nothing_from_others(tmp_path: Path) -> None:
    """Whether they say nothing, begin a request or leave one unread; whatever descriptors there are to begin with."""
    with ExitStack() as stack:
        run, address = tmp_path / "run", f"127.0.0.1:{_free_port()}"
        command = [sys.executable, "-m", "weavemw.router", f"--state-dir={tmp_path}/state", f"--run-dir={run}",
                   f"--http-addr={address}", "--bridge=", "--no-dns", "--force"]
        router = stack.enter_context(subprocess.Popen(["prlimit", "--nofile=256:4096", *command], cwd=ROOT,
                                                      stderr=subprocess.PIPE))
        stack.callback(router.send_signal, signal.SIGTERM)
        assert router.stderr
        assert any(b"the router serves" in line for line in router.stderr)
        host, _, port = address.partition(":")
        for number in range(1200):
            sock = stack.enter_context(socket.create_connection((host, int(port)), 10))
            sock.sendall((b"", b"GET /status HT", b"POST /connect HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
                          b"GET /report HTTP/1.1\r\nHost: 1.2.3.4\r\n\r\n" * 9)[number % 4])
        assert _ask(http.client.HTTPConnection(address, timeout=20), "GET", "/domain") == (200, "weave.local.")
        assert _ask(_Unix(router_at(run, address).socket), "GET", "/domain") == (200, "weave.local.")
        assert len(os.listdir(f"/proc/{router.pid}/fd")) < 700


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
