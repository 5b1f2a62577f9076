"""Every docker command through the proxy, on a real engine: what it prints and returns is what it does without."""

from __future__ import annotations

import base64
import gc
import json
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pexpect
import pytest
from host import TestHost

from weavemw.dockerapi.hosts import Unix
from weavemw.serving import listeners

pytestmark = [pytest.mark.root, pytest.mark.engine]

_ROOT = Path(__file__).parents[2]
_SERVERS = {
    "gthread": ["python", "-m", "weavemw.server"],
    "sync": ["gunicorn", "-k", "sync", "-b", "unix:{path}", "weavemw.app:proxy"],
}


class Proxy:
    """The proxy on a host, and the same host without it."""

    def __init__(self, host: TestHost, path: Path, log: Path) -> None:
        self.host = host
        self.path = path
        self.via = f"unix://{path}"
        self.log = log

    def docker(self, *args: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """The docker CLI through the proxy; containers are left off the weave network."""
        return self.host.docker(*args, host=self.via, **options)

    def client(self, version: str = "auto") -> docker.DockerClient:
        """docker-py through the proxy."""
        return docker.DockerClient(base_url=self.via, version=version, timeout=30)

    def spawn(self, *args: str) -> pexpect.spawn:
        """The docker CLI at a terminal."""
        argv = self.host.argv("docker", "-H", self.via, *args)
        return pexpect.spawn(argv[0], argv[1:], env=self.host.environ(), timeout=20, dimensions=(24, 80))


@contextmanager
def _serving(host: TestHost, server: str) -> Iterator[Proxy]:
    path, log = host.dir / f"{server}.sock", host.dir / f"{server}.log"
    environ = {"PYTHONPATH": str(_ROOT), "WEAVEMW_LISTENERS": f"unix://{path}"}
    with log.open("wb") as output:
        process = host.popen(*(arg.format(path=path) for arg in _SERVERS[server]), env=environ, stdout=output,
                             stderr=output)
    try:
        assert _eventually(lambda: listeners.ping(Unix(str(path)))), log.read_text()
        yield Proxy(host, path, log)
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def host(make_module_host: Callable[[], TestHost]) -> Iterator[TestHost]:
    """A host with a router."""
    with_router = make_module_host()
    weave = ("python", "-m", "weavemw.cli")
    with_router.run(*weave, "launch-router", env={"PYTHONPATH": str(_ROOT)})
    yield with_router
    with_router.run(*weave, "stop-router", env={"PYTHONPATH": str(_ROOT)})


@pytest.fixture(scope="module", params=_SERVERS)
def proxy(host: TestHost, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """The proxy under its own server, and under one that handles one request at a time."""
    with _serving(host, request.param) as served:
        yield served
    assert "Traceback" not in served.log.read_text()


def _eventually(condition: Callable[[], object], within: float = 20) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# -- compared with the daemon ----------------------------------------------------------------------------------------

_RUN = "run -e WEAVE_CIDR=none"
_BOX = f"{_RUN} -d --name box busybox sleep 9999"

#: Lines of docker commands; what stands before `|` is their input.
_SCRIPTS = {
    "run": [f"{_RUN} --rm busybox echo out", f"{_RUN} --rm busybox sh -c 'echo err >&2; exit 3'",
            f"{_RUN} --rm busybox /missing", f"{_RUN} --rm busybox /etc", f"{_RUN} --rm missing:image"],
    "run -i": [f"some input | {_RUN} --rm -i busybox cat", f"| {_RUN} --rm -i busybox wc -c",
               f"{_RUN} --rm -i --init --user nobody --read-only busybox id"],
    "run, much output": [f"{_RUN} --rm busybox sh -c 'seq 200000; seq 100 >&2'"],
    "create, start, attach, wait, rm": [
        "create -e WEAVE_CIDR=none -i --name box busybox sh -c 'cat; exit 4'", "in | start -ai box", "wait box",
        "start box", "in | attach box", "logs box", "rm box", "rm box"],
    "exec": [_BOX, "in | exec -i box cat", "exec box sh -c 'exit 5'", "exec -d box true", "exec box missing",
             "exec -e X=1 -w /tmp -u nobody box sh -c 'echo $X; pwd; id'", "exec nobox true", "rm -f box"],
    "logs": [f"{_RUN} --name box busybox sh -c 'echo a; echo b >&2; sleep 0.2; echo c'", "logs box",
             "logs -f --tail 1 box", "logs nobox", "rm box"],
    "cp": [_BOX, "cp {file} box:/tmp/file", "exec box sha256sum /tmp/file", "cp box:/tmp/file {copy}",
           "cp box:/missing {copy}", "cp {file} box:/missing/x/y", "rm -f box"],
    "save, load": ["save -o {tar} busybox", "load -i {tar}", "tag busybox saved", "rmi saved", "rmi saved"],
    "import, commit, history": [
        _BOX, "commit -m message -c 'ENV A=b' box committed", "inspect -f '{{{{.Config.Env}}}}' committed",
        f"{_RUN} --rm committed sh -c 'echo $A'", "history --format '{{{{.CreatedBy}}}}' committed",
        "rmi -f committed", "rm -f box", "import {root} imported", "rmi imported"],
    "stop, kill, pause, restart": [
        f"{_RUN} -d --name box --stop-timeout 1 busybox sleep 9999", "pause box", "unpause box", "kill -s USR1 box",
        "stop -t 0 box", "inspect -f '{{{{.State.ExitCode}}}}' box", "start box", "restart -t 0 box", "kill box",
        "kill box", "rm box"],
    "top, diff, rename, update, port, inspect": [
        f"{_RUN} -d --name box -p 127.0.0.1:18080:80 busybox sleep 9999", "top box -o comm", "exec box touch /new",
        "diff box", "port box", "update --memory 64m --memory-swap 64m box", "rename box other",
        "inspect -f '{{{{.Name}}}} {{{{.HostConfig.Memory}}}}' other", "inspect nobox", "rm -f other"],
    "stats, ps": [_BOX, "stats --no-stream --format '{{{{.Name}}}}' box", "ps -a --filter name=box --format "
                  "'{{{{.Names}}}} {{{{.Image}}}}'", "rm -f box"],
    "network": ["network create --subnet 172.31.0.0/24 net", f"{_RUN} --rm --network net busybox true", _BOX,
                "network connect net box", "network inspect -f '{{{{range .Containers}}}}{{{{.Name}}}}{{{{end}}}}' net",
                "network rm net", "network disconnect -f net box", "network rm net", "network ls -f name=net -q",
                "rm -f box"],
    "volume": ["volume create vol", f"{_RUN} --rm -v vol:/v busybox touch /v/file",
               f"{_RUN} --rm --mount source=vol,target=/v busybox ls /v", "volume ls -q", "volume rm vol",
               "volume inspect vol"],
    "system, prune": ["system df --format '{{{{.Type}}}}'", "info --format '{{{{.Driver}}}}'", "container prune -f",
                      "image prune -f", "volume prune -f", "network prune -f",
                      "version --format '{{{{.Server.Version}}}}'"],
    "build": ["FROM busybox\nRUN echo built > /it\nCMD cat /it\n | build --no-cache -q -t built -",
              f"{_RUN} --rm built", "FROM missing:image\n | build -", "FROM busybox\nRUN exit 7\n | build -q -",
              "build --no-cache -q -t built {context}", f"{_RUN} --rm built", "rmi -f built"],
    "unknown": ["frobnicate", "swarm leave", "plugin ls", "search --limit 0 x"],
}


@pytest.mark.parametrize("name", _SCRIPTS)
def test_command(proxy: Proxy, tmp_path: Path, name: str) -> None:
    """Output, errors and exit codes are those of the daemon itself."""
    files = _files(tmp_path)
    proxy.host.docker("system", "prune", "-f")
    expected, found = ([_outcome(proxy.host, line.format(**files), where) for line in _SCRIPTS[name]]
                       for where in (proxy.host.docker_host, proxy.via))
    assert found == expected
    assert any(code == 0 for code, _, _ in expected) or name == "unknown"


def _files(directory: Path) -> dict[str, Path]:
    context = directory / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file /file\nCMD wc -c /file\n")
    (context / "file").write_bytes(b"x" * (5 << 20))
    with (directory / "root.tar").open("wb") as root:
        subprocess.run(["tar", "-c", "-C", context, "."], stdout=root, check=True)
    return {"file": context / "file", "copy": directory / "copy", "tar": directory / "tar",
            "root": directory / "root.tar", "context": context}


def _outcome(host: TestHost, line: str, where: str) -> tuple[int, str, str]:
    given, has_input, command = line.partition("| ") if re.match(r"[^'{]*\| ", line) else ("", "", line)
    done = host.docker(*shlex.split(command), host=where, check=False, input=given if has_input else None,
                       env={"DOCKER_BUILDKIT": "0"})
    return done.returncode, _comparable(done.stdout), _comparable(done.stderr)


def _comparable(text: str) -> str:
    """Without ids, times and sizes, and without lines that the CLI prints or not, as it happens."""
    text = re.sub(r"time=.*(error waiting for container|Can.t (add file|close tar writer)).*\n", "", text)
    text = re.sub(r"\b(sha256:)?[0-9a-f]{12,64}\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r"[\d.]+ ?[kMG]?B\b", "SIZE", text)


def test_buildkit(proxy: Proxy, tmp_path: Path) -> None:
    """A build by BuildKit: its session and its gRPC are upgraded, and a secret comes from the client."""
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY file /file\n"
                                         "RUN --mount=type=secret,id=s cp /run/secrets/s /it\nCMD cat /it /file\n")
    (tmp_path / "file").write_text(" and the context")
    proxy.docker("build", "--no-cache", "--progress=plain", "-t", "kit", "--secret", f"id=s,src={tmp_path}/secret",
                 tmp_path, env={"DOCKER_BUILDKIT": "1"})
    assert proxy.docker("run", "--rm", "-e", "WEAVE_CIDR=none", "kit").stdout == "hush and the context"
    proxy.docker("rmi", "-f", "kit")


def test_run_on_the_weave_network(proxy: Proxy) -> None:
    """Attached or not, output and exit code are the command's own, and the address is there when it begins."""
    done = proxy.docker("run", "--rm", "busybox", "sh", "-c", "ip -4 -o address show ethwe; exit 6", check=False)
    assert done.returncode == 6, done.stderr
    assert "inet 10." in done.stdout
    left_alone = proxy.docker("run", "--rm", "-e", "WEAVE_CIDR=none", "busybox", "ip", "link", "show", "ethwe",
                              check=False)
    assert "can't find device" in left_alone.stderr
    given = proxy.docker("run", "--rm", "-i", "busybox", "sha256sum", input=b"x" * (3 << 20), text=False).stdout
    assert given == proxy.host.docker("run", "--rm", "-i", "busybox", "sha256sum", input=b"x" * (3 << 20),
                                      text=False).stdout


# -- what goes on ----------------------------------------------------------------------------------------------------

@pytest.fixture
def box(proxy: Proxy) -> Iterator[str]:
    """A container that stays, off the weave network."""
    container = proxy.docker("run", "-d", "-e", "WEAVE_CIDR=none", "busybox", "sh", "-c",
                             "mkfifo /f; while :; do cat /f; done").stdout.strip()
    yield container
    proxy.docker("rm", "-f", container)


def _write_log(proxy: Proxy, box: str, text: str) -> None:
    proxy.docker("exec", box, "sh", "-c", f"echo {text} > /f")


def test_streams_show_what_happens_when_it_happens(proxy: Proxy, box: str) -> None:
    """`logs -f`, `events` and `stats` go on while other commands run, line by line."""
    commands = {"logs": ["logs", "-f", box], "stats": ["stats", "--format", "{{.Name}}", box],
                "events": ["events", "--filter", "event=rename", "--format", "{{.Action}}"]}
    streams = {name: proxy.host.popen("docker", *argv, env={"DOCKER_HOST": proxy.via}, stdout=subprocess.PIPE)
               for name, argv in commands.items()}
    try:
        for round_ in ("one", "two"):
            _write_log(proxy, box, round_)
            assert _line(streams["logs"]) == round_
        assert _line(streams["stats"])
        _eventually_renamed(proxy, box)
        assert _line(streams["events"]) == "rename"
    finally:
        for stream in streams.values():
            stream.kill()
            stream.communicate()


def _eventually_renamed(proxy: Proxy, box: str) -> None:
    time.sleep(0.2)  # `docker events` does not say when it has begun
    proxy.docker("rename", box, f"renamed-{time.monotonic_ns()}")


def _line(stream: subprocess.Popen[bytes]) -> str:
    assert stream.stdout is not None
    return stream.stdout.readline().decode().strip()


def test_wait(proxy: Proxy, box: str) -> None:
    """`wait` returns when the container ends, with its exit code."""
    waiting = proxy.host.popen("docker", "wait", box, env={"DOCKER_HOST": proxy.via}, stdout=subprocess.PIPE)
    proxy.docker("kill", box)
    assert _line(waiting) == "137"
    waiting.communicate()


def test_run_at_a_terminal(proxy: Proxy) -> None:
    """`run -ti`: input is echoed, the window's size is the container's, ^C reaches it, its exit code is ours."""
    shell = proxy.spawn("run", "--rm", "-ti", "-e", "WEAVE_CIDR=none", "busybox", "sh")
    shell.expect("# ")
    shell.sendline("stty size")
    shell.expect("24 80\r\n")
    shell.setwinsize(40, 132)
    assert _eventually(lambda: _size(shell) == "40 132", 10)
    shell.sendline("sleep 99; echo status $?")
    time.sleep(0.5)  # until sleep, not the shell, is in the foreground
    shell.sendintr()
    shell.expect("\\^C")
    shell.expect("# ")
    shell.sendline("exit 9")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 9


def _size(shell: pexpect.spawn) -> str:
    shell.sendline("echo size=$(stty size)=")
    shell.expect("size=([0-9 ]+)=")
    return str(shell.match[1].decode())


def test_detach_and_attach_again(proxy: Proxy) -> None:
    """^P^Q leaves the container running; attach comes back to it."""
    shell = proxy.spawn("run", "-ti", "-e", "WEAVE_CIDR=none", "--name", "detached", "busybox", "sh")
    try:
        shell.expect("# ")
        shell.sendline("x=kept")
        shell.expect("# ")
        shell.send("\x10\x11")
        shell.expect(pexpect.EOF)
        assert proxy.docker("inspect", "-f", "{{.State.Running}}", "detached").stdout == "true\n"
        again = proxy.spawn("attach", "detached")
        again.sendline("echo $x-here")
        again.expect("kept-here")
        again.sendline("exit 0")
        again.expect(pexpect.EOF)
    finally:
        proxy.docker("rm", "-f", "detached")


def test_exec_at_a_terminal(proxy: Proxy, box: str) -> None:
    """`exec -ti`: a shell in a running container, with a terminal of its own."""
    shell = proxy.spawn("exec", "-ti", box, "sh")
    shell.expect("# ")
    shell.sendline("tty; stty size")
    shell.expect("/dev/pts/")
    shell.expect("24 80")
    shell.expect("# ")  # before that, the end would go to the terminal's line editing, which is off again by then
    shell.sendeof()
    shell.expect(pexpect.EOF)


# -- other clients ---------------------------------------------------------------------------------------------------

# docker-py never closes the responses that it took sockets and streams from.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("version", ["auto", "1.41", "1.24"])
def test_docker_py(proxy: Proxy, version: str) -> None:
    """The Python client: containers, exec with separate streams, sockets, logs and events as they come."""
    with _closing(proxy.client(version)) as client:
        container = client.containers.run("busybox", ["sh", "-c", "echo started; cat"], detach=True, stdin_open=True,
                                          environment={"WEAVE_CIDR": "none"})
        try:
            assert container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output == (b"out\n", b"err\n")
            assert next(container.logs(stream=True, follow=True)) == b"started\n"
            with container.exec_run("cat", stdin=True, socket=True).output._sock as executed:
                _say(executed, b"said")
                executed.shutdown(socket.SHUT_WR)
                assert executed.recv(1) == b""
            with container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})._sock as attached:
                _say(attached, b"said")
                container.kill()
                assert attached.recv(1) == b""
            assert container.wait(timeout=10)["StatusCode"] == 137
            events = client.events(since=0, until=int(time.time()) + 1, decode=True,
                                   filters={"container": container.id})
            assert {"create", "start", "die"} <= {event["Action"] for event in events}
        finally:
            container.remove(force=True)


@contextmanager
def _closing(client: docker.DockerClient) -> Iterator[docker.DockerClient]:
    try:
        yield client
    finally:
        client.close()
        gc.collect()


def _say(sock: socket.socket, said: bytes) -> None:
    """Write, and read the echo (before an end, as the daemon may drop what comes after it)."""
    sock.settimeout(20)
    sock.sendall(said)
    _read_until(sock, said)


def _read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = sock.recv(1)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def test_client_that_never_asks_for_an_upgrade(proxy: Proxy, box: str) -> None:
    """The oldest clients get 200 and a raw stream, which ends when the process does."""
    with _closing(proxy.client()) as client:
        made = client.api.exec_create(box, ["sh", "-c", "cat; echo end"], stdin=True)
    body = b'{"Detach":false,"Tty":false}'
    with listeners.connect(Unix(str(proxy.path)), 20) as sock:
        sock.sendall(b"POST /exec/%b/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n%b" % (made["Id"].encode(), len(body), body))
        head = _read_until(sock, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"-stream\r\n" in head
        sock.sendall(b"said\n")
        _read_until(sock, b"said\n")
        sock.shutdown(socket.SHUT_WR)
        assert _read_until(sock, b"end\n")
        assert sock.recv(1) == b""


def test_attach_by_websocket(proxy: Proxy) -> None:
    """`attach/ws` speaks WebSocket (RFC 6455) both ways."""
    container = proxy.docker("run", "-dit", "-e", "WEAVE_CIDR=none", "busybox", "sh", "-c", "stty -echo; cat"
                             ).stdout.strip()
    try:
        with listeners.connect(Unix(str(proxy.path)), 20) as sock:
            sock.sendall(f"GET /containers/{container}/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n"
                         "Origin: http://docker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                         "Sec-WebSocket-Version: 13\r\n"
                         f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n".encode())
            assert b" 101 " in _read_until(sock, b"\r\n\r\n")
            sock.sendall(b"\x81\x85\0\0\0\0said\n")  # a text frame of five bytes, masked with zeros
            assert _read_until(sock, b"said")[0] in (0x81, 0x82)  # a whole frame, of text or binary
    finally:
        proxy.docker("rm", "-f", container)


def test_curl(proxy: Proxy, tmp_path: Path) -> None:
    """curl, by the socket: one answer, a stream to its end, an upload, an error."""
    curl = ["curl", "-sS", "--unix-socket", str(proxy.path)]
    assert proxy.host.run(*curl, "http://docker/_ping").stdout == "OK"
    assert "busybox" in proxy.host.run(*curl, "http://docker/images/json").stdout
    proxy.host.run(*curl, "-o", str(tmp_path / "tar"), "http://docker/images/busybox/get")
    loaded = proxy.host.run(*curl, "-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path}/tar", "-H",
                            "Content-Type: application/x-tar", "http://docker/images/load")
    assert "Loaded image" in loaded.stdout
    missing = proxy.host.run(*curl, "http://docker/containers/nobox/json")
    assert json.loads(missing.stdout) == {"message": "No such container: nobox"}
