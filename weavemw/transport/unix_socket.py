"""Unix sockets through which no more people get in than through another one.

They are bound here and not by a server: there must not be a moment at which one is open to others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from weavemw.errors import SettingsError
from weavemw.transport import ports

__all__ = ["bind_unix", "listening"]

_BACKLOG = 1024


def bind_unix(path: str, like: os.stat_result) -> socket.socket:
    """A socket that listens at a path, with owner, group and mode of ``like`` from the moment it exists.

    Must be called before threads are started: the umask and the effective group, which are the process's own, are
    changed while it is bound. A socket file on which nobody listens is replaced. Raises ``OSError``, and
    :class:`~weavemw.errors.SettingsError` if others could put a socket there, or somebody listens.
    """
    _refuse_open_directory(os.path.dirname(path))
    _remove_stale(path)
    with listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        try:
            _bind_as_owner(sock, path, like)
        except PermissionError:
            _bind_closed(sock, path, like)
    return sock


def _bind_as_owner(sock: socket.socket, path: str, like: os.stat_result) -> None:
    # The kernel takes the inode's owner and mode from the process that binds:
    # so there is no moment at which they are others.
    if like.st_uid != os.geteuid():
        raise PermissionError
    with _umask(0o777 & ~like.st_mode), _effective_group(like.st_gid):
        sock.bind(path)


def _bind_closed(sock: socket.socket, path: str, like: os.stat_result) -> None:
    # Another owner than ourselves: nobody may connect until all is set.
    with _umask(0o777):
        sock.bind(path)
    os.chown(path, like.st_uid, like.st_gid, follow_symlinks=False)
    Path(path).chmod(stat.S_IMODE(like.st_mode))


def _refuse_open_directory(directory: str) -> None:
    mode = os.stat(directory).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise SettingsError(f"can't listen in {directory}: everybody could put a socket of their own in our place")


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "there is something else, not a socket"
        raise SettingsError(f"can't listen on unix://{path}: {what}")
    if who := _who_answers(path):
        raise SettingsError(f"can't listen on unix://{path}: {who} listens there already")
    os.unlink(path)


def _who_answers(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # its queue is full: somebody is there
            return "somebody"
        except ConnectionRefusedError:
            return ""
        return ports.named(ports.peer_of(probe))


@contextlib.contextmanager
def listening(sock: socket.socket) -> Iterator[socket.socket]:
    """Let a socket listen at the end of the block; close it if that fails."""
    try:
        yield sock
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _effective_group(group: int) -> Iterator[None]:
    before = os.getegid()
    if group == before:
        yield
        return
    os.setegid(group)
    try:
        yield
    finally:
        os.setegid(before)
