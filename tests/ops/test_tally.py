from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from weavemw.errors import Conflict, NetworkError, WeaveError
from weavemw.ops.tally import BUCKET_NAMES, STREAMS, STREAMS_ENDED, SharedTally, Tally, read_shared, remove_shared


def test_additions_from_many_threads_all_count() -> None:
    """None is lost."""
    tally = Tally()
    threads = [threading.Thread(target=lambda: [tally.add("n", ("a",)) for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.numbers() == {("n", ("a",)): 20000.0}


@pytest.mark.parametrize(("seconds", "bucket"), [
    (0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (30.0, "30.0"), (31.0, "+Inf"),
])
def test_a_time_counts_in_the_first_bucket_that_holds_it(seconds: float, bucket: str) -> None:
    """The upper bound belongs to its bucket, as Prometheus's ``le`` says."""
    tally = Tally()
    tally.observe("t", seconds)
    assert tally.numbers() == {("t", (bucket,)): 1.0, ("t_sum", ()): seconds}
    assert bucket in BUCKET_NAMES


def test_failures_are_counted_apart_from_times() -> None:
    """A block that raises has no time; an error that is none counts nowhere."""
    tally = Tally()
    for error in (NetworkError("no"), Conflict("ended"), ValueError()):
        with pytest.raises(type(error)), tally.failing("failures", WeaveError, Conflict), tally.timing("t"):
            raise error
    assert tally.numbers() == {("failures", ()): 1.0}


def test_nothing_is_written_before_there_is_something_to_count(tmp_path: Path) -> None:
    """Making it touches no file: it may be made before a fork."""
    SharedTally(tmp_path / "metrics")
    assert not (tmp_path / "metrics").exists()
    assert read_shared(tmp_path / "metrics") == {}


_CHILD = """
import sys
from pathlib import Path
from weavemw.ops.tally import STREAMS, SharedTally
tally = SharedTally(Path(sys.argv[1]))
tally.add("n", ("ä",), float(sys.argv[2]))
tally.add(STREAMS)
print(flush=True)
sys.stdin.read()
"""


def _counting_child(directory: Path, amount: int) -> subprocess.Popen[bytes]:
    """A process that has counted, and waits to be killed."""
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(directory), str(amount)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"\n"
    return child


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def test_processes_count_side_by_side_and_nothing_is_lost_with_a_killed_one(tmp_path: Path) -> None:
    """The sums are those of all, dead or alive; a new process takes over the file of a dead one."""
    children = [_counting_child(tmp_path, 1), _counting_child(tmp_path, 10)]
    assert read_shared(tmp_path)["n", ("ä",)] == 11.0
    _kill(children.pop())
    assert read_shared(tmp_path)["n", ("ä",)] == 11.0
    children.append(_counting_child(tmp_path, 100))
    assert read_shared(tmp_path)["n", ("ä",)] == 111.0
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["0.db", "1.db"]
    for child in children:
        _kill(child)


def test_locks_of_others_make_no_further_files(tmp_path: Path) -> None:
    """Whoever may read the numbers may lock their files: it changes nothing."""
    for _ in range(2):
        with closing(SharedTally(tmp_path)) as tally:
            tally.add("n")
        with (tmp_path / "0.db").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with closing(SharedTally(tmp_path)) as tally:
                tally.add("n")
    assert [path.name for path in tmp_path.glob("*.db")] == ["0.db"]
    assert (tmp_path / "0.lock").stat().st_mode & 0o777 == 0o600
    assert read_shared(tmp_path)["n", ()] == 4.0


def test_streams_end_with_their_process(tmp_path: Path) -> None:
    """Whoever takes over a file counts the streams of the dead as ended."""
    _kill(_counting_child(tmp_path, 1))
    assert (STREAMS_ENDED, ()) not in read_shared(tmp_path)
    with closing(SharedTally(tmp_path)) as tally:
        tally.add(STREAMS)
    found = read_shared(tmp_path)
    assert (found[STREAMS, ()], found[STREAMS_ENDED, ()]) == (2.0, 1.0)


@pytest.mark.parametrize("content", [
    pytest.param(b"\xff" * 100, id="nonsense"), pytest.param(b"\x10", id="cut off"),
    pytest.param((40).to_bytes(4, "little") + bytes(4) + (24).to_bytes(4, "little") + b"{" * 24 + bytes(32),
                 id="no cell"),
])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    """It hinders neither who reads nor who counts."""
    (tmp_path / "0.db").write_bytes(content)
    assert read_shared(tmp_path) == {}
    with closing(SharedTally(tmp_path)) as tally:
        tally.add("n")
    assert read_shared(tmp_path)["n", ()] == 1.0


def test_without_a_place_to_write_it_counts_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And says once that nobody will see it."""
    (tmp_path / "metrics").write_text("a file")
    tally = SharedTally(tmp_path / "metrics")
    tally.add("n")
    tally.add("n")
    assert tally.numbers() == {("n", ()): 2.0}
    assert caplog.text.count("metrics are not kept") == 1


def test_a_proxy_that_starts_begins_at_zero(tmp_path: Path) -> None:
    """The files of the one before are removed."""
    with closing(SharedTally(tmp_path)) as tally:
        tally.add("n")
    remove_shared(tmp_path)
    assert read_shared(tmp_path) == {}
