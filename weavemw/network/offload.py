"""Checksums that an interface leaves to its hardware, and an interface without hardware to nobody (ethtool(8))."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from weavemw.errors import NetworkError

__all__ = ["PLAIN_BRIDGE", "is_on", "turn_off"]

#: Interfaces of a Weave Net router whose bridge is the plain kind: one that is there, and ones that are not. It
#: reads packets from the bridge as they are, and carries them to other hosts with checksums that nobody finished.
PLAIN_BRIDGE = ("vethwe-bridge", ("vethwe-datapath", "datapath"))

_SIOCETHTOOL, _ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x8946, 0x16, 0x17


def turn_off(name: str) -> None:
    """Let an interface of the calling thread's namespace finish the checksums of all that it sends.

    Raises :class:`~weavemw.errors.NetworkError`.
    """
    _ethtool(name, _ETHTOOL_STXCSUM, 0)


def is_on(name: str) -> bool:
    """Whether it leaves them to others. Raises :class:`~weavemw.errors.NetworkError`."""
    return bool(_ethtool(name, _ETHTOOL_GTXCSUM, 0))


def _ethtool(name: str, command: int, value: int) -> int:
    asked = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(asked))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError as error:
        raise NetworkError(f"can't let {name} finish checksums: {error.strerror}") from error
    return int(struct.unpack("=II", asked.raw)[1])
