"""How Docker reads a create's configuration and completes it with the image's. Pure.

The rules are those of moby's ``daemon/commit.go`` (``merge``),
``daemon/container.go`` (what an entrypoint of ``[""]`` means) and
``runconfig`` (where a HostConfig may stand), read in 20.10.24.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from weavemw.dockerapi.payload import Object, fold
from weavemw.dockerapi.wait_mount import PLACES, path_in, spelled

__all__ = ["host_config", "merged_command", "merged_env", "network_mode", "set_host_config", "unwrapped",
           "wrapped"]

#: The fields of a HostConfig. Up to API 1.43 they may also stand beside those of the
#: Config, and count if there is no ``HostConfig`` object.
_HOST_FIELDS = frozenset(map(fold, (
    "Annotations", "AutoRemove", "Binds", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps", "BlkioWeight", "BlkioWeightDevice", "CapAdd", "CapDrop", "Capabilities", "Cgroup",
    "CgroupParent", "CgroupnsMode", "ConsoleSize", "ContainerIDFile", "CpuCount", "CpuPercent", "CpuPeriod",
    "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpuShares", "CpusetCpus", "CpusetMems",
    "DeviceCgroupRules", "DeviceRequests", "Devices", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd",
    "IOMaximumBandwidth", "IOMaximumIOps", "Init", "IpcMode", "Isolation", "KernelMemory", "KernelMemoryTCP", "Links",
    "LogConfig", "MaskedPaths", "Memory", "MemoryReservation", "MemorySwap", "MemorySwappiness", "Mounts", "NanoCpus",
    "NetworkMode", "OomKillDisable", "OomScoreAdj", "PidMode", "PidsLimit", "PortBindings", "Privileged",
    "PublishAllPorts", "ReadonlyPaths", "ReadonlyRootfs", "RestartPolicy", "Runtime", "SecurityOpt", "ShmSize",
    "StorageOpt", "Sysctls", "Tmpfs", "UTSMode", "Ulimits", "UsernsMode", "VolumeDriver", "VolumesFrom",
)))


def host_config(document: Object) -> Object | None:
    """The HostConfig that counts, or ``None``; changes take effect by :func:`set_host_config`."""
    inner = document.child("HostConfig")
    if inner is not None:
        return inner
    beside = [pair for pair in document.pairs if fold(pair[0]) in _HOST_FIELDS]
    return Object(beside, "HostConfig.") if beside else None


def set_host_config(document: Object, host: Object) -> None:
    """Make this the HostConfig that counts, for daemons of any age."""
    document.set("HostConfig", host)


def network_mode(host: Object | None) -> str:
    """``default``, ``bridge``, ``none``, ``host``, ``container:…`` or the name or id of a network."""
    return (host.string("NetworkMode") if host else "") or "default"


def merged_env(request: Sequence[str], image: Sequence[str]) -> list[str]:
    """A container's environment: the request's, then what only the image names."""
    named = {entry.partition("=")[0] for entry in request}
    return [*request, *(entry for entry in image if entry.partition("=")[0] not in named)]


def merged_command(entrypoint: Sequence[str] | None, cmd: Sequence[str] | None, image_entrypoint: Sequence[str] | None,
                   image_cmd: Sequence[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """A container's entrypoint and command as inspect shows them, neither with a word if there is nothing to run.

    ``None`` is an absent or null field. An empty list clears the image's
    entrypoint and keeps its command; ``[""]`` clears both.
    """
    if not entrypoint and not cmd:
        cmd = image_cmd
    if entrypoint is None:
        entrypoint = image_entrypoint
    return (None if entrypoint is None or list(entrypoint) == [""] else list(entrypoint),
            None if cmd is None else list(cmd))


def wrapped(entrypoint: Sequence[str] | None, program: str) -> list[str]:
    """An entrypoint after the wait program, such that :func:`unwrapped` can tell what it was."""
    return [spelled(program, entrypoint), *(entrypoint or ())]


def unwrapped(entrypoint: Sequence[str] | None, programs: Collection[str] = PLACES) -> list[str] | None:
    """An entrypoint without the wait program that a container of ours, or an image made of one, brings along.

    ``programs`` are the paths that mean it; at the default ones nobody has a program of his own. What was null
    comes back as ``[""]``: for that a create gets null, where for null it would get the image's.
    """
    if not entrypoint or path_in(entrypoint[0]) not in programs:
        return None if entrypoint is None else list(entrypoint)
    own = list(itertools.dropwhile(lambda word: path_in(word) in programs, entrypoint))
    return own or ([] if entrypoint[0] == spelled(path_in(entrypoint[0]), []) else [""])
