"""Test hosts: network namespaces, each with a Docker Engine of its own.

As a module, for tests::

    with TestHost(live_restore=True) as host:
        host.docker("run", "--rm", "busybox", "true")

As a program, it runs one command on a test host, with ``DOCKER_HOST`` set, and takes the host down again::

    python tests/engine/host.py docker run --rm busybox ip address

Nothing here knows weavemw. It needs root, and ``dockerd``, ``containerd``, ``ip``, ``iptables``, ``nsenter`` and a
static busybox. A host's containers reach each other and hosts it is joined to; no route leads anywhere else.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["TestHost", "destroy", "join", "sweep", "unused_name", "why_not"]

_NAMESPACES = Path("/run/netns")
_CGROUPS = Path("/sys/fs/cgroup")
_SWEEP_LOCK = Path("/run/weavemw-test-hosts.lock")
_NAME = re.compile(r"wh(\d+)-\d+")
_READY_WITHIN = 60.0
#: The distribution's programs before all others: what is tested should not depend on what else is on the machine.
_PATH = f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', os.defpath)}"
_count = itertools.count(1)
_joints = itertools.count()


class TestHost:
    """A network namespace with its own dockerd, containerd, ``docker0`` and images (busybox, scratch-true).

    ``engine_root`` names a directory made by make-engine-root, whose Docker Engine, CLI and CLI plugins are used
    instead of the machine's. ``daemon_options`` are further arguments for dockerd.
    """

    __test__ = False  # pytest: not a class of tests

    def __init__(self, *, live_restore: bool = False, daemon_options: Sequence[str] = (),
                 engine_root: str | Path | None = None, images: bool = True) -> None:
        self.name = unused_name()
        self.dir = _directory(self.name)
        self.socket = self.dir / "docker.sock"
        self.docker_host = f"unix://{self.socket}"
        self.state_dir, self.run_dir = self.dir / "weave-state", self.dir / "weave-run"
        self.engine_root = Path(engine_root) if engine_root else None
        self.path = f"{self.engine_root}/engine:{_PATH}" if self.engine_root else _PATH
        self.daemon_options = [*(["--live-restore"] if live_restore else []), *daemon_options]
        self._images = images
        self._children: list[subprocess.Popen[Any]] = []
        self._containerd: subprocess.Popen[Any] | None = None
        self.dockerd: subprocess.Popen[Any] | None = None

    # -- coming and going ------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Make the namespace, start the engine, import the images; on failure, nothing is left."""
        try:
            self._make_directory()
            _checked(["ip", "netns", "add", self.name])
            self.ip("link", "set", "lo", "up")
            self.start_dockerd()
            if self._images:
                self._import_images()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End every process of this host, and remove its mounts, cgroups, namespace and directory."""
        try:
            destroy(self.name)
        finally:
            for child in self._children:
                _reap(child)
            self._children.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # -- programs on this host -------------------------------------------------------------------------------------

    def argv(self, *argv: str | Path) -> list[str]:
        """The command line that runs ``argv`` on this host (for pexpect and the like; give it :meth:`environ`)."""
        return ["nsenter", f"--net={_NAMESPACES / self.name}", "--", *map(str, argv)]

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a shell on this host: nothing of the caller's Docker, all of this one's."""
        own = {
            "DOCKER_HOST": self.docker_host,
            "DOCKER_CONFIG": str(self.dir / "docker-config"),
            "WEAVEMW_STATE_DIR": str(self.state_dir),
            "WEAVEMW_RUN_DIR": str(self.run_dir),
            "PATH": f"{Path(sys.executable).parent}:{self.path}",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "WEAVE", "NOTIFY_SOCKET"))}
        return kept | own | dict(extra or {})

    def run(self, *argv: str | Path, input: str | bytes | None = None, check: bool = True,  # noqa: A002
            timeout: float = 60, env: Mapping[str, str] | None = None,
            text: bool = True) -> subprocess.CompletedProcess[Any]:
        """Run a command on this host and collect what it prints; ``text=False`` for bytes."""
        return _checked(self.argv(*argv), input=input, check=check, timeout=timeout, text=text,
                        env=self.environ(env))

    def popen(self, *argv: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a command on this host; it is ended with the host at the latest."""
        child = subprocess.Popen(self.argv(*argv), env=self.environ(env), **options)
        self._children.append(child)
        return child

    def docker(self, *args: str | Path, host: str | None = None, cli: str | Path | None = None,
               env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run the docker CLI; ``host`` as in ``docker -H`` (default: the daemon), the rest as for :meth:`run`."""
        return self.run(cli or self._program("docker"), *args,
                        env={"DOCKER_HOST": host or self.docker_host, **(env or {})}, **options)

    # -- the network -----------------------------------------------------------------------------------------------

    def ip(self, *args: str) -> str:
        """What ``ip ARGS`` prints on this host."""
        return str(self.run("ip", *args).stdout)

    def links(self) -> dict[str, dict[str, Any]]:
        """This host's links by name, each as ``ip -json -details link`` has it; ``set(links())`` is the names."""
        return {link["ifname"]: link for link in json.loads(self.ip("-json", "-details", "link"))}

    def join(self, other: TestHost) -> tuple[str, str]:
        """Connect two hosts with a cable; see :func:`join`."""
        return join(self, other)

    # -- the engine ------------------------------------------------------------------------------------------------

    def start_dockerd(self) -> None:
        """Start dockerd (and containerd, unless it still runs) and wait until it answers."""
        if self._containerd is None or self._containerd.poll() is not None:
            self._containerd = self._daemon("containerd", "--config", self.dir / "containerd.toml")
            _wait_until(functools.partial(_accepts, self.dir / "containerd.sock"), self._containerd, self.log)
        self.dockerd = self._daemon("dockerd", *self._dockerd_options())
        _wait_until(functools.partial(_pings, self.socket), self.dockerd, self.log)

    def kill_dockerd(self, signum: int = signal.SIGKILL, timeout: float = 30) -> None:
        """Send dockerd a signal and wait for its end; containerd and its containers know nothing of it."""
        assert self.dockerd is not None
        self.dockerd.send_signal(signum)
        self.dockerd.wait(timeout)

    def restart_dockerd(self, signum: int = signal.SIGTERM, timeout: float = 30) -> None:
        """End dockerd by a signal and start it again."""
        self.kill_dockerd(signum, timeout)
        self.start_dockerd()

    def log(self) -> str:
        """What dockerd and containerd have said so far."""
        return (self.dir / "engine.log").read_text(errors="replace")

    def _make_directory(self) -> None:
        self.dir.mkdir(mode=0o755)
        for directory in (self.state_dir, self.run_dir, self.dir / "docker-config"):
            directory.mkdir()
        if self.engine_root:
            plugins = self.engine_root / "usr/libexec/docker/cli-plugins"
            (self.dir / "docker-config/cli-plugins").symlink_to(plugins)
        (self.dir / "daemon.json").write_text("{}")
        (self.dir / "containerd.toml").write_text(_CONTAINERD_TOML.format(dir=self.dir))

    def _daemon(self, name: str, *args: str | Path) -> subprocess.Popen[Any]:
        with (self.dir / "engine.log").open("ab") as log:
            return self.popen(self._program(name), *args, env=_DAEMON_ENVIRON, stdin=subprocess.DEVNULL, stdout=log,
                              stderr=log, start_new_session=True)

    def _dockerd_options(self) -> list[str]:
        return [
            f"--host={self.docker_host}", f"--data-root={self.dir}/data", f"--exec-root={self.dir}/exec",
            f"--pidfile={self.dir}/docker.pid", f"--config-file={self.dir}/daemon.json",
            f"--containerd={self.dir}/containerd.sock", f"--cgroup-parent=/{self.name}",
            "--exec-opt=native.cgroupdriver=cgroupfs", *self.daemon_options,
        ]

    def _program(self, name: str) -> str:
        path = shutil.which(name, path=self.path)
        if path is None:
            raise FileNotFoundError(f"{name}: not found in {self.path}")
        return path

    def _import_images(self) -> None:
        self.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", input=busybox_root(), text=False)
        self.docker("import", "--change", 'CMD ["/true"]', "-", "scratch-true:latest", input=scratch_root(), text=False)


#: Root's containerd, its plugins and sockets in the host's directory; without Kubernetes' part, which listens on TCP.
_CONTAINERD_TOML = """\
version = 2
root = "{dir}/containerd"
state = "{dir}/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{dir}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/containerd-opt"
"""

#: D-Bus is not part of a network namespace: dockerd would tell the machine's own firewalld about its bridge.
_DAEMON_ENVIRON = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"}


def why_not() -> str | None:
    """Why there can be no test host here, or None if there can."""
    if os.geteuid() != 0:
        return "needs root: test hosts are network namespaces with a dockerd each"
    needed = ("dockerd", "containerd", "docker", "iptables", "ip", "nsenter")
    missing = [name for name in needed if not shutil.which(name, path=_PATH)]
    if missing:
        return f"needs {', '.join(missing)} (apt-get install docker.io iptables iproute2 util-linux)"
    return None if _static_busybox() else "needs a static busybox (apt-get install busybox-static)"


def unused_name() -> str:
    """A name for a namespace that :func:`sweep` knows as one of this process."""
    return f"wh{os.getpid()}-{next(_count)}"


def join(a: TestHost, b: TestHost) -> tuple[str, str]:
    """Connect two hosts with a veth pair; returns the address that each has on it (``198.18.N.1``, ``198.18.N.2``)."""
    number = next(_joints)
    device = f"cable{number}"
    _checked(["ip", "link", "add", device, "netns", a.name, "type", "veth", "peer", "name", device, "netns", b.name])
    addresses = f"198.18.{number}.1", f"198.18.{number}.2"
    for host, address in zip((a, b), addresses, strict=True):
        host.ip("address", "add", f"{address}/24", "dev", device)
        host.ip("link", "set", device, "up")
    return addresses


# -- images ----------------------------------------------------------------------------------------------------------

@functools.cache
def busybox_root() -> bytes:
    """A tar of a root file system with busybox, its applets, and the users root and nobody."""
    busybox = _static_busybox()
    applets = subprocess.run([busybox, "--list"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    with io.BytesIO() as out, tarfile.open(fileobj=out, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            tar.addfile(_entry(directory, tarfile.DIRTYPE, mode))
        _add_file(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644)
        _add_file(tar, "etc/group", b"root:x:0:\nnobody:x:65534:\n", 0o644)
        for applet in sorted(set(applets) - {"busybox"}):
            tar.addfile(_entry(f"bin/{applet}", tarfile.LNKTYPE, link="bin/busybox"))
        tar.close()
        return out.getvalue()


@functools.cache
def scratch_root() -> bytes:
    """A tar with nothing but ``/true``, a static program that exits with 0."""
    with io.BytesIO() as out, tarfile.open(fileobj=out, mode="w") as tar:
        _add_file(tar, "true", Path(_static_busybox()).read_bytes(), 0o755)
        tar.close()
        return out.getvalue()


def _entry(name: str, kind: bytes, mode: int = 0o755, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname = kind, mode, link
    return entry


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _static_busybox() -> str:
    """The path of a busybox that needs no library, or an empty string."""
    path = shutil.which("busybox", path=_PATH)
    return path if path and b"ld-linux" not in Path(path).read_bytes()[:4096] else ""


# -- taking down -----------------------------------------------------------------------------------------------------

def destroy(name: str) -> None:
    """Remove all that the host of this name left: processes, mounts, cgroups, namespace, directory. Idempotent.

    Each step is taken whatever became of the one before; what failed is raised at the end.
    """
    errors = []
    for step in (_end_processes, _unmount_all, _remove_shim_sockets, _remove_cgroups, _remove_namespace,
                 _remove_directory):
        try:
            step(name)
        except Exception as error:  # noqa: BLE001  # raised below
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"taking down {name}", errors)


def sweep() -> list[str]:
    """Destroy the hosts of processes that are gone (killed test runs, say); returns their names."""
    with _SWEEP_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left = {path.name for path in (*_entries(_NAMESPACES), *_entries(Path(tempfile.gettempdir())))}
        dead = sorted(filter(_is_orphan, left))
        for name in dead:
            destroy(name)
    return dead


def _is_orphan(name: str) -> bool:
    made = _NAME.fullmatch(name)
    return made is not None and not Path(f"/proc/{made[1]}").exists()


def _end_processes(name: str) -> None:
    deadline = time.monotonic() + 20
    while pids := set(_in_namespace(name)) | set(_in_cgroups(name)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive after SIGKILL: {sorted(pids)}")
        time.sleep(0.01)


def _in_namespace(name: str) -> Iterator[int]:
    """The processes in the host's network namespace: its daemons, its shims, whatever was run there."""
    wanted = _identity(_NAMESPACES / name)
    if wanted is None or wanted == _identity(Path("/proc/self/ns/net")):
        return
    for process in Path("/proc").glob("[0-9]*"):
        if _identity(process / "ns/net") == wanted:
            yield int(process.name)


def _in_cgroups(name: str) -> Iterator[int]:
    """The processes in the host's cgroups: those of its containers."""
    for cgroup in _cgroups(name):
        with contextlib.suppress(OSError):  # removed meanwhile, by its runtime
            yield from (int(pid) for pid in (cgroup / "cgroup.procs").read_text().split() if pid != "0")


def _cgroups(name: str) -> list[Path]:
    """The host's cgroups, in every hierarchy, the innermost first."""
    tops = [_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")]
    found = [Path(path) for top in tops if top.is_dir() for path, _, _ in os.walk(top)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _unmount_all(name: str) -> None:
    for point in reversed(_mounts_under(_directory(name))):
        _checked(["umount", "--lazy", "--no-canonicalize", point])


def _mounts_under(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in lines)
    return [point for point in points if Path(point).is_relative_to(directory)]


def _remove_shim_sockets(name: str) -> None:
    """Shims listen outside the host's directory, and were given no time to tidy up."""
    for bundle in _directory(name).glob("containerd-run/*.task/*/*"):
        for told in ("address", "bootstrap.json"):  # containerd 1, containerd 2
            if (bundle / told).exists() and (made := re.search(r'unix://([^"\s]+)', (bundle / told).read_text())):
                Path(made[1]).unlink(missing_ok=True)


def _remove_cgroups(name: str) -> None:
    for cgroup in _cgroups(name):
        _retry_while_busy(cgroup.rmdir)


def _retry_while_busy(remove: Callable[[], None], within: float = 5.0) -> None:
    """A cgroup stays busy until the kernel is through with the processes that died in it."""
    deadline = time.monotonic() + within
    while True:
        try:
            return remove()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _remove_namespace(name: str) -> None:
    if (_NAMESPACES / name).exists():
        _checked(["ip", "netns", "delete", name])


def _remove_directory(name: str) -> None:
    if _directory(name).exists():
        shutil.rmtree(_directory(name))


def _reap(child: subprocess.Popen[Any]) -> None:
    child.kill()
    child.wait(10)
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


# -- small things ----------------------------------------------------------------------------------------------------

def _directory(name: str) -> Path:
    return Path(tempfile.gettempdir()) / name


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # no such namespace, or a process that is ending
        return None
    return status.st_dev, status.st_ino


def _checked(argv: Sequence[str], *, input: str | bytes | None = None, check: bool = True,  # noqa: A002
             timeout: float = 60, text: bool = True,
             env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[Any]:
    """Run, collect the output, and if it fails, say what the command said."""
    given = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    done = subprocess.run(argv, capture_output=True, timeout=timeout, text=text, env=env, check=False, **given)
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, list(argv), done.stdout, done.stderr)
        error.add_note(f"stdout: {done.stdout!r}\nstderr: {done.stderr!r}")
        raise error
    return done


def _wait_until(ready: Callable[[], bool], daemon: subprocess.Popen[Any], log: Callable[[], str]) -> None:
    """Wait for a daemon that has no way to tell us; its end or a minute is too much."""
    deadline = time.monotonic() + _READY_WITHIN
    while not ready():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{daemon.args!r} is not ready (status {daemon.poll()}):\n{log()[-4000:]}")
        time.sleep(0.01)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def _pings(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_READY_WITHIN)
        if connection.connect_ex(str(path)):
            return False
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(64)


# -- the program -----------------------------------------------------------------------------------------------------

def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command on a test host; its status is ours."""
    parser = argparse.ArgumentParser(description="Run a command on a test host: a network namespace with a dockerd.")
    parser.add_argument("--live-restore", action="store_true", help="containers outlive dockerd")
    parser.add_argument("--engine-root", default=os.environ.get("WEAVEMW_TEST_ENGINE_ROOT"), metavar="DIR",
                        help="use the Docker Engine of this root file system (see make-engine-root)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command (default: a shell)")
    options = parser.parse_args(arguments)
    if reason := why_not():
        parser.exit(1, f"host.py: {reason}\n")
    sweep()
    with _patience() as forward_to, \
            TestHost(live_restore=options.live_restore, engine_root=options.engine_root) as host:
        child = host.popen(*(options.command or ["sh", "-i"]))
        forward_to.append(child)
        return child.wait()


@contextlib.contextmanager
def _patience() -> Iterator[list[subprocess.Popen[Any]]]:
    """Leave ^C to the command, pass SIGTERM and SIGHUP on to it, and be there to clean up after it."""
    children: list[subprocess.Popen[Any]] = []

    def forward(signum: int, _frame: object) -> None:
        if not children:
            raise KeyboardInterrupt
        if signum != signal.SIGINT:
            children[0].send_signal(signum)

    before = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield children
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    sys.exit(main())
