"""A container's ``/etc/hosts``: its names mean its weave addresses, and everything else that Docker wrote is kept.

Docker writes the file anew at each start, and mounts it into the container; so
ours is written after each start, into the same inode, from outside: the
container needs neither root nor a shell.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence

from weavemw.dockerapi.container import Container
from weavemw.network.addresses import Interface

__all__ = ["hosts_of", "is_dockers", "rewrite", "rewritten"]

_log = logging.getLogger(__name__)
_TARGET = "/etc/hosts"
_MARK, _SILENCED = "\t# weave", "# weave: "
_LARGEST = 1 << 20


def rewritten(text: str, addresses: Sequence[Interface], names: Sequence[str], dockers: Collection[str] = ()) -> str:
    """The file with a line for each weave address first; our lines of an earlier time go, all others stay.

    ``names`` are in the order of hosts(5), the canonical one first; without any
    there is nothing to say. A line by which Docker gives one of them to one of
    the addresses ``dockers`` becomes a comment, as long as there is one of ours:
    glibc would find both addresses.
    """
    ours = [f"{one.ip}\t{' '.join(names)}{_MARK}" for one in addresses if names]
    lines = text.removesuffix("\n").split("\n") if text else []
    kept = (line.removeprefix(_SILENCED) for line in lines if not line.endswith(_MARK))
    rest = [f"{_SILENCED}{line}" if ours and _gives(line, names, dockers) else line for line in kept]
    return "".join(f"{line}\n" for line in ours + rest)


def _gives(line: str, names: Sequence[str], addresses: Collection[str]) -> bool:
    address, *its_names = line.split() or ("",)
    return address in addresses and not set(names).isdisjoint(its_names)


def hosts_of(fqdns: Iterable[str], container: Container) -> tuple[str, ...]:
    """Names for the container's own line: each registered name in full and in short, then its hostname."""
    return tuple(dict.fromkeys(name for name in _spelled(fqdns, container) if name))


def is_dockers(container: Container) -> bool:
    """Whether ``HostsPath`` is the file that Docker made for this container, and nothing is mounted over it."""
    made = container.hosts_path.endswith(f"/containers/{container.id}/hosts")
    return made and _TARGET not in container.mount_targets


def rewrite(container: Container, addresses: Sequence[Interface], fqdns: Iterable[str]) -> bool:
    """Rewrite the container's file; what fails is logged as a warning, since its network works without."""
    if not is_dockers(container):
        return False
    try:
        _rewrite(container, addresses, hosts_of(fqdns, container))
    except (OSError, ValueError) as error:
        _log.warning("container %s: %s is left as Docker wrote it: %s", container.short_id, _TARGET, error)
        return False
    return True


def _rewrite(container: Container, addresses: Sequence[Interface], names: Sequence[str]) -> None:
    descriptor = os.open(container.hosts_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = _read(descriptor)
        after = rewritten(before.decode("utf-8", "surrogateescape"), addresses, names, container.addresses)
        _write(descriptor, after.encode("utf-8", "surrogateescape"), before)
    finally:
        os.close(descriptor)


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


def _spelled(fqdns: Iterable[str], container: Container) -> Iterator[str]:
    for fqdn in fqdns:
        yield fqdn.rstrip(".")
        yield fqdn.partition(".")[0]
    if container.uts_mode != "host" and container.hostname:
        yield f"{container.hostname}.{container.domainname}" if container.domainname else ""
        yield container.hostname
