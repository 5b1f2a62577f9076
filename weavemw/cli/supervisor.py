"""Our programs in containers of their own, so that Docker restarts them, keeps their logs and starts them at boot.

Such a container holds one tiny program, which makes the host's root directory
its own and executes the host's Python there. It has the host's network and
processes, and no more capabilities than its program needs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import site
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import weavemw
from weavemw import wait
from weavemw.cli.management import ManagingClient
from weavemw.errors import Conflict, DockerError, WeaveError
from weavemw.ops.run_file import OUR_CONTAINERS

__all__ = [
    "PROXY",
    "ROUTER",
    "Launch",
    "Program",
    "Supervisor",
    "cause",
    "complaint",
    "container_body",
    "is_made_here",
    "our_images",
    "python_environ",
]

_GRACE = 5  # seconds between SIGTERM and SIGKILL
_SECOND = 1_000_000_000  # in Docker's nanoseconds
_BY_SIGNAL = 128  # with the signal's number, an exit status
_ERROR = re.compile(r"\[(?:ERROR|CRITICAL)\] (.*)")
_LABEL = "weavemw"  # on our containers and images, with the version that made them
_REPOSITORY, _ENTRYPOINT = "weavemw/host", ["/enter"]
_HINT_NOT_FOUND = " (is this the machine that Docker runs on? else use --foreground there)"


@dataclass(frozen=True, slots=True)
class Program:
    """One of our programs: the name of its container, what people call it, its module, what it may do."""

    name: str
    title: str
    module: str
    capabilities: tuple[str, ...]


PROXY = Program(OUR_CONTAINERS[0], "weave proxy", "weavemw.server", (
    "SYS_CHROOT",        # enters the host's root directory
    "NET_ADMIN",         # makes interfaces
    "NET_BROADCAST",     # hears of what changes in containers' network namespaces
    "SYS_ADMIN",         # enters containers' network namespaces,
    "SYS_PTRACE",        # those of other users' processes too
    "DAC_OVERRIDE",      # writes /etc/hosts of containers whose files are not root's (userns-remap)
    "SETGID",            # makes its socket in the group of Docker's
    "CHOWN", "FOWNER",   # and gives it away where Docker's is not root's
    "NET_BIND_SERVICE",  # listens on a port below 1024 if told to
))
ROUTER = Program(OUR_CONTAINERS[1], "weave router", "weavemw.router", (
    "SYS_CHROOT",        # enters the host's root directory
    "NET_ADMIN",         # makes the bridge, and lets its packets through the firewall:
    "NET_RAW",           # iptables asks the kernel by a raw socket
    "NET_BIND_SERVICE",  # serves DNS on port 53
    "SYS_ADMIN",         # asks Docker's resolvers from within containers' network namespaces,
    "SYS_PTRACE",        # those of other users' processes too,
    "DAC_OVERRIDE",      # whom their resolv.conf names, also where it is not root's (userns-remap)
    "CHOWN",             # lets the group of Docker's socket read what is for it
    "NET_BROADCAST",     # and while no proxy runs, does what that would do for containers that run
))
#: The names of our containers.


@dataclass(frozen=True, slots=True)
class Launch:
    """What a program was launched with."""

    arguments: tuple[str, ...]
    environ: dict[str, str]


class Supervisor:
    """Starts and stops our containers at one Docker Engine."""

    def __init__(self, docker: ManagingClient) -> None:
        self.docker = docker

    def is_running(self, program: Program) -> bool:
        """Whether the program's container runs (or is about to, after a crash)."""
        found = self._find(program)
        return found is not None and bool(found["State"]["Running"])

    def launched_with(self, program: Program) -> Launch | None:
        """What the program's container was made with, whether it runs or not; ``None`` if there is none."""
        found = self._find(program)
        if found is None:
            return None
        command, environ = found["Config"]["Cmd"], found["Config"]["Env"] or []
        return Launch(tuple(command[len(_python(program.module)):]),
                      {name: value for name, _, value in (each.partition("=") for each in environ)})

    def trouble(self, program: Program) -> str:
        """Why the program's container does not stay up; empty if it does, or there is none."""
        found = self._find(program)
        if found is None or (found["State"]["Running"] and not found["State"]["Restarting"]):
            return ""
        if found["State"]["ExitCode"] == 0:
            return f"its container {program.name} was stopped: `weave relaunch` starts it"
        return self._cause(program.name, found)

    def launch(self, program: Program, environ: Mapping[str, str], is_ready: Callable[[], bool], *,
               arguments: tuple[str, ...] = (), limit: float = 30.0) -> None:
        """Start the program and return when it serves.

        Raises :class:`~weavemw.errors.Conflict` if it runs already, and
        :class:`~weavemw.errors.WeaveError` with the cause if it ends or doesn't serve
        within ``limit`` seconds; then nothing is left of it.
        """
        self._make_room(program)
        self.install_image()
        container = ""
        try:
            with _uninterrupted():
                container = self.docker.create(program.name, container_body(program, arguments, environ))
            self.docker.start(container)
            self._wait(program, container, is_ready, limit)
        except BaseException:
            if container:
                self.stop(program)
            raise

    def stop(self, program: Program) -> bool:
        """Stop the program and remove its container; whether there was one."""
        if self._find(program) is None:
            return False
        self.docker.stop(program.name, _GRACE)
        self.docker.remove(program.name)
        return True

    def _make_room(self, program: Program) -> None:
        if self.is_running(program):
            raise Conflict(f"{program.title} is already running")
        if self.stop(program):
            return
        if self.docker.find(program.name):
            raise Conflict(f"another container has the name {program.name}: "
                           f"`docker rename {program.name} …` makes room")

    def _find(self, program: Program) -> dict[str, Any] | None:
        """The program's container; one of the same name that others made is none."""
        found = self.docker.find(program.name)
        return found if found and _LABEL in (found["Config"]["Labels"] or {}) else None

    def install_image(self) -> str:
        """Make the image of our containers if it is not there, or another one has its name; gives its name."""
        root = _image_root(wait.program("enter"))
        if not is_made_here(self.docker.image(_image()), root):
            changes = (f"ENTRYPOINT {json.dumps(_ENTRYPOINT)}", f"LABEL {_LABEL}={weavemw.__version__}")
            self.docker.import_image(_image(), root, changes=changes)
        return _image()

    def remove_old_images(self) -> None:
        """Remove images that other versions made, but those that something still runs from."""
        for name in set(our_images(self.docker)) - {_image()}:
            try:
                self.docker.remove_image(name)
            except DockerError as error:
                if error.status != 409:
                    raise

    def _wait(self, program: Program, container: str, is_ready: Callable[[], bool], limit: float) -> None:
        deadline = time.monotonic() + limit
        while not is_ready():
            found = self.docker.find(container) or {}
            ended = not found.get("State", {}).get("Running") or found.get("RestartCount")
            if ended or time.monotonic() > deadline:
                why = self._cause(container, found, 0.0 if ended else limit)
                raise WeaveError(f"{program.title} did not start: {why}")
            time.sleep(0.05)

    def _cause(self, container: str, found: Mapping[str, Any], limit: float = 0.0) -> str:
        state = found.get("State") or {}
        return cause(self.docker.logs(container, lines=50), state, limit) + (
            _HINT_NOT_FOUND if state.get("ExitCode") == 127 else "")


def is_made_here(image: Mapping[str, Any], root: bytes) -> bool:
    """Whether an image, as inspect shows it, holds this root directory and is told nothing but our entrypoint. Pure.

    Its name proves nothing: an image that somebody loads or pulls may have it, and its containers are root here.
    """
    layers, config = (image.get("RootFS") or {}).get("Layers"), dict(image.get("Config") or {})
    told = [name for name in ("Env", "User", "Cmd", "Volumes", "WorkingDir", "ExposedPorts", "OnBuild")
            if config.get(name)]
    return layers == [f"sha256:{hashlib.sha256(root).hexdigest()}"] and config.get("Entrypoint") == _ENTRYPOINT \
        and not told


def our_images(docker: ManagingClient) -> list[str]:
    """Names of our containers' images, of whichever version; a label alone may be any image's."""
    return [name for name in docker.labelled_images(_LABEL) if name.startswith(f"{_REPOSITORY}:")]


def container_body(program: Program, arguments: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, Any]:
    """The body of ``POST /containers/create`` for a program's container (API 1.24 and newer)."""
    environ = {**environ, "WEAVE_CIDR": "none"}
    return {
        "Image": _image(),
        "Cmd": _python(program.module, *arguments),
        "Healthcheck": {
            "Test": ["CMD", "/enter", *_python("weavemw.probe", *arguments)],
            "Interval": 30 * _SECOND, "Timeout": 15 * _SECOND, "StartPeriod": 30 * _SECOND, "Retries": 3,
        },
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "Labels": {_LABEL: weavemw.__version__},
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "Binds": [_root_bind(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))],
            "NetworkMode": "host",
            "PidMode": "host",
            "UsernsMode": "host",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": list(program.capabilities),
            "SecurityOpt": ["no-new-privileges", "apparmor=unconfined", "label=disable"],
            "RestartPolicy": {"Name": "always"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }


def _root_bind(mountinfo: str) -> str:
    """How the host's root directory is mounted: what the host unmounts is unmounted here too, if that can be had.

    Else a file system that was there at launch stays in use as long as our container runs. Docker refuses ``rslave``
    where the directory is of a mount that tells nobody of changes (proc_pid_mountinfo(5), optional fields).
    """
    mounts = (line.partition(" - ")[0].split() for line in mountinfo.splitlines())
    tells = [any(field.startswith(("shared:", "master:")) for field in fields[6:])
             for fields in mounts if fields[4:5] == ["/"]]
    return "/:/host:rslave" if tells and tells[-1] else "/:/host"


def python_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What makes a fresh interpreter find this very package, in a checkout or a home directory too."""
    package = str(Path(weavemw.__file__).resolve().parents[1])
    wanted = [package] if package not in site.getsitepackages() else []
    given = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    path = os.pathsep.join(dict.fromkeys([*given, *wanted]))
    return {"PYTHONUNBUFFERED": "1"} | ({"PYTHONPATH": path} if path else {})


def cause(log: str, state: Mapping[str, Any], limit: float = 0.0) -> str:
    """Why a program ended, or (with ``limit`` in seconds) does not serve: by how it ended, and then by its log.

    ``state`` is that of its container. A line of the log is a cause only if it says so: the last one may be of
    anything.
    """
    code, reason = int(state.get("ExitCode") or 0), complaint(log)
    if limit:
        return f"it runs, but does not serve after {limit:g} s" + (f"; it said: {reason}" if reason else "")
    if state.get("OOMKilled"):
        return "it ran out of memory, and was killed"
    if code > _BY_SIGNAL:
        return f"it was ended by {_signal(code - _BY_SIGNAL)}"
    if reason or state.get("Error"):
        return reason or str(state["Error"])
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    return f"it ended with status {code}, without saying why" + (f"; its last line was: {last}" if last else "")


def complaint(log: str) -> str:
    """The line of a log that says what went wrong: our command's own, or an exception, or an error; else empty."""
    ours, raised, errors, traced = "", "", "", False
    for line in log.splitlines():
        if line.startswith(("weave: ", "weave router: ")) and not line.startswith("weave: warning: "):
            ours = line.partition(": ")[2].strip()
        elif line.startswith("Traceback "):
            traced = True
        elif traced and line[:1].strip():
            raised, traced = line.strip(), False
        elif found := _ERROR.search(line):
            errors = errors or found[1]  # what follows the first is of its making
    return ours or raised or errors


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that end a command wait until the block is over: what is made is known by then."""
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number))
              for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", module, *arguments]


def _image() -> str:
    return f"{_REPOSITORY}:{weavemw.__version__}"


def _image_root(enter: bytes) -> bytes:
    with io.BytesIO() as out, tarfile.open(fileobj=out, mode="w") as tar:
        host = tarfile.TarInfo("host")
        host.type, host.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(host)
        program = tarfile.TarInfo("enter")
        program.size, program.mode = len(enter), 0o555
        tar.addfile(program, io.BytesIO(enter))
        tar.close()
        return out.getvalue()
