from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from weavemw.errors import SettingsError
from weavemw.ops import files

_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_for_us_alone_to_write_in(tmp_path: Path) -> None:
    """With those above it, whatever the umask is; one that is there is left as it is."""
    before = os.umask(0)
    try:
        files.directory(tmp_path / "a/b/c", 0o750)
        files.directory(tmp_path / "a/b/c")
    finally:
        os.umask(before)
    assert [_mode(tmp_path / each) for each in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o750]


@pytest.mark.root
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Its owner could put any file there."""
    (tmp_path / "a").mkdir()
    os.chown(tmp_path / "a", 65534, 65534)
    with pytest.raises(SettingsError, match="a belongs to user 65534, and can't be trusted: `chown root"):
        files.directory(tmp_path / "a")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """Is said in a line."""
    (tmp_path / "a").touch()
    with pytest.raises(SettingsError, match=r"can't make .*/a/b: Not a directory"):
        files.directory(tmp_path / "a/b")


def test_what_others_could_open_is_replaced(tmp_path: Path) -> None:
    """A lock that somebody holds on it by then holds nobody up."""
    path = tmp_path / "lock"
    path.touch(0o644)
    with path.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        held = files.lock(path)
        assert held is not None
        assert _mode(path) == 0o600
        assert files.lock(path, 0.05) is None
        os.close(held)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Neither for a lock, nor for what is read."""
    (tmp_path / "there").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for act in (files.lock, files.read):
        with pytest.raises(OSError, match="symbolic links"):
            act(tmp_path / "link")


def test_a_file_closed_to_others_keeps_what_it_holds(tmp_path: Path) -> None:
    """And whoever has it open has another one from then on; one that is closed already is left as it is."""
    path = tmp_path / "data"
    files.make_private(path)
    path.write_bytes(b"all")
    path.chmod(0o644)
    with path.open() as theirs:
        files.make_private(path)
        assert not os.path.samestat(os.fstat(theirs.fileno()), path.stat())
    assert (path.read_bytes(), _mode(path)) == (b"all", 0o600)
    before = path.stat().st_ino
    files.make_private(path)
    assert path.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Who reads meanwhile finds the one or the other; nothing else is left there."""
    path, seen, stop = tmp_path / "data", set(), threading.Event()
    files.replace(path, b"a" * 9000)

    def look() -> None:
        while not stop.is_set():
            seen.add(files.read(path))

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(200):
        files.replace(path, (b"a", b"b")[number % 2] * 9000)
    stop.set()
    thread.join()
    assert seen <= {b"a" * 9000, b"b" * 9000}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.root
def test_nobody_can_open_what_we_lock() -> None:
    """As the kernel sees it."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        place.chmod(0o755)
        os.close(files.open_private(place / "private"))
        files.replace(place / "shown", b"")
        for name, status in (("private", 1), ("shown", 0)):
            done = subprocess.run([*_AS_NOBODY, "cat", place / name], capture_output=True, text=True)
            assert (name, done.returncode) == (name, status), done.stderr
