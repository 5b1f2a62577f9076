from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from weavemw.dockerapi import hosts
from weavemw.dockerapi.hosts import Tcp, Unix, parse, same_host
from weavemw.errors import SettingsError
from weavemw.serving import listeners


@pytest.mark.parametrize(("endpoint", "listener"), [
    pytest.param("tcp://127.0.0.1:9999", Tcp("127.0.0.1", 9999), id="as Docker writes it"),
    pytest.param("127.0.0.1:9999", Tcp("127.0.0.1", 9999), id="without scheme"),
    pytest.param(":9999", Tcp("0.0.0.0", 9999), id="a port means every address"),
    pytest.param("tcp://:9999", Tcp("0.0.0.0", 9999), id="a port with scheme"),
    pytest.param("tcp://[::1]:9999", Tcp("::1", 9999), id="IPv6 in brackets"),
    pytest.param("tcp://[]:9999", Tcp("::", 9999), id="empty brackets mean every IPv6 address"),
    pytest.param("tcp://host.example:1/", Tcp("host.example", 1), id="a name, and a slash"),
    pytest.param("unix:///var/run/weave.sock", Unix("/var/run/weave.sock"), id="unix socket"),
    pytest.param("/var/run/../weave.sock", Unix("/var/weave.sock"), id="a bare path, made plain"),
])
def test_an_endpoint_is_read_as_docker_reads_it(endpoint: str, listener: hosts.Host) -> None:
    """``[tcp://][address]:port`` and ``[unix://]/path`` are understood, and written back in full."""
    assert parse(endpoint) == listener
    assert parse(str(listener)) == listener


@pytest.mark.parametrize("endpoint", [
    "", "weave.sock", "tcp://127.0.0.1", "tcp://::1:80", "127.0.0.1:0", "127.0.0.1:65536", "http://127.0.0.1:80",
    "unix://relative", "tcp://host:80/path",
])
def test_what_is_no_endpoint_is_named_in_the_complaint(endpoint: str) -> None:
    """A listener that makes no sense is refused with the words that were given."""
    with pytest.raises(SettingsError, match="write tcp://address:port or unix:///path") as caught:
        parse(endpoint)
    assert repr(endpoint) in caught.value.message


@pytest.mark.parametrize(("one", "other", "same"), [
    pytest.param("tcp://0.0.0.0:5", "tcp://127.0.0.1:5", True, id="a wildcard is each address"),
    pytest.param("tcp://10.0.0.1:5", "tcp://127.0.0.1:5", False, id="two addresses"),
    pytest.param("tcp://0.0.0.0:5", "tcp://127.0.0.1:6", False, id="two ports"),
    pytest.param("/run/a.sock", "unix:///run/a.sock", True, id="two spellings"),
    pytest.param("/run/a.sock", "tcp://0.0.0.0:5", False, id="two kinds"),
])
def test_endpoints_are_compared_by_where_they_lead(one: str, other: str, same: bool) -> None:
    """Two endpoints are the same if a connection to either ends up at one socket."""
    assert same_host(parse(one), parse(other)) is same


def test_a_symbolic_link_does_not_hide_that_two_paths_are_one_socket(tmp_path: Path) -> None:
    """A loop through a link to Docker's socket is seen."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    assert same_host(Unix(f"{tmp_path}/var/x.sock"), Unix(f"{tmp_path}/run/x.sock"))


@pytest.fixture
def docker_socket(tmp_path: Path) -> Path:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(0o660)
    return path


def _bind(path: Path, like: Path) -> socket.socket:
    return listeners.bind(Unix(str(path)), like.stat())


def _access(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_a_unix_socket_is_open_to_whom_docker_is_open(tmp_path: Path, docker_socket: Path) -> None:
    """Owner, group and mode are those of Docker's socket, whatever the umask."""
    before = os.umask(0o022)
    try:
        with _bind(tmp_path / "weave.sock", docker_socket):
            assert _access(tmp_path / "weave.sock") == _access(docker_socket)
    finally:
        assert os.umask(before) == 0o022


@pytest.mark.root
@pytest.mark.parametrize("owner", [pytest.param(0, id="root's, as usual"), pytest.param(12345, id="another user's")])
def test_a_unix_socket_is_never_open_to_more_people(tmp_path: Path, docker_socket: Path, owner: int) -> None:
    """From the moment it exists nobody may use it who may not use Docker's socket; seen by looking all the time."""
    os.chown(docker_socket, owner, 54321)
    path, seen, done = tmp_path / "weave.sock", set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                seen.add(_access(path))
            except FileNotFoundError:
                continue

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(200):
        _bind(path, docker_socket).close()
    done.set()
    watcher.join()
    wanted = _access(docker_socket)
    closed = {(0, 0, 0), (0, owner, 54321)}
    assert wanted in seen
    assert seen <= {wanted} | (closed if owner else set())


def test_a_socket_file_on_which_nobody_listens_is_replaced(tmp_path: Path, docker_socket: Path) -> None:
    """What a killed proxy left behind is no obstacle."""
    _bind(tmp_path / "weave.sock", docker_socket).close()
    with _bind(tmp_path / "weave.sock", docker_socket) as sock:
        assert sock.getsockname() == str(tmp_path / "weave.sock")


def test_a_socket_on_which_somebody_listens_is_left_to_them(tmp_path: Path, docker_socket: Path) -> None:
    """A second proxy does not steal the first one's socket, even while its queue is full."""
    with _bind(tmp_path / "weave.sock", docker_socket) as first:
        with pytest.raises(SettingsError, match=rf"\(pid {os.getpid()}\) listens there already"):
            _bind(tmp_path / "weave.sock", docker_socket)
        first.accept()[0].close()


@pytest.mark.parametrize(("kind", "complaint"), [
    pytest.param("file", "something else, not a socket", id="a file"),
    pytest.param("directory", "something else, not a socket", id="a directory"),
    pytest.param("link", "a symbolic link", id="a link, even to a socket"),
])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, docker_socket: Path, kind: str, complaint: str) -> None:
    """A path that holds something else is refused, and what is there stays."""
    path = tmp_path / "weave.sock"
    make = {"file": path.touch, "directory": path.mkdir, "link": lambda: path.symlink_to(docker_socket)}
    make[kind]()
    before = path.lstat().st_ino
    with pytest.raises(SettingsError, match=complaint):
        _bind(path, docker_socket)
    assert path.lstat().st_ino == before


def test_a_directory_that_is_not_there_is_named(tmp_path: Path, docker_socket: Path) -> None:
    """The complaint says which listener can't be had, and why."""
    with pytest.raises(SettingsError, match=r"can't listen on unix://.*/none/w.sock: No such file or directory"):
        _bind(tmp_path / "none/w.sock", docker_socket)


def test_a_port_that_is_taken_is_named(docker_socket: Path) -> None:
    """The complaint says which address is in use."""
    like = docker_socket.stat()
    with socket.create_server(("127.0.0.1", 0)) as other:
        there = Tcp(*other.getsockname())
        with pytest.raises(SettingsError, match=rf"{there}: .*\(pid {os.getpid()}\) listens there already"):
            listeners.bind(there, like)


def test_tcp_listeners_send_at_once(docker_socket: Path) -> None:
    """Nagle's algorithm is off, for connections inherit it: small writes must not be held back."""
    with listeners.bind(Tcp("::1", _free_port("::1")), docker_socket.stat()) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(("answer", "serves"), [
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", True, id="Docker answers"),
    pytest.param(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", False, id="Docker is away"),
    pytest.param(b"", False, id="silence"),
])
def test_a_ping_is_answered_by_docker_or_it_is_none(tmp_path: Path, answer: bytes, serves: bool) -> None:
    """Only status 200 counts as serving."""
    path = tmp_path / "w.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_answer, args=(server, answer))
        thread.start()
        assert listeners.ping(Unix(str(path))) is serves
        thread.join()


def test_nobody_answers_where_nobody_listens(tmp_path: Path) -> None:
    """A socket that is not there, and one that is left over, don't serve."""
    assert not listeners.ping(Unix(str(tmp_path / "w.sock")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Tcp(*server.getsockname())
    assert not listeners.ping(there)


def _answer(server: socket.socket, answer: bytes) -> None:
    with server.accept()[0] as client:
        client.recv(4096)
        client.sendall(answer)


def test_a_directory_that_is_everybodys_is_refused(tmp_path: Path) -> None:
    """Anybody could replace the socket there; where only owners may remove, as in /tmp, nobody can."""
    tmp_path.chmod(0o777)
    with pytest.raises(SettingsError, match="everybody could put a socket of their own in our place"):
        listeners.bind(Unix(f"{tmp_path}/weave.sock"), tmp_path.stat())
    tmp_path.chmod(0o1777)
    listeners.bind(Unix(f"{tmp_path}/weave.sock"), tmp_path.stat()).close()
