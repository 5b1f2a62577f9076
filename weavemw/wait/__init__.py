"""The wait program: what it is for each machine, and where it stands on the host so that containers can mount it.

A container that is to be on the weave network starts with it: it waits until the interface ``ethwe`` is up and has
carrier, then executes the container's own command in its place (``wait.c`` says how).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import tempfile
from importlib import resources
from pathlib import Path

from weavemw.errors import SettingsError

__all__ = ["MACHINES", "PROGRAMS", "WAIT_PROGRAM", "holds_program", "install", "program", "release"]

#: The wait program's file name, in the package and in the directory that containers mount.
WAIT_PROGRAM = "w"

#: The programs and their sources: ``w`` waits in users' containers, ``go`` does not, where weave is uninstalled, and
#: ``enter`` starts weavemw in its own.
PROGRAMS = {WAIT_PROGRAM: "wait.c", "go": "go.c", "enter": "enter.c"}

#: The machines that there are programs for.
MACHINES = ("x86_64", "aarch64", "arm", "riscv64")

#: Other names for them, as ``uname -m``, Docker and Python say them.
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm"}

_PROGRAM_MODE, _DIRECTORY_MODE = 0o555, 0o755


def program(name: str, machine: str | None = None) -> bytes:
    """The program ``w``, ``go`` or ``enter`` for a machine (as ``uname -m`` names it; by default this one).

    The kernel's machine decides, not the image's: a static program runs beside any that the kernel runs.
    Raises SettingsError for a machine that there is none for.
    """
    wanted = machine or platform.machine()
    found = _ALIASES.get(wanted.lower(), wanted.lower())
    if found not in MACHINES:
        raise SettingsError(f"no wait program for machine {wanted!r}: there are {', '.join(MACHINES)}")
    return (resources.files(__name__) / "bin" / found / name).read_bytes()


def install(state_dir: Path, machine: str | None = None) -> Path:
    """Put the wait program below ``state_dir`` and return its directory, to be mounted read-only.

    The directory is named by the program's content and never removed: a container that was made by an older
    version still starts. Any number of processes may install at once; a damaged program is replaced. Files belong
    to whom the process runs as, which should be root. Raises SettingsError where ``state_dir`` can't be written.
    """
    content = program(WAIT_PROGRAM, machine)
    parent = state_dir / "wait"
    directory = parent / hashlib.sha256(content).hexdigest()[:12]
    try:
        for needed in (parent, directory):
            _make_directory(needed)
        if not _is_intact(directory / WAIT_PROGRAM, content):
            _write(directory / WAIT_PROGRAM, content, by_way_of=parent)
    except OSError as error:
        raise SettingsError(f"can't install the wait program in {directory}: {error.strerror}",
                            hint="--state-dir names another directory") from error
    return directory


def release(state_dir: Path, machine: str | None = None) -> None:
    """Let containers that mount the wait program, of whichever version, start at once, from their next start on.

    :func:`install` undoes it for those of this version. Raises SettingsError where ``state_dir`` can't be written.
    """
    parent = state_dir / "wait"
    try:
        for directory in filter(holds_program, parent.glob("*")):
            _write(directory / WAIT_PROGRAM, program("go", machine), by_way_of=parent)
    except OSError as error:
        raise SettingsError(f"can't release containers by {parent}: {error.strerror}") from error


def holds_program(path: Path) -> bool:
    """Whether this is a directory that :func:`install` made."""
    return path.is_dir() and re.fullmatch(r"[0-9a-f]{12}", path.name) is not None


def _make_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o7777 != _DIRECTORY_MODE:  # whatever the umask is
        directory.chmod(_DIRECTORY_MODE)
    if directory.stat().st_uid != os.geteuid():
        os.chown(directory, os.geteuid(), os.getegid())


def _is_intact(path: Path, content: bytes) -> bool:
    try:
        status = path.lstat()
        return (status.st_mode == 0o100000 | _PROGRAM_MODE and status.st_uid == os.geteuid()
                and path.read_bytes() == content)
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes, by_way_of: Path) -> None:
    """Write a file whole or not at all, and durably: after a power cut Docker may start containers before we run."""
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=by_way_of)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, _PROGRAM_MODE)
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    for directory in (path.parent, by_way_of):
        _sync(directory)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
