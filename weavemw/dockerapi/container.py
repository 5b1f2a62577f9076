"""A container or a network as the daemon shows it, reduced to what attaching needs. Pure.

Fields that new API versions leave out (API 1.52 dropped several) read as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weavemw.dockerapi.wait_mount import is_named, path_in, program_of

__all__ = ["Container", "DockerNetwork"]


@dataclass(frozen=True, slots=True)
class Container:
    """One container; made from ``GET /containers/{id}/json`` (API 1.24 and newer).

    ``addresses`` are those on Docker's networks, without prefix.
    ``config`` is the reply's ``Config`` as it came, for what must be handed back whole (``POST /commit``).
    """

    id: str
    name: str = ""
    pid: int = 0
    started_at: str = ""
    running: bool = False
    paused: bool = False
    restarting: bool = False
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    network_mode: str = "default"
    uts_mode: str = ""
    hosts_path: str = ""
    hostname_path: str = ""
    resolv_conf_path: str = ""
    mount_targets: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    init: bool = False
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    auto_remove: bool = False
    aliases: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    sandbox_key: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_ours(self) -> bool:
        """Whether it was created through the proxy to be attached, which survives every loss of state.

        Its entrypoint begins with the wait program, which is mounted by us: an image that names the same path is not
        ours. Nor is what shares its network, with the host or another container, whatever it looks like.
        """
        return not self.shares_network and bool(self.program)

    @property
    def program(self) -> str:
        """The path of the wait program that its entrypoint begins with, empty if there is none."""
        path = path_in(self.entrypoint[0]) if self.entrypoint else ""
        return path if path in map(program_of, self.binds) else ""

    @property
    def is_named(self) -> bool:
        """Whether its creator gave it a name and no hostname: then the one is made of the other."""
        return is_named(self.binds)

    @property
    def shares_network(self) -> bool:
        """Whether its network is the host's or another container's."""
        return self.network_mode == "host" or self.network_mode.startswith("container:")

    @property
    def command(self) -> str:
        """What the wait program of one of ours executes; empty if nothing is known of it."""
        return next(iter((*self.entrypoint[1:], *_strings(self.config.get("Cmd")))), "")

    @property
    def is_alive(self) -> bool:
        """Whether it has a process now: between two runs of a restart policy Docker calls it running too."""
        return self.running and self.pid > 0

    @property
    def title(self) -> str:
        """Its name; the id if it has none."""
        return self.name or self.short_id

    @property
    def short_id(self) -> str:
        """The id as ``docker ps`` shows it."""
        return self.id[:12]

    @classmethod
    def from_inspect(cls, reply: Mapping[str, Any]) -> Container:
        """Read the daemon's inspect reply; whatever is missing or null reads as empty."""
        state, config = _object(reply, "State"), _object(reply, "Config")
        host = _object(reply, "HostConfig")
        settings = _object(reply, "NetworkSettings")
        networks = _object(settings, "Networks")
        return cls(
            id=reply["Id"],
            name=str(reply.get("Name") or "").lstrip("/"),
            pid=int(state.get("Pid") or 0),
            started_at=str(state.get("StartedAt") or ""),
            running=bool(state.get("Running")),
            paused=bool(state.get("Paused")),
            restarting=bool(state.get("Restarting")),
            entrypoint=_strings(config.get("Entrypoint")),
            env=_strings(config.get("Env")),
            hostname=str(config.get("Hostname") or ""),
            domainname=str(config.get("Domainname") or ""),
            network_mode=str(host.get("NetworkMode") or "default"),
            uts_mode=str(host.get("UTSMode") or ""),
            hosts_path=str(reply.get("HostsPath") or ""),
            hostname_path=str(reply.get("HostnamePath") or ""),
            resolv_conf_path=str(reply.get("ResolvConfPath") or ""),
            mount_targets=tuple(str(mount.get("Destination")) for mount in reply.get("Mounts") or ()),
            binds=_strings(host.get("Binds")),
            init=bool(host.get("Init")),
            extra_hosts=_strings(host.get("ExtraHosts")),
            dns=_strings(host.get("Dns")),
            auto_remove=bool(host.get("AutoRemove")),
            aliases=_aliases(networks),
            networks=tuple(networks),
            addresses=_addresses(networks),
            sandbox_key=str(settings.get("SandboxKey") or ""),
            labels=tuple((_object(config, "Labels")).items()),
            config=config,
        )


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """A network of Docker's and its subnets; a row of ``GET /networks``."""

    id: str
    name: str
    subnets: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> DockerNetwork:
        """Read a row; whatever is missing or null reads as empty."""
        configs = _object(row, "IPAM").get("Config") or ()
        return cls(str(row.get("Id") or ""), str(row.get("Name") or ""),
                   tuple(str(config["Subnet"]) for config in configs if config.get("Subnet")))


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return parent.get(key) or {}


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(item) for item in value or ())


def _aliases(networks: Mapping[str, Any]) -> tuple[str, ...]:
    found = [alias for endpoint in networks.values() for alias in (endpoint or {}).get("Aliases") or ()]
    return tuple(dict.fromkeys(found))


def _addresses(networks: Mapping[str, Any]) -> tuple[str, ...]:
    found = [(endpoint or {}).get(key) for endpoint in networks.values() for key in ("IPAddress", "GlobalIPv6Address")]
    return tuple(str(address) for address in found if address)
