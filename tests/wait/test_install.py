"""The programs in the package, and the wait program on the host."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import subprocess
import sys

import pytest

from weavemw.errors import SettingsError
from weavemw.wait import MACHINES, PROGRAMS, WAIT_PROGRAM, install, program, release

# ELF's e_machine (System V ABI), at offset 18.
ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "arm": 40, "riscv64": 243}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_is_a_small_executable_of_its_machine(name, machine):
    """What the package carries is what it says: an ELF executable, within one page of memory."""
    content = program(name, machine)
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[16:18], "little") == 2  # ET_EXEC: no loader, no libc
    assert int.from_bytes(content[18:20], "little") == ELF_MACHINES[machine]
    assert len(content) <= 4096


@pytest.mark.parametrize(("spoken", "machine"), [
    ("x86_64", "x86_64"), ("amd64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "aarch64"), ("arm64", "aarch64"),
    ("armv6l", "arm"), ("armv7l", "arm"), ("armv8l", "arm"), ("arm", "arm"), ("riscv64", "riscv64"),
])
def test_machines_go_by_several_names(spoken, machine):
    """The kernel, Docker and Python name the same machine differently."""
    assert program(WAIT_PROGRAM, spoken) == program(WAIT_PROGRAM, machine)


@pytest.mark.parametrize("machine", ["s390x", "i686", "riscv32", "../x86_64"])
def test_an_unknown_machine_is_told_which_are_known(machine):
    """The error names what was asked for and what there is."""
    with pytest.raises(SettingsError, match="x86_64, aarch64, arm, riscv64") as raised:
        program(WAIT_PROGRAM, machine)
    assert repr(machine) in raised.value.message


def test_default_is_this_machine():
    """Without a machine's name, it's the one that this runs on."""
    assert program(WAIT_PROGRAM) == program(WAIT_PROGRAM, platform.machine())


def test_installs_under_its_content(tmp_path):
    """The directory is named by what is in it, holds nothing else, and lets everybody execute."""
    directory = _with_umask(0o077, lambda: install(tmp_path))
    content = program(WAIT_PROGRAM)
    assert directory == tmp_path / "wait" / hashlib.sha256(content).hexdigest()[:12]
    assert [path.name for path in directory.iterdir()] == ["w"]
    assert (directory / "w").read_bytes() == content
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory.parent, directory, directory / "w")]
    assert modes == [0o755, 0o755, 0o555]


def test_installing_again_changes_nothing(tmp_path):
    """An intact program is left as it is, down to its inode: containers have it mounted."""
    before = (install(tmp_path) / "w").stat()
    after = (install(tmp_path) / "w").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def _truncate(path):
    path.chmod(0o755)
    path.write_bytes(path.read_bytes()[:100])
    path.chmod(0o555)


@pytest.mark.parametrize("damage", [
    pytest.param(lambda path: path.unlink(), id="removed"),
    pytest.param(_truncate, id="truncated"),
    pytest.param(lambda path: path.chmod(0o444), id="not executable"),
    pytest.param(lambda path: path.chmod(0o777), id="writable"),
    pytest.param(lambda path: (path.unlink(), path.symlink_to("/bin/true")), id="a link"),
    pytest.param(lambda path: path.parent.chmod(0o700), id="closed"),
])
def test_repairs_what_is_damaged(tmp_path, damage):
    """Whatever happened to it, after installing it is whole, in the directory that containers have mounted."""
    directory = install(tmp_path)
    inode = directory.stat().st_ino
    damage(directory / "w")
    assert install(tmp_path) == directory
    assert directory.stat().st_ino == inode
    assert (directory / "w").read_bytes() == program(WAIT_PROGRAM)
    assert stat.S_IMODE((directory / "w").lstat().st_mode) == 0o555
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_other_versions_stay(tmp_path):
    """Containers made by an older version still find their program after an upgrade."""
    old = tmp_path / "wait" / "0123456789ab"
    old.mkdir(parents=True)
    (old / "w").write_bytes(b"old")
    first = install(tmp_path, "arm64")
    install(tmp_path, "x86_64")
    assert (old / "w").read_bytes() == b"old"
    assert (first / "w").read_bytes() == program(WAIT_PROGRAM, "aarch64")


def test_a_directory_that_docker_made_is_filled(tmp_path):
    """Docker creates a missing source of a mount as an empty directory: that is where the program belongs."""
    made_by_docker = install(tmp_path / "other").name
    (tmp_path / "wait" / made_by_docker).mkdir(parents=True)
    assert (install(tmp_path) / "w").read_bytes() == program(WAIT_PROGRAM)


def test_many_processes_may_install_at_once(tmp_path):
    """Each of them finds the program whole when it has installed it, and nothing else is left."""
    script = ("import pathlib, sys; from weavemw.wait import install, program; sys.stdin.read(); "
              "assert (install(pathlib.Path(sys.argv[1])) / 'w').read_bytes() == program('w')")
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE)
                 for _ in range(8)]
    for process in processes:
        process.stdin.close()
    assert [process.wait(timeout=60) for process in processes] == [0] * 8
    assert [path.name for path in (tmp_path / "wait").rglob("*") if path.is_file()] == ["w"]


@pytest.mark.parametrize("state", ["file", "file/below"])
def test_a_state_directory_that_can_not_be_is_named(tmp_path, state):
    """The error says where it was to be installed and why not, and no temporary file is left."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"can't install the wait program in .*file"):
        install(tmp_path / state)


def test_a_failed_write_leaves_nothing(tmp_path):
    """Where a directory stands in the program's place, the error says so and the temporary file is removed."""
    directory = install(tmp_path)
    (directory / "w").unlink()
    (directory / "w").mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        install(tmp_path)
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def _with_umask(mask, call):
    before = os.umask(mask)
    try:
        return call()
    finally:
        os.umask(before)


def test_released_containers_go_at_once_until_it_is_installed_again(tmp_path):
    """Whichever version they mount; the file is another one, so that nothing that runs is touched."""
    directory, former = install(tmp_path), tmp_path / "wait" / "0123456789ab"
    former.mkdir()
    (former / "w").write_bytes(b"an earlier version")
    with (directory / "w").open("rb") as running:
        release(tmp_path)
        assert running.read() == program("w")
    assert {(each / "w").read_bytes() for each in (directory, former)} == {program("go")}
    assert stat.S_IMODE((directory / "w").stat().st_mode) == 0o555
    assert [path.name for path in (tmp_path / "wait").iterdir() if path.name.startswith(".")] == []
    install(tmp_path)
    assert (directory / "w").read_bytes() == program("w")
    release(tmp_path / "nothing there")


@pytest.mark.parametrize(("words", "said", "status"), [
    (["sh", "-c", 'echo "$A" "$@"; exit 7', "sh", "b c"], "1 b c", 7), (["/no/command"], "", 127),
    (["nosuch"], "", 127), ([], "", 2),
])
def test_the_program_that_goes_at_once_is_as_the_one_that_waits(tmp_path, words, said, status):
    """It looks commands up as that does, in the same words, and there is no interface ethwe here."""
    ran = []
    for name in ("go", "w") if status != 7 else ("go",):
        (tmp_path / name).write_bytes(program(name))
        (tmp_path / name).chmod(0o555)
        ran.append(subprocess.run([tmp_path / name, *words], env={"A": "1", "PATH": "/usr/bin:/bin"}, text=True,
                                  capture_output=True, check=False, timeout=30))
    assert {(done.stdout.strip(), done.returncode) for done in ran} == {(said, status)}
    assert len({done.stderr for done in ran}) == 1
