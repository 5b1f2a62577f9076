"""A network namespace of a test's own, in which the wait program can be watched while it waits."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from weavemw.wait import install, program

PPOLL = {"x86_64": "271", "aarch64": "73", "riscv64": "73", "armv7l": "336", "armv6l": "336"}
_numbers = itertools.count()


def eventually(condition: Callable[[], bool], what: str, patience: float = 30.0) -> None:
    """Wait until a condition holds; looking is the only way to learn what another process does."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.005)


class Waiter:
    """One process of the wait program, which may have others around it (nsenter, unshare, qemu)."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self.process = process
        self.pid = pid

    def netlink_socket(self) -> list[str] | None:
        """The row of /proc/net/netlink of its socket: Pid is 2, Groups 3, Rmem 4, Drops 8."""
        inodes = {target[8:-1] for target in self._open_files() if target.startswith("socket:[")}
        for row in (self._proc / "net/netlink").read_text().splitlines():
            if row.split()[9] in inodes:
                return row.split()
        return None

    def is_asleep(self) -> bool:
        """Whether it has dealt with all that was announced so far, and waits for more."""
        row = self.netlink_socket()
        return (row is not None and row[3] == "00000001" and row[4] == "0"
                and (self._proc / "syscall").read_text().split()[0] == PPOLL[platform.machine()])

    def assert_still_waits(self) -> None:
        """Fail if it has ended or run the command."""
        eventually(lambda: self.process.poll() is not None or self.is_asleep(), "asleep in ppoll")
        assert self.process.poll() is None, self.process.communicate()

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def status(self) -> int:
        return self.process.wait(timeout=30)

    def output(self) -> str:
        return self.process.communicate(timeout=30)[0]

    @property
    def _proc(self) -> Path:
        return Path(f"/proc/{self.pid}")

    def _open_files(self) -> list[str]:
        found = []
        for link in (self._proc / "fd").iterdir():
            try:
                found.append(os.readlink(link))
            except FileNotFoundError:
                continue  # closed meanwhile
        return found


class Namespace:
    """A network namespace with nothing in it but a loopback interface."""

    def __init__(self, name: str, wait_program: str) -> None:
        self.name = name
        self.wait_program = wait_program
        self.processes: list[subprocess.Popen[str]] = []

    def ip(self, *arguments: str, stdin: str | None = None) -> str:
        return subprocess.run(["ip", "-n", self.name, *arguments], check=True, input=stdin, text=True,
                              stdout=subprocess.PIPE).stdout

    def enter(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the namespace."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
        process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.name}", *command], **options)
        self.processes.append(process)
        return process

    def wait(self, *command: str, by: tuple[str, ...] = (), **options: Any) -> Waiter:
        """Start the wait program (by way of other programs) and return once it waits."""
        process = self.enter(*by, self.wait_program, *command, **options)
        waiter = Waiter(process, process.pid)
        waiter.assert_still_waits()
        return waiter

    def wait_as_process_one(self, *command: str) -> Waiter:
        """Likewise, as the first process of a new process namespace, as a container has it."""
        process = self.enter("unshare", "--pid", "--fork", "--kill-child", self.wait_program, *command)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: children.read_text() != "", "unshare forks")
        waiter = Waiter(process, int(children.read_text()))
        waiter.assert_still_waits()
        return waiter

    def attach(self, name: str = "ethwe") -> None:
        """An interface with carrier; as attaching does, the other end goes up last."""
        self.ip("link", "add", name, "type", "veth", "peer", "name", "peer")
        self.ip("link", "set", name, "up")
        self.ip("link", "set", "peer", "up")
        eventually(lambda: "LOWER_UP" in self.ip("link", "show", name), f"{name} has carrier")

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdout, process.stderr)):
                stream.close()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


@pytest.fixture
def wait_program(tmp_path: Path) -> str:
    """The wait program of this machine, installed."""
    return str(install(tmp_path / "state") / "w")


@pytest.fixture
def namespace(wait_program: str) -> Iterator[Namespace]:
    name = f"weavemw-wait-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    made = Namespace(name, wait_program)
    yield made
    made.remove()


@pytest.fixture(params=["x86_64", "aarch64", "arm", "riscv64"])
def any_machine(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[str]]:
    """Each machine's programs in turn: a function from a name to a command line that runs it here."""
    machine: str = request.param
    emulator = [] if program("w", machine) == program("w") else [f"qemu-{machine}-static"]
    if emulator and not shutil.which(emulator[0]):
        pytest.skip(f"needs {emulator[0]} (package qemu-user-static)")

    def command(name: str) -> list[str]:
        path = tmp_path / name
        path.write_bytes(program(name, machine))
        path.chmod(0o755)
        return [*emulator, str(path)]

    return command


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """Whatever started pytest, the programs begin with no signal blocked."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
