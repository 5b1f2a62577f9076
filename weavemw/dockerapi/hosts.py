"""Where Docker's API is served, as Docker writes it: ``tcp://address:port`` or ``unix:///path``. Pure.

A TCP address is ``[tcp://][address]:port`` (an IPv6 address in brackets), a
unix socket ``[unix://]/path``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from weavemw.errors import SettingsError

__all__ = ["Host", "Network", "Tcp", "Unix", "is_allowed", "networks", "parse", "same_host"]

_TCP = re.compile(r"(?:tcp://)?(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:/\[\]]*)):(?P<port>[0-9]+)/?")
_WILDCARDS = frozenset({"0.0.0.0", "::"})
_LONGEST_PATH = 107  # bytes: sun_path less its final zero (unix(7))


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket, by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address; ``host`` is a name or an address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of the host."""
        return self.host in _WILDCARDS

    def seen_from(self, host: str = "") -> Tcp:
        """The address to connect to: a wildcard becomes ``host``, or the loopback address."""
        if not self.is_wildcard:
            return self
        return Tcp(host or ("::1" if ":" in self.host else "127.0.0.1"), self.port)


Host = Unix | Tcp
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse(address: str) -> Host:
    """Read an address; raises :class:`~weavemw.errors.SettingsError` for what is none."""
    path = address.removeprefix("unix://")
    if path.startswith("/"):
        return _unix(os.path.normpath(path))
    match = _TCP.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise SettingsError(f"listener {address!r}: write tcp://address:port or unix:///path")
    return Tcp(match["six"] or match["host"] or ("::" if match["six"] is not None else "0.0.0.0"), int(match["port"]))


def _unix(path: str) -> Unix:
    if len(os.fsencode(path)) > _LONGEST_PATH or "\0" in path:
        raise SettingsError(f"unix://{path}: the path of a socket has at most {_LONGEST_PATH} bytes")
    return Unix(path)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read networks (``10.0.0.0/8``) and addresses; raises :class:`~weavemw.errors.SettingsError`."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise SettingsError(f"allow-from: {error}") from error


def is_allowed(address: str, allowed: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; an IPv4 address counts as such in IPv6's clothes too."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in allowed)


def same_host(one: Host, other: Host) -> bool:
    """Whether both lead to the same socket; a wildcard is the same as each address with its port."""
    if isinstance(one, Unix) and isinstance(other, Unix):
        return os.path.realpath(one.path) == os.path.realpath(other.path)
    if isinstance(one, Tcp) and isinstance(other, Tcp):
        return one.port == other.port and (one.host == other.host or one.is_wildcard or other.is_wildcard)
    return False
