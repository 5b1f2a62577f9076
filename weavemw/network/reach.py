"""Whether somebody is reached from within a container: tried with sockets of its network namespace."""

from __future__ import annotations

import os
import socket
import struct
import time

from weavemw.errors import NetworkError

__all__ = ["echo", "is_reply", "query", "resolves"]

_LIMIT = 1.0  # seconds
_TRIES = 3
_ECHO, _REPLY = 8, 0  # ICMP (RFC 792)
_ICMP = struct.Struct(">BBHHH")
_SOA, _IN = 6, 1  # DNS (RFC 1035)


def echo(sock: socket.socket, address: str) -> bool:
    """Whether an address answers to ICMP; ``sock`` is a raw one. Raises :class:`~weavemw.errors.NetworkError`."""
    identifier = os.getpid() & 0xFFFF
    try:
        sock.settimeout(_LIMIT)
        for sequence in range(_TRIES):
            sock.sendto(_request(identifier, sequence), (address, 0))
            if _replied(sock, address, identifier):
                return True
    except OSError as error:
        raise NetworkError(f"can't send to {address}: {error.strerror}") from error
    return False


def is_reply(packet: bytes, identifier: int) -> bool:
    """Whether an IPv4 packet is the answer to a request of ours. Pure."""
    message = packet[(packet[0] & 0xF) * 4:] if packet else b""
    if len(message) < _ICMP.size:
        return False
    kind, _, _, found, _ = _ICMP.unpack_from(message)
    return (kind, found) == (_REPLY, identifier)


def query(domain: str, number: int) -> bytes:
    """A question for a domain's SOA. Pure."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in domain.strip(".").split("."))
    return struct.pack(">HHHHHH", number, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", _SOA, _IN)


def resolves(sock: socket.socket, server: str, port: int, domain: str) -> bool:
    """Whether a DNS server answers by UDP, whatever it says; ``sock`` is a datagram one. Raises as above."""
    number = os.getpid() & 0xFFFF
    try:
        sock.settimeout(_LIMIT)
        for _ in range(_TRIES):
            sock.sendto(query(domain, number), (server, port))
            try:
                if sock.recv(4096)[:2] == struct.pack(">H", number):
                    return True
            except TimeoutError:
                continue
    except OSError as error:
        raise NetworkError(f"can't send to {server}: {error.strerror}") from error
    return False


def _request(identifier: int, sequence: int) -> bytes:
    bare = _ICMP.pack(_ECHO, 0, 0, identifier, sequence)
    total = sum(struct.unpack(">4H", bare))
    return _ICMP.pack(_ECHO, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, identifier, sequence)


def _replied(sock: socket.socket, address: str, identifier: int) -> bool:
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        try:
            packet, (sender, *_) = sock.recvfrom(4096)
        except TimeoutError:
            return False
        if sender == address and is_reply(packet, identifier):
            return True
    return False
