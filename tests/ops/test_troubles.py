from __future__ import annotations

import fcntl
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from weavemw.errors import SettingsError
from weavemw.ops import troubles
from weavemw.ops.troubles import FILE, LOCK, Recorder, latest


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    """A logger whose warnings are kept."""
    logger, recorder = logging.getLogger("tests.troubles"), Recorder(tmp_path, "proxy")
    (tmp_path / FILE).parent.mkdir()
    logger.addHandler(recorder)
    yield logger
    logger.removeHandler(recorder)


def test_warnings_and_errors_are_kept_the_newest_last(log: logging.Logger, tmp_path: Path) -> None:
    """With program, level and time; what is less than a warning is not."""
    log.info("nothing")
    log.warning("container %s waits", "web")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it failed")
    found = latest(tmp_path)
    assert [(each.program, each.level, each.message) for each in found] == [
        ("proxy", "warning", "container web waits"), ("proxy", "error", "it failed: ValueError('why')")]
    assert found[0].time <= found[1].time
    assert latest(tmp_path, 1) == found[1:]


def test_names_that_clients_choose_make_no_lines_of_their_own(log: logging.Logger, tmp_path: Path) -> None:
    """Control characters are escaped, and a message has an end."""
    log.warning("a\nb\x1b[31m%s", "x" * 1000)
    message = latest(tmp_path)[0].message
    assert message.startswith("a\\x0ab\\x1b[31mx")
    assert len(message) == 500


def test_the_file_does_not_grow_for_ever(log: logging.Logger, tmp_path: Path) -> None:
    """Whoever writes: the newest lines stay, each of them whole."""
    def write() -> None:
        for number in range(300):
            log.warning("%d %s", number, "x" * 200)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / FILE).stat().st_size < 70000
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len(lines) >= 100
    assert all(json.loads(line) for line in lines)
    assert latest(tmp_path)[-1].message.startswith("299 ")


def test_what_can_not_be_read_is_passed_over(tmp_path: Path) -> None:
    """Lines that are cut off, and those of another version; without a file there are none."""
    assert latest(tmp_path) == []
    (tmp_path / FILE).parent.mkdir()
    good = {"time": 1.0, "program": "router", "level": "error", "message": "m"}
    (tmp_path / FILE).write_text("\n".join(['{"time":', json.dumps(good), json.dumps({**good, "new": 1})]))
    assert [each.message for each in latest(tmp_path)] == ["m"]


def test_nobody_can_stop_the_writer(log: logging.Logger, tmp_path: Path) -> None:
    """Whoever may read the file may lock it, and nobody waits for that; the lock is closed to all others."""
    log.warning("first")
    with (tmp_path / FILE).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        log.warning("second")
    assert [each.message for each in latest(tmp_path)] == ["first", "second"]
    assert (tmp_path / LOCK).stat().st_mode & 0o777 == 0o600


def test_a_writer_that_was_stopped_stops_nobody_else(log: logging.Logger, tmp_path: Path) -> None:
    """The lock of our own is not waited for without an end, either."""
    with (tmp_path / LOCK).open("w") as lock:
        (tmp_path / LOCK).chmod(0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.warning("said")
    assert [each.message for each in latest(tmp_path)] == ["said"]


def test_a_directory_in_the_way_is_said(tmp_path: Path) -> None:
    """By the error that users see."""
    (tmp_path / FILE).mkdir(parents=True)
    with pytest.raises(SettingsError, match="Is a directory"):
        latest(tmp_path)


def test_a_program_without_a_run_directory_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says once that the errors are not kept."""
    (tmp_path / "file").touch()
    troubles.record(tmp_path / "file", "proxy")
    assert "the last errors are not kept" in caplog.text
