"""Whether a container is to be on the weave network, and with which addresses: the rules alone, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weavemw.attaching.decision import LeaveAlone
from weavemw.errors import DockerError, InvalidCidr
from weavemw.network.addresses import VARIABLE, Default, Wanted, parse, value_in

if TYPE_CHECKING:
    from weavemw.dockerapi.client import Docker
    from weavemw.dockerapi.container import Container

__all__ = ["CREATED_ELSEWHERE", "DETACHED", "is_built_in", "promised_to", "shared_network", "unsuitable_network",
           "wanted_by",
           "why_alone"]

#: Why a container is left alone that was not created through the proxy, and for no other reason.
CREATED_ELSEWHERE = "it was not created through the proxy"
#: The same of one whose user said so, until it is started or attached again.
DETACHED = "it was detached by hand"

_BUILT_IN = frozenset({"default", "bridge", "none"})
_ATTACHABLE_DRIVERS = frozenset({"bridge", "null"})


def wanted_by(env: Sequence[str], *, default_ipalloc: bool = True) -> tuple[Wanted, ...] | LeaveAlone:
    """What a container with this environment is to get; raises :class:`~weavemw.errors.InvalidCidr`.

    ``default_ipalloc`` decides about a container that says nothing about it. Of
    several entries the last one counts, as for the container's own processes.
    """
    value = value_in(env)
    if value is None and not default_ipalloc:
        return LeaveAlone(f"it has no {VARIABLE} and --no-default-ipalloc is set")
    return parse(value or "") or LeaveAlone(f"{VARIABLE} is none")


def shared_network(mode: str) -> str:
    """Why a container with this network mode is left alone whatever its environment says; empty if it is not."""
    if mode == "host":
        return "it has the host's network"
    if mode.startswith("container:"):
        other = mode.partition(":")[2]
        return f"it has the network of another container ({other[:12] if len(other) == 64 else other})"
    return ""


def is_built_in(mode: str) -> bool:
    """Whether this network mode is Docker's own bridge, or no network of Docker's."""
    return mode in _BUILT_IN


def unsuitable_network(docker: Docker, mode: str) -> str:
    """Why a container on this network is left alone; empty if it is not."""
    if is_built_in(mode):
        return ""
    try:
        driver = docker.network_driver(mode)
    except DockerError as error:
        if error.status != 404:
            raise
        return f'there is no network "{mode}"'
    return "" if driver in _ATTACHABLE_DRIVERS else f'its network "{mode}" has the driver "{driver}"'


def why_alone(container: Container, docker: Docker, *, default_ipalloc: bool = True) -> str:
    """Why a container that exists, and is not ours, was left alone: as far as it can be seen from what it is now."""
    reason = shared_network(container.network_mode)
    if reason:
        return reason
    try:
        wanted = wanted_by(container.env, default_ipalloc=default_ipalloc)
    except InvalidCidr as error:
        return error.message
    if isinstance(wanted, LeaveAlone):
        return wanted.reason
    return unsuitable_network(docker, container.network_mode) or CREATED_ELSEWHERE


def promised_to(container: Container) -> tuple[Wanted, ...]:
    """What a container that was created to be attached is to get: addresses, whatever the settings are by now."""
    wanted = wanted_by(container.env)
    return (Default(),) if isinstance(wanted, LeaveAlone) else wanted
