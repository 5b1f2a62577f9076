"""What is where in the run directory, and who may read it.

====================  ====================================================================
``proxy.json``        what the running proxy says of itself; everybody may read it
``status/``           for root and the group of Docker's socket: ``watcher.json``,
                      ``errors.jsonl``, ``metrics/``
``router.sock``       the router's API, for whoever may use Docker's socket
``*.lock, locks/``    closed to all others
====================  ====================================================================
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from weavemw.ops import files

__all__ = ["DEFAULT_ROUTER", "STATUS", "RouterAddress", "prepare", "router_at", "router_sockets"]

#: The directory of what people who may use Docker may read, in the run directory.
STATUS = "status"

#: Where a router listens unless told otherwise.
DEFAULT_ROUTER = "127.0.0.1:6784"

_LONGEST_PATH = 107  # bytes: sun_path less its final zero (unix(7))


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """Where a router's API is: as host:port, and the unix socket that it has as well if it is ours."""

    tcp: str
    socket: Path | None = None

    def __str__(self) -> str:
        return self.tcp


def router_at(run_dir: Path, address: str) -> RouterAddress:
    """The address of a router of this host, given as host:port; each has a socket of its own.

    It has none where the run directory's path is too long for one (unix(7)); then it is reached by TCP alone.
    """
    name = "router.sock" if address == DEFAULT_ROUTER else f"router-{address.replace('/', '_')}.sock"
    path = run_dir / name
    return RouterAddress(address, path if len(os.fsencode(path)) <= _LONGEST_PATH else None)


def router_sockets(run_dir: Path) -> list[Path]:
    """The sockets of all routers that this run directory ever had, those that are left of dead ones too."""
    return [*run_dir.glob("router.sock"), *run_dir.glob("router-*.sock")]


def prepare(run_dir: Path, docker_socket: str) -> None:
    """Make the run directory, and let the group of Docker's socket read what is for it.

    Raises :class:`~weavemw.errors.SettingsError` if it can't be made, or others could write there.
    """
    files.directory(run_dir)
    files.directory(run_dir / STATUS, 0o750)
    with contextlib.suppress(OSError):  # no Docker yet, or not root: then it is for root, or for us
        os.chown(run_dir / STATUS, -1, os.stat(docker_socket).st_gid)
