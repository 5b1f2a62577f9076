"""The router's settings: one frozen dataclass, checked when it is made."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TypeVar

from weavemw.cluster.peers import Endpoint, Overlay
from weavemw.cluster.store_settings import StoreSettings
from weavemw.errors import BadRequest, SettingsError
from weavemw.ops.run_dir import DEFAULT_ROUTER, RouterAddress, router_at
from weavemw.router.allocator import parse_subnet
from weavemw.router.store import Network
from weavemw.router.zone import canonical

__all__ = ["DEFAULT_RANGE", "RouterSettings", "split_host_port"]

DEFAULT_RANGE = IPv4Network("10.32.0.0/12")
_LARGEST_TTL = 2**31 - 1

N = TypeVar("N", IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Everything that can be set about the router.

    Raises :class:`~weavemw.errors.SettingsError` for a value that can't be
    used. ``dns_ttl`` is in seconds, ``mtu`` in bytes. ``dns_listen`` are
    addresses; without any, DNS listens on the addresses of ``docker_bridge`` and
    ``bridge``. ``upstream`` are resolvers as host or host:port; without any, those
    of ``resolv_conf`` are asked. ``dns_clients`` are networks that are answered
    besides Docker's and ours. With ``bridge`` empty, none is made. ``force``
    accepts a range that overlaps a route of the host. ``run_dir`` is the proxy's,
    whose metrics are shown with the router's own; the API's unix socket is there.
    With ``http_read_only``, ``http_address`` takes no changes. ``store`` is an etcd that hosts share
    (see :class:`~weavemw.cluster.store_settings.StoreSettings`); without it, the router serves a single host.
    With ``encrypt``, what goes between hosts is encrypted, or goes not at all.
    """

    state_dir: Path = Path("/var/lib/weavemw")
    run_dir: Path = Path("/var/run/weavemw")
    http_address: str = DEFAULT_ROUTER
    http_read_only: bool = False
    range: IPv4Network = DEFAULT_RANGE
    default_subnet: IPv4Network | None = None
    range6: IPv6Network | None = None
    dns: bool = True
    dns_domain: str = "weave.local."
    dns_ttl: int = 1
    dns_listen: tuple[str, ...] = ()
    dns_port: int = 53
    dns_clients: tuple[Network, ...] = ()
    upstream: tuple[str, ...] = ()
    resolv_conf: Path = Path("/etc/resolv.conf")
    docker_bridge: str = "docker0"
    bridge: str = "weave"
    mtu: int = 1376
    docker_host: str = "unix:///var/run/docker.sock"
    nickname: str = field(default_factory=platform.node)
    store: str = ""
    store_ca: Path | None = None
    store_cert: Path | None = None
    store_key: Path | None = None
    store_user: str = ""
    store_password_file: Path | None = None
    advertise: tuple[str, ...] = ()
    vxlan_port: int = 6784
    vxlan_id: int = 6784
    encrypt: bool = False
    force: bool = False
    log_level: str = "info"

    def __post_init__(self) -> None:
        split_host_port(self.http_address)
        for resolver in self.upstream:
            split_host_port(resolver, 53)
        self._check_ranges()
        self._check_names()
        self._check_shared()
        _require(0 <= self.dns_ttl <= _LARGEST_TTL, f"DNS TTL {self.dns_ttl}: choose 0 to {_LARGEST_TTL} seconds")
        _require(576 <= self.mtu <= 65535, f"MTU {self.mtu}: choose 576 to 65535 bytes")
        _require(self.docker_host.startswith("unix:///"),
                 f"docker host {self.docker_host!r}: only unix:///path is supported")

    @property
    def ranges(self) -> tuple[Network, ...]:
        """The ranges that addresses are given from."""
        return (self.range, self.range6) if self.range6 else (self.range,)

    @property
    def shared(self) -> StoreSettings | None:
        """The store that hosts share; ``None`` for a single host."""
        if not self.store:
            return None
        return StoreSettings(self.store, self.store_ca, self.store_cert, self.store_key, self.store_user,
                             self.store_password_file)

    @property
    def overlay(self) -> Overlay:
        """What all hosts of a network have in common on the wire."""
        families = {address.version for address in self.advertised}
        return Overlay(self.vxlan_id, self.vxlan_port, families.pop() if families else 4, self.encrypt)

    @property
    def advertised(self) -> tuple[Endpoint, ...]:
        """The addresses that other hosts are told, before those that this host finds out."""
        try:
            return tuple(map(ip_address, self.advertise))
        except ValueError as error:
            raise SettingsError(f"address to advertise: {error}") from error

    @property
    def at(self) -> RouterAddress:
        """Where its API is."""
        return router_at(self.run_dir, self.http_address)

    @property
    def docker_socket(self) -> str:
        """The path of the Docker socket."""
        return self.docker_host.removeprefix("unix://")

    def _check_ranges(self) -> None:
        _require(self.range.prefixlen <= 30, f"range {self.range}: too small, a /30 is the least")
        _require(self.range6 is None or self.range6.prefixlen <= 126, f"range {self.range6}: too small")
        _require(self.default_subnet is None or self.default_subnet.subnet_of(self.range),
                 f"default subnet {self.default_subnet} is not within the range {self.range}")

    def _check_shared(self) -> None:
        given = [name for name in ("store_ca", "store_cert", "store_key", "store_user", "store_password_file")
                 if getattr(self, name)]
        _require(bool(self.store) or not given, f"--{''.join(given[:1]).replace('_', '-')} without --store")
        _require(bool(self.store) or not self.encrypt, "--encrypt without --store: this host is alone")
        _ = self.shared  # raises for what can't be used
        _require(len({address.version for address in self.advertised}) < 2,
                 "addresses to advertise: of one family, all of them")
        _require(0 < self.vxlan_port < 65536, f"port {self.vxlan_port}: choose 1 to 65535")
        _require(0 < self.vxlan_id < 2**24, f"VXLAN network identifier {self.vxlan_id}: choose 1 to {2**24 - 1}")

    def _check_names(self) -> None:
        try:
            canonical(self.dns_domain)
        except BadRequest as error:
            raise SettingsError(f"DNS domain {self.dns_domain!r}: {error.message}") from error
        _require(self.log_level in ("debug", "info", "warning", "error"),
                 f"log level {self.log_level!r}: choose debug, info, warning or error")


def network_setting(text: str, kind: type[N]) -> N:
    """A range as an option gives it, of the family wanted."""
    try:
        network = parse_subnet(text)
    except BadRequest as error:
        raise SettingsError(error.message) from error
    if not isinstance(network, kind):
        raise SettingsError(f"range {text}: not of {'IPv4' if kind is IPv4Network else 'IPv6'}")
    return network


def split_host_port(text: str, default: int | None = None) -> tuple[str, int]:
    """ "127.0.0.1:6784" or "[::1]:6784" as host and port; a bare address gets the default."""
    if default is not None and (":" not in text or (text.count(":") > 1 and "[" not in text)):
        return text, default
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise SettingsError(f"address {text!r}: write HOST:PORT")
    return host.strip("[]"), int(port)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)
