from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from weavemw.errors import Conflict
from weavemw.ops.run_file import RunFile, last, running

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
    assert path.read_text() == ""
    held.close()


def test_what_ran_last_is_known(tmp_path: Path) -> None:
    """Whoever clears up after it can read where it was."""
    path = tmp_path / "test.json"
    assert last(path) == {}
    path.write_text('{"listeners": ["unix:///old"]}')
    assert last(path) == {"listeners": ["unix:///old"]}
    path.write_text("")
    assert last(path) == {}
