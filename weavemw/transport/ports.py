"""Who listens on a port of this host: for saying it where the port is wanted too. Reads ``/proc`` only."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["holder", "inode_of", "named", "peer_of"]

_PROC = Path("/proc")
#: What a socket's state is while it waits for others (Linux, include/net/tcp_states.h), by protocol.
_WAITING = {"tcp": "0A", "udp": "07"}


def holder(host: str, port: int, protocol: str = "tcp") -> str:
    """The program that has a port at an address, as "nginx (pid 7)".

    Empty if nobody has it; "another program" if we may not know which.
    """
    tables = [(_PROC / "self/net" / f"{protocol}{six}") for six in ("", "6")]
    text = "".join(table.read_text() for table in tables if table.exists())
    inode = inode_of(text, host, port, _WAITING[protocol])
    if not inode:
        return ""
    pid = next(_pids_with(f"socket:[{inode}]"), 0)
    return named(pid) if pid else "another program"


def named(pid: int) -> str:
    """A process by its name and pid."""
    try:
        return f"{(_PROC / str(pid) / 'comm').read_text().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"


def inode_of(table: str, host: str, port: int, state: str) -> int:
    """The inode of the socket that waits at an address, in ``/proc/net/tcp`` and its like (proc(5)); 0 if none does.

    A wildcard stands for every address, on either side.
    """
    for line in table.splitlines():
        words = line.split()
        if len(words) < 10 or words[3] != state:
            continue
        address, _, hexadecimal = words[1].partition(":")
        if int(hexadecimal, 16) == port and _overlap(_address(address), host):
            return int(words[9])
    return 0


def _overlap(one: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> bool:
    try:
        other = ipaddress.ip_address(host)
    except ValueError:  # a name
        return True
    return one == other or one.is_unspecified or other.is_unspecified


def _address(hexadecimal: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel writes words of 32 bits in the host's order."""
    count = len(hexadecimal) // 8
    words = struct.unpack(f">{count}I", bytes.fromhex(hexadecimal))
    packed = struct.pack(f"{'<' if sys.byteorder == 'little' else '>'}{count}I", *words)
    found = ipaddress.ip_address(packed)
    return getattr(found, "ipv4_mapped", None) or found


def _pids_with(link: str) -> Iterator[int]:
    return (int(process) for process in filter(str.isdigit, os.listdir(_PROC))
            if link in _links(_PROC / process / "fd"))


def _links(directory: Path) -> Iterator[str]:
    """Where a process's descriptors lead; what is gone by now, or not for us to see, is passed over."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                yield os.readlink(directory / name)


def peer_of(sock: socket.socket) -> int:
    """The pid of whoever listens at the other end of a unix socket (unix(7), ``SO_PEERCRED``)."""
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
