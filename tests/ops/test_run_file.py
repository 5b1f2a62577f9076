from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from weavemw.errors import Conflict, SettingsError
from weavemw.ops.run_file import RunFile, last, running, terminate

_HOLDER = """
import sys
from pathlib import Path
from weavemw.ops.run_file import RunFile
held = RunFile(Path(sys.argv[1]), what="test")
held.write({"listeners": ["unix:///x"]})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds ``run/test.json``."""
    child = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path / "run/test.json")], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_what_runs_can_be_read_by_others(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """The facts are there while the process lives, with the kernel's word on its pid, and gone however it ends."""
    path = tmp_path / "run/test.json"
    assert running(path) == {"listeners": ["unix:///x"], "pid": holder.pid}
    holder.kill()
    holder.wait()
    assert running(path) is None


def test_anybody_may_read_it_and_nobody_else_open_the_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Who may open a file may lock it: so the one is never locked, and the other closed to others."""
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").iterdir()} == {
        "test.json": "0o644", "test.lock": "0o600"}


def test_a_lock_on_the_facts_harms_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A lock of an open file description has no pid, and reads as -1: that would be everybody (kill(2))."""
    path = tmp_path / "run/test.json"
    with path.open() as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 0, 0))
        assert running(path) == {"listeners": ["unix:///x"], "pid": holder.pid}
        terminate(path)
    assert holder.wait(5) == -15


@pytest.mark.parametrize("pid", [-1, 0, 1, True, "7", None])
def test_no_file_names_everybody(tmp_path: Path, pid: object) -> None:
    """A pid that is none, or init's, is nobody's."""
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"pid": pid, "born": 0}))
    assert running(path) is None
    terminate(path)


def test_a_later_process_with_the_same_pid_is_another(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """By the time of its start it is told apart, and left alone."""
    path = tmp_path / "run/test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "born": 1}))
    assert running(path) is None
    terminate(path)
    assert holder.poll() is None


def test_only_who_has_the_lock_is_ended(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """What a file says is not enough for a signal."""
    path = tmp_path / "run/test.json"
    (tmp_path / "run/other.json").write_bytes(path.read_bytes())
    (tmp_path / "run/other.lock").touch()
    with pytest.raises(Conflict, match=f"process {holder.pid}, which .*other.json names, does not hold .*other.lock"):
        terminate(tmp_path / "run/other.json")
    assert holder.poll() is None


def test_what_others_can_write_is_not_believed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Neither a file, nor one in such a directory; nor is anything written there."""
    path = tmp_path / "run/test.json"
    path.chmod(0o666)
    with pytest.raises(SettingsError, match=r"test\.json can be written by others, and can't be trusted"):
        terminate(path)
    path.chmod(0o644)
    path.parent.chmod(0o777)
    for act in (running, terminate, lambda path: RunFile(path, what="test")):
        with pytest.raises(SettingsError, match=r"run can be written by others"):
            act(path)
    assert holder.poll() is None


def test_a_link_is_not_believed(tmp_path: Path) -> None:
    """It may lead anywhere."""
    (tmp_path / "here").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="here is a symbolic link"):
        RunFile(tmp_path / "here/test.json", what="test")


def test_there_is_only_one(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A second one is told who was first, and does not harm its facts."""
    path = tmp_path / "run/test.json"
    with pytest.raises(Conflict, match=rf"the thing is already running \(pid {holder.pid}\)"):
        RunFile(path, what="the thing")
    assert running(path) == {"listeners": ["unix:///x"], "pid": holder.pid}


def test_nobody_runs_where_nobody_ever_ran(tmp_path: Path) -> None:
    """A missing file, a missing directory and a left-over file all mean the same."""
    assert running(tmp_path / "none/test.json") is None
    (tmp_path / "test.json").write_text('{"listeners": []}')
    assert running(tmp_path / "test.json") is None


def test_old_facts_end_with_the_new_process(tmp_path: Path) -> None:
    """A process that starts is not taken for its predecessor."""
    path = tmp_path / "test.json"
    path.write_text('{"listeners": ["unix:///old"]}')
    held = RunFile(path, what="test")
    assert running(path) == {"pid": os.getpid()}
    held.write({"listeners": ["unix:///new"]})
    held.close()
    assert running(path) is None
    assert last(path) == {"listeners": ["unix:///new"]}


def test_what_ran_last_is_known(tmp_path: Path) -> None:
    """Whoever clears up after it can read where it was."""
    path = tmp_path / "test.json"
    assert last(path) == {}
    path.write_text('{"listeners": ["unix:///old"]}')
    assert last(path) == {"listeners": ["unix:///old"]}
    path.write_text("")
    assert last(path) == {}
