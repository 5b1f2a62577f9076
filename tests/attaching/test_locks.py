from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from weavemw.attaching.locks import Busy, Locks
from weavemw.errors import SettingsError


def test_one_at_a_time(tmp_path):
    """Of many threads that want one lock, one at a time has it, and all get it."""
    counter, most = 0, 0

    def count(_):
        nonlocal counter, most
        with Locks(tmp_path / "locks").hold("a", timeout=30):
            counter += 1
            most = max(most, counter)
            time.sleep(0.001)
            counter -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(40)))
    assert most == 1
    assert list((tmp_path / "locks").iterdir()) == []


def test_held_by_another_is_busy(tmp_path):
    """A lock that somebody else holds is busy, at once or after the given time; another name is free."""
    locks = Locks(tmp_path)
    with locks.hold("a"), ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(hold, tmp_path, "a", 0.03).exception(), Busy)
        assert pool.submit(hold, tmp_path, "b", 0).exception() is None
    hold(tmp_path, "a", 0)


def hold(directory, name, timeout):
    with Locks(directory).hold(name, timeout):
        pass


def test_again_in_the_same_thread_is_fine(tmp_path):
    """Who holds a lock may take it again, and holds it until the outermost end."""
    locks = Locks(tmp_path)
    with locks.hold("a"):
        with locks.hold("a"):
            pass
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(pool.submit(hold, tmp_path, "a", 0).exception(), Busy)


def test_what_a_dead_process_held_is_free(tmp_path):
    """A process that dies lets go of its lock, and the file that it left is no obstacle."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_for_ever, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(Busy), Locks(tmp_path).hold("a"):
        pass
    process.kill()
    process.join()
    process.close()
    assert (tmp_path / "a").exists()
    hold(tmp_path, "a", 0)
    assert not (tmp_path / "a").exists()


def hold_for_ever(directory, ready):
    with Locks(directory).hold("a"):
        ready.set()
        threading.Event().wait()


def test_an_error_lets_go(tmp_path):
    """A lock is free again after an error."""
    with pytest.raises(KeyError), Locks(tmp_path).hold("a"):
        raise KeyError
    hold(tmp_path, "a", 0)


def test_tidying_removes_what_the_dead_left_and_nothing_else(tmp_path):
    """Files without a holder go; what somebody holds stays held."""
    (tmp_path / "dead").touch()
    locks = Locks(tmp_path)
    with locks.hold("alive"), ThreadPoolExecutor(1) as pool:
        pool.submit(Locks(tmp_path).tidy).result(5)
        assert [path.name for path in tmp_path.iterdir()] == ["alive"]
        assert isinstance(pool.submit(hold, tmp_path, "alive", 0).exception(), Busy)
    Locks(tmp_path / "never made").tidy()


def test_what_fails_leaves_no_descriptor_open(tmp_path, monkeypatch):
    """Neither a lock that the system refuses, nor a file that can't be removed."""
    def refuses(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuses)
        with pytest.raises(SettingsError, match=f"can't lock a in {tmp_path}: no locks available"):
            hold(tmp_path, "a", 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuses)
        hold(tmp_path, "a", 0)
    (tmp_path / "b").mkdir()
    Locks(tmp_path).tidy()
    assert os.listdir("/proc/self/fd") == before
    hold(tmp_path, "a", 0)
