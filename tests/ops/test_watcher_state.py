from __future__ import annotations

import json
import os
import threading
import time

import pytest

from weavemw.errors import SettingsError
from weavemw.ops import watcher_state as module
from weavemw.ops.watcher_state import STATE_FILE, Pending, State, StateFile, read_state

WEB = "1" * 64


@pytest.mark.parametrize(("attempts", "delay"), [(1, 1.0), (2, 1.5), (3, 2.25), (11, 57.665), (12, 60.0),
                                                 (10**9, 60.0)])
def test_delays_grow_to_a_minute(attempts, delay):
    """Attempts come after 1 s, then half as much later each time, at most after a minute."""
    assert Pending("web", "no", attempts).delay == pytest.approx(delay, abs=0.001)


def test_the_file_is_always_whole(tmp_path):
    """Whoever reads the state finds all of it; without a watcher there is none."""
    assert read_state(tmp_path) is None
    file, done, found = StateFile(tmp_path), threading.Event(), []
    file.write()

    def read():
        while not done.is_set():
            found.append(read_state(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        with file.changing() as state:
            state.pending[WEB] = Pending("web", "x" * 1000, number)
        file.write()
    done.set()
    reader.join()
    assert None not in found
    assert read_state(tmp_path) == file.state
    assert os.listdir((tmp_path / STATE_FILE).parent) == ["watcher.json"]


@pytest.mark.parametrize("text", [
    b"", b"{", b"\x00" * 100, b"\xff\xfe", b"[]", b"null", b"7", b'"x"', b"[" * 100_000,
    b'{"counters":[]}', b'{"counters":{"attached":"7"}}', b'{"counters":null}', b'{"pending":[]}', b'{"pending":null}',
    b'{"pending":{"a":null}}', b'{"pending":{"a":{"name":1}}}', b'{"failing":{"a":{"attempts":"x"}}}',
    b'{"left_alone":{"a":1}}', b'{"left_alone":[1]}', b'{"beat":"now"}', b'{"since":null}', b'{"connected":"yes"}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path, caplog, text):
    """It is logged, and hinders neither those who ask nor the watcher, which writes it anew."""
    (tmp_path / STATE_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / STATE_FILE).write_bytes(text)
    assert read_state(tmp_path) is None
    assert f"{tmp_path / STATE_FILE} is damaged" in caplog.text
    file = StateFile(tmp_path)
    file.begin()
    file.count("attached")
    file.write()
    assert read_state(tmp_path).counters["attached"] == 1


def test_sums_go_on(tmp_path):
    """They don't end with the process that counted; what another version wrote besides is passed over."""
    stored = {"counters": {"attached": 7}, "pending": {WEB: {"name": "x", "error": "e", "new": 1}}, "new": 1}
    (tmp_path / STATE_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / STATE_FILE).write_text(json.dumps(stored))
    assert read_state(tmp_path).pending[WEB].error == "e"
    file = StateFile(tmp_path)
    file.begin()
    file.count("attached")
    assert (file.state.counters["attached"], file.state.counters["retries"], file.state.pending) == (8, 0, {})


def test_a_file_that_can_not_be_read_ends_no_watcher(tmp_path, caplog):
    """Who asks is told; the watcher logs it and counts anew."""
    (tmp_path / STATE_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / STATE_FILE).mkdir()
    with pytest.raises(SettingsError, match="can't read"):
        read_state(tmp_path)
    StateFile(tmp_path).begin()
    assert "counts anew" in caplog.text


def test_what_can_not_be_written_is_said_once_and_tried_again(tmp_path, caplog, monkeypatch):
    """A full disk, say: the log is not filled too, and later the state is there."""
    monkeypatch.setattr(module, "_BEAT", 0.0)
    run_dir = tmp_path / "later"
    run_dir.write_text("a file")
    file = StateFile(run_dir)
    file.write()
    file.write()
    assert caplog.text.count("can't write the watcher's state") == 1
    run_dir.unlink()
    file.write()
    assert read_state(run_dir) == file.state


def test_it_is_written_when_it_changes_and_now_and_then(tmp_path):
    """What has not changed is written every few seconds, so that others see that there is a watcher."""
    file = StateFile(tmp_path)

    def is_written():
        (tmp_path / STATE_FILE).unlink(missing_ok=True)
        file.write()
        return (tmp_path / STATE_FILE).exists()

    assert is_written()
    assert not is_written()
    file.count("attached")
    assert is_written()
    assert not is_written()
    file.state.beat -= 10
    assert is_written()
    file.state.beat += 1000  # the clock was set back
    assert is_written()


@pytest.mark.parametrize(("silent", "connected", "error"), [
    (0, True, ""), (19, True, ""), (21, False, "it stopped 21 s ago"), (-1000, True, "")])
def test_a_watcher_that_is_silent_has_stopped(silent, connected, error):
    """What it said last does not count for ever."""
    state = State(connected=True)
    seen = state.seen_at(state.beat + silent)
    assert (seen.connected, seen.error) == (connected, error)
    assert state.connected


def test_readers_see_that_it_stopped(tmp_path):
    """The file says when it was written."""
    file = StateFile(tmp_path)
    with file.changing() as state:
        state.connected = True
    file.write()
    assert read_state(tmp_path).connected
    stored = json.loads((tmp_path / STATE_FILE).read_text())
    (tmp_path / STATE_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / STATE_FILE).write_text(json.dumps(stored | {"beat": time.time() - 100}))
    assert read_state(tmp_path).error.startswith("it stopped 100 s ago")
