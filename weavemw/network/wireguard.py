"""WireGuard between hosts: an interface that encrypts, under VXLAN; the kernel's, or else wireguard-go.

In the tunnel each host has an address of its own, made of its public key: of 240.0.0.0/4, which nobody else uses
(reserved by RFC 1112; Linux takes it as any other). Packets to such an address go by the tunnel or nowhere.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weavemw.errors import NetworkError, SettingsError
from weavemw.network import messages, vxlan_messages
from weavemw.network.messages import ACK, CREATE, EXCL, Link, Message, attribute
from weavemw.network.netlink_socket import NetlinkSocket
from weavemw.ops import files

__all__ = ["OVERHEAD", "TUNNELS", "WireGuard", "WireGuardPeer", "configuration", "inner_address", "public_key"]

#: Bytes that WireGuard adds to a packet, by the family of the underlay.
OVERHEAD = {4: 60, 6: 80}

#: The addresses of hosts in the tunnel.
TUNNELS = IPv4Network("240.0.0.0/4")

_LIMIT = 10.0  # seconds that a program has
_UNKNOWN_KIND = {errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class WireGuardPeer:
    """Another host: its public key in base64, and where packets for it are sent."""

    key: str
    endpoint: IPv4Address | IPv6Address


class WireGuard:
    """The interface ``name``, which listens on UDP port ``port``; the private key is in a file that only we may read.

    Raises :class:`~weavemw.errors.SettingsError` for a file that others can read or that holds no key.
    """

    def __init__(self, name: str, port: int, key_file: Path) -> None:
        self.name, self.port = name, port
        self._private = _private_key(key_file)
        self.key = public_key(self._private)
        self._applied: tuple[int, str] | None = None

    def make(self) -> None:
        """Let there be the interface; its peers stay. Raises as :meth:`set_up` does."""
        with NetlinkSocket() as host:
            if not host.link(self.name):
                self._made(host)

    def set_up(self, peers: Iterable[WireGuardPeer], mtu: int) -> None:
        """Let the interface be up, reach exactly these hosts, and take packets of ``mtu`` bytes.

        Raises :class:`~weavemw.errors.NetworkError`, also where there is no WireGuard.
        """
        with NetlinkSocket() as host:
            link = host.link(self.name) or self._made(host)
            text = configuration(self._private, self.port, peers, self.port)
            if (link.index, text) != self._applied:
                _run("wg", "syncconf", self.name, "/dev/stdin", given=text)
            self._furnish(host, link, mtu)
            self._applied = (link.index, text)

    def _furnish(self, host: NetlinkSocket, link: Link, mtu: int) -> None:
        own = IPv4Interface((inner_address(self.key), TUNNELS.prefixlen))
        if own not in host.addresses(link.index):
            host.do(messages.add_address(link.index, own))
        if link.mtu != mtu or not link.flags & messages.IFF_UP:
            host.do(messages.set_link(index=link.index, up=True, mtu=mtu))
        host.do(vxlan_messages.blackhole(TUNNELS.network_address.packed, TUNNELS.prefixlen))

    def _made(self, host: NetlinkSocket) -> Link:
        _require("wg", "wireguard-tools")
        try:
            host.do(_device(self.name))
        except NetworkError as error:
            if getattr(error.__cause__, "errno", 0) not in _UNKNOWN_KIND:
                raise
            _require("wireguard-go", "wireguard-go", "this kernel has no WireGuard, and ")
            _run("wireguard-go", self.name)
        link = host.link(self.name)
        if link is None:
            raise NetworkError(f"can't encrypt: {self.name} went away as it was made")
        return link


def inner_address(key: str) -> IPv4Address:
    """The address in the tunnel of the host that has this public key. Pure."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return TUNNELS.network_address + (number % (2**28 - 2) + 1)


def configuration(private: str, port: int, peers: Iterable[WireGuardPeer], their_port: int) -> str:
    """What ``wg syncconf`` (wg(8)) reads: each peer may send from its own address in the tunnel, and no other. Pure."""
    parts = [f"[Interface]\nPrivateKey = {private}\nListenPort = {port}\n"]
    for peer in sorted(peers, key=lambda peer: peer.key):
        where = f"[{peer.endpoint}]" if peer.endpoint.version == 6 else str(peer.endpoint)
        parts.append(f"[Peer]\nPublicKey = {peer.key}\nEndpoint = {where}:{their_port}\n"
                     f"AllowedIPs = {inner_address(peer.key)}/32\n")
    return "\n".join(parts)


def public_key(private: str) -> str:
    """The public key of a private one, both in base64 (RFC 7748). Pure. Raises ``ValueError``."""
    raw = X25519PrivateKey.from_private_bytes(base64.b64decode(private, validate=True)).public_key()
    return base64.b64encode(raw.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _private_key(path: Path) -> str:
    try:
        if not path.exists():
            files.replace(path, base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()) + b"\n", 0o600)
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"others can read {path}, the key of this host: remove it, and another one is made")
        private = files.read(path).decode("ascii").strip()
        public_key(private)
    except OSError as error:
        raise SettingsError(f"can't use {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} holds no key of WireGuard: remove it, and another one is made") from error
    return private


def _device(name: str) -> Message:
    body = (messages.link_header() + attribute(messages.IFLA_IFNAME, name)
            + attribute(messages.IFLA_LINKINFO, attribute(messages.IFLA_INFO_KIND, "wireguard")))
    return Message(messages.RTM_NEWLINK, ACK | CREATE | EXCL, body, f"make the WireGuard interface {name}")


def _require(program: str, package: str, why: str = "") -> None:
    if not shutil.which(program):
        raise NetworkError(f"can't encrypt: {why}{program} is missing (apt-get install {package})")


def _run(*argv: str, given: str = "") -> None:
    """Nothing of the program's own is waited for: wireguard-go leaves one behind that goes on."""
    environ = {**os.environ, "LOG_LEVEL": "silent"}
    try:
        result = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=_LIMIT, check=False,
                                env=environ)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"can't encrypt: {error}") from error
    if result.returncode:
        said = (result.stderr.strip() or f"{argv[0]} failed").splitlines()[-1]
        raise NetworkError(f"can't encrypt: {said}")
