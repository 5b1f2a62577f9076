"""What the kernel tells of interfaces and addresses that change, here and in containers, by route netlink."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Self

from weavemw.errors import NetworkError
from weavemw.network import messages
from weavemw.network.condition import Changes
from weavemw.network.plan import Change

__all__ = ["Listener"]

_SOL_NETLINK, _ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 270, 1, 8
_GROUPS = (1, 5, 9)  # links, addresses of IPv4 and of IPv6 (rtnetlink.h, RTNLGRP_…)
_QUIET = 0.5  # seconds without a change, after which that is said


class Listener:
    """Hears of changes of interfaces and addresses, in this namespace and in those that it has numbers for."""

    def __init__(self) -> None:
        self._changes = Changes()
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.bind((0, 0))
            with contextlib.suppress(OSError):  # without CAP_NET_BROADCAST, or before Linux 4.2: of this namespace only
                self._socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            raise NetworkError(f"can't hear of changes: {error.strerror}") from error
        self._socket.settimeout(_QUIET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def changes(self) -> Iterator[Change | None]:
        """Endlessly. Raises :class:`~weavemw.errors.NetworkError`."""
        while True:
            try:
                said, extras, _, _ = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                yield None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise NetworkError(f"can't hear of changes: {error.strerror}") from error
                yield Change(is_gap=True)
            else:
                yield from self._understood(said, _namespace_in(extras))

    def _understood(self, said: bytes, namespace: int | None) -> Iterator[Change]:
        for kind, _, _, body in messages.responses(said):
            if kind in (messages.RTM_NEWLINK, messages.RTM_DELLINK):
                gone = kind == messages.RTM_DELLINK
                change = self._changes.of_link(namespace, messages.read_link(body), gone=gone)
            elif kind == messages.RTM_DELADDR and (lost := messages.read_address(body)):
                change = self._changes.of_address(namespace, *lost, messages.label(body))
            else:
                change = None
            if change:
                yield change


def _namespace_in(extras: Iterable[tuple[int, int, bytes]]) -> int | None:
    """The number of the namespace that a message is of (netlink(7), NETLINK_LISTEN_ALL_NSID); ``None`` for our own."""
    return next((struct.unpack("=i", value)[0] for level, kind, value in extras
                 if (level, kind) == (_SOL_NETLINK, _LISTEN_ALL_NSID)), None)
