"""Files that Docker makes for each container and mounts into it: changed in place, from outside.

Docker writes them anew at each start. What is written here goes into the same inode, so that the container sees it;
it needs neither root nor a shell.
"""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import stat
from collections.abc import Callable

from weavemw.dockerapi.container import Container

__all__ = ["change", "is_dockers", "read"]

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20


def is_dockers(container: Container, path: str, target: str) -> bool:
    """Whether a path is that of the file that Docker made for this container, and nothing is mounted over it."""
    made = path.endswith(f"/containers/{container.id}/{posixpath.basename(target)}")
    return made and target not in container.mount_targets


def change(container: Container, path: str, target: str, changed: Callable[[str], str]) -> bool:
    """Let the text of a container's file be what ``changed`` makes of it; ``target`` is its path in the container.

    What fails is logged as a warning, since the network works without. ``False`` if it was not to be done.
    """
    if not is_dockers(container, path, target):
        return False
    try:
        _change(path, changed)
    except (OSError, ValueError) as error:
        _log.warning("container %s: %s is left as Docker wrote it: %s", container.short_id, target, error)
        return False
    return True


def read(path: str) -> str:
    """The text of such a file. Raises OSError, and ValueError for what Docker would not have written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _decoded(_read(descriptor))
    finally:
        os.close(descriptor)


def _change(path: str, changed: Callable[[str], str]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = _read(descriptor)
        _write(descriptor, changed(_decoded(before)).encode("utf-8", "surrogateescape"), before)
    finally:
        os.close(descriptor)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _read(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        raise ValueError("it is not an ordinary file of at most 1 MB")
    return os.pread(descriptor, _LARGEST, 0)


def _write(descriptor: int, after: bytes, before: bytes) -> None:
    """Whole text first, then its end: nobody who reads meanwhile finds the file empty."""
    if after == before:
        return
    if os.pwrite(descriptor, after, 0) < len(after):  # a full disk
        os.pwrite(descriptor, before, 0)
        os.ftruncate(descriptor, len(before))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, len(after))
