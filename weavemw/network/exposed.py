"""Which networks are masqueraded for `weave expose`: what should be, in a file, and what is, in the firewall.

The file is in the run directory, since what is exposed is so until the host boots. It has a network on each line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from ipaddress import ip_network
from pathlib import Path

from weavemw.errors import SettingsError
from weavemw.network import firewall
from weavemw.network.firewall import Network
from weavemw.ops import files

__all__ = ["FILE", "masquerade", "masquerade_again", "masqueraded"]

#: The file's name.
FILE = "masquerade"


def masqueraded(run_dir: Path) -> frozenset[Network]:
    """The networks that should be masqueraded; a line that is none is passed over."""
    found = set()
    with contextlib.suppress(OSError, SettingsError):
        for line in files.read(run_dir / FILE).decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.add(ip_network(line))
    return frozenset(found)


def masquerade(run_dir: Path, networks: Collection[Network]) -> None:
    """Let exactly these networks be masqueraded, from now on.

    Raises :class:`~weavemw.errors.NetworkError` where iptables refuses, or is missing.
    """
    firewall.masquerade(networks)
    path = run_dir / FILE
    if not networks:
        path.unlink(missing_ok=True)
        return
    files.directory(run_dir)
    files.replace(path, "".join(f"{network}\n" for network in sorted(networks, key=str)).encode(), 0o600)


def masquerade_again(run_dir: Path) -> None:
    """Let the firewall be as it should: others flush it. Raises as above."""
    if networks := masqueraded(run_dir):
        firewall.masquerade(networks)
