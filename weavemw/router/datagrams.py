"""UDP packets, many at a time: recvmmsg(2) and sendmmsg(2), which Python's socket module has not.

Two system calls for up to 64 packets, instead of two for each, and addresses that
never become text. It takes a third off the cost of an answer.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Datagrams", "Peer"]

log = logging.getLogger(__name__)

#: What ``sendto`` takes: host and port, and for IPv6 flow label and scope.
Peer = tuple[str, int] | tuple[str, int, int, int]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int))


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", _Msghdr), ("len", ctypes.c_uint32))


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_LIBC.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_MESSAGE = ctypes.sizeof(_Mmsghdr)
_NAME = {socket.AF_INET: 16, socket.AF_INET6: 28}  # sizes of sockaddr_in and sockaddr_in6
_HOST = {socket.AF_INET: slice(4, 8), socket.AF_INET6: slice(8, 24)}


class Datagrams:
    """The packets of a non-blocking UDP socket, up to ``turn`` at a time.

    ``largest`` is the size in bytes of the largest packet that is read as a whole, ``answer`` of the largest that is
    sent.
    """

    def __init__(self, udp: socket.socket, *, turn: int = 64, largest: int = 4096, answer: int = 512) -> None:
        self._udp, self._turn = udp, turn
        size = _NAME[udp.family]
        self._names = _slots(turn, size)
        self._hosts = [name[_HOST[udp.family]] for name in self._names]
        self._received, self._sent = _slots(turn, largest), _slots(turn, answer)
        self._incoming, self._pieces_in = _messages(self._names, self._received)  # kept: the kernel has pointers to it
        self._outgoing, self._pieces_out = _messages(self._names, self._sent)
        self._lengths = memoryview(self._incoming).cast("B").cast("I")[_Mmsghdr.len.offset // 4::_MESSAGE // 4]
        self._sizes = memoryview(self._pieces_out).cast("B").cast("L")[1::2]

    def exchange(self, answer: Callable[[bytes, bytes], bytes | None], other: Callable[[bytes, Peer], object]) -> int:
        """Read what is there, and answer it; how many were answered.

        ``answer`` is given a packet and the packed address of its sender; where it has none, ``other`` is given the
        packet and its sender.
        """
        count: int = _LIBC.recvmmsg(self._udp.fileno(), ctypes.addressof(self._incoming), self._turn, 0, None)
        unsent = others = 0
        for slot in range(count):
            packet = self._received[slot][:self._lengths[slot]].tobytes()
            reply = answer(packet, self._hosts[slot].tobytes())
            if reply is not None:
                self._sizes[slot] = size = len(reply)
                self._sent[slot][:size] = reply
            else:
                self._send(unsent, slot)
                unsent, others = slot + 1, others + 1
                other(packet, self._peer(slot))
        self._send(unsent, count)
        return max(count, 0) - others

    def _send(self, start: int, stop: int) -> None:
        while start < stop:
            messages = ctypes.addressof(self._outgoing) + start * _MESSAGE
            sent = _LIBC.sendmmsg(self._udp.fileno(), messages, stop - start, 0)
            if sent <= 0:  # a full buffer, a firewall's verdict: this one is lost, as UDP may, and asked for again
                log.debug("an answer was not sent: %s", os.strerror(ctypes.get_errno()))
            start += max(sent, 1)

    def _peer(self, slot: int) -> Peer:
        name, host = self._names[slot], socket.inet_ntop(self._udp.family, self._hosts[slot])
        port = int.from_bytes(name[2:4], "big")
        if self._udp.family == socket.AF_INET:
            return host, port
        return host, port, int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)


def _slots(count: int, size: int) -> list[memoryview]:
    buffer = memoryview(bytearray(count * size))
    return [buffer[at:at + size] for at in range(0, count * size, size)]


def _messages(names: list[memoryview], data: list[memoryview]) -> tuple[Any, Any]:
    """What the kernel is told: for each slot, where the address is and where the packet."""
    pieces = (_Iovec * len(data))(*[_Iovec(_address(each), len(each)) for each in data])
    headers = [_Msghdr(_address(name), len(name), ctypes.addressof(pieces) + slot * ctypes.sizeof(_Iovec), 1)
               for slot, name in enumerate(names)]
    return (_Mmsghdr * len(data))(*map(_Mmsghdr, headers)), pieces


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
