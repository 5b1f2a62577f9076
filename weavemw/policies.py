"""Policies that many want in front of Docker: layers for :func:`weavemw.docker_proxy`, to be used or to be read. ::

    from weavemw import docker_proxy, policies

    app = docker_proxy(policies.audit(sys.stderr), policies.refuse_privileged, policies.refuse_host_mounts)

A policy judges what Docker will read, not what was typed: names in any case, fields given twice, escapes. Who may call
Docker's API without one is root on the host; each policy says what it does not stop.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from weavemw.dockerapi.routes import NAMES
from weavemw.errors import Forbidden
from weavemw.library import Layer, on

if TYPE_CHECKING:
    from weavemw.dockerapi.request import Document, Request

__all__ = ["allow", "audit", "label", "read_only", "refuse_host_mounts", "refuse_privileged"]

_READING = frozenset(
    name for name in NAMES if name.endswith(("_list", "_inspect", "_changes", "_history", "_logs", "_stats", "_top"))
) | {"df", "events", "image_search", "info", "ping", "version", "container_archive_head", "container_checkpoints",
     "container_wait"}
#: What BuildKit asks for travels inside these, where no policy looks.
_BUILDKIT = frozenset({"grpc", "session"})
#: Calls whose bodies give rights. Up to API 1.23 a start may bring a HostConfig, which replaces the create's.
_GIVING_RIGHTS = frozenset({"container_create", "container_start", "container_update", "exec_create"})
#: Where a value of HostConfig gives a container a namespace that is not its own.
_NAMESPACES = ("CgroupnsMode", "IpcMode", "NetworkMode", "PidMode", "UTSMode", "UsernsMode")
#: Docker's own capabilities (moby, oci/caps/defaults.go): to ask for them adds nothing.
_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})
_HARMLESS_OPTIONS = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


@on()
def read_only(call: Request) -> None:
    """Only calls that ask. Not those that copy files out: ``docker cp``, ``export`` and ``save``."""
    if call.name not in _READING:
        raise Forbidden("this socket is read-only")


def allow(*calls: str) -> Layer:
    """Only these calls, by their names in :mod:`weavemw.dockerapi.routes`, and ``ping`` and ``version``.

    Whoever may create containers is root on the host, unless a further policy forbids what makes that so.
    """
    allowed = frozenset(calls) | {"ping", "version"}
    on(*calls)  # complains about names that do not exist

    @on()
    def allow_only(call: Request) -> None:
        if call.name not in allowed:
            raise Forbidden(f"{call.name or 'this call'} is not allowed here")

    return allow_only


@on()
def refuse_privileged(call: Request) -> None:
    """No container, exec or build with more rights than Docker gives by itself.

    Refused are: privileged containers and execs, further capabilities and devices, namespaces of the host or of
    another container, security options other than no-new-privileges, unmasked paths, other runtimes, a parent cgroup,
    builds on the host's network; BuildKit, plugins, Swarm and every call that weavemw does not know, as nobody can
    see what those ask for. Mounts of the host's files: :data:`refuse_host_mounts`.
    """
    _refuse_unseen(call)
    if call.name in _GIVING_RIGHTS:
        for reason in _rights(call):
            raise Forbidden(f"{reason} is not allowed here")


@on()
def refuse_host_mounts(call: Request) -> None:
    """No file of the host in a container: no binds, and no volumes that are binds by their driver's options.

    Volumes by name stay allowed; one that was made past this policy may be a bind. So may what another container
    gives by ``VolumesFrom``, which is refused. BuildKit, plugins, Swarm and unknown calls are refused too.
    """
    _refuse_unseen(call)
    if call.name == "volume_create" and call.body.keys("DriverOpts"):
        raise Forbidden("a volume with driver options is not allowed here")
    if call.name in ("container_create", "container_start"):
        for reason in _mounts(call.body):
            raise Forbidden(f"{reason} is not allowed here")


def label(**labels: str) -> Layer:
    """Give every container that is created these labels, whatever the request says of them. ::

        docker_proxy(policies.label(team="web"))
    """

    @on("container_create")
    def add_labels(call: Request) -> None:
        call.body.set("Labels", to=call.body.labels("Labels") | labels)

    return add_labels


def audit(to: TextIO) -> Layer:
    """Write a line of JSON for every request, before it goes on: time, client, call, id, method and path.

    Query, headers and body are left out: they hold credentials and environment values. A line that can't be written
    fails the request. Put it first, so that it sees what other policies refuse.
    """
    lock = threading.Lock()

    @on()
    def write_down(call: Request) -> None:
        seen = {"time": round(time.time(), 3), "client": call.client, "call": call.name, "id": call.id,
                "method": call.method, "path": call.path}
        with lock:
            to.write(json.dumps(seen) + "\n")
            to.flush()

    return write_down


def _refuse_unseen(call: Request) -> None:
    if call.name in _BUILDKIT or (call.name == "build" and call.query.get("version") == "2"):
        raise Forbidden("BuildKit is not allowed here: nobody sees what it is asked for")
    if not call.name and call.method not in ("GET", "HEAD"):
        raise Forbidden("this call is not allowed here: it is not known")
    if call.name == "build" and call.query.get("networkmode") not in (None, "", "default", "bridge", "none"):
        raise Forbidden("a build with this network is not allowed here")


def _rights(call: Request) -> Iterator[str]:
    body = call.body
    if call.name == "exec_create":
        if body.boolean("Privileged"):
            yield "a privileged exec"
        return
    if body.boolean("HostConfig", "Privileged"):
        yield "a privileged container"
    yield from (f"capability {name}" for field in ("CapAdd", "Capabilities")
                for name in body.strings("HostConfig", field) if not _is_usual(name))
    modes = {name: body.string("HostConfig", name) for name in _NAMESPACES}
    yield from (f"{name} {mode}" for name, mode in modes.items() if _is_foreign(mode))
    yield from (f"security option {option}" for option in body.strings("HostConfig", "SecurityOpt")
                if option not in _HARMLESS_OPTIONS)
    yield from (name for name in ("Devices", "DeviceRequests") if body.objects("HostConfig", name))
    yield from (name for name in ("MaskedPaths", "ReadonlyPaths") if body.has("HostConfig", name))
    yield from (name for name in ("CgroupParent", "Runtime") if body.string("HostConfig", name) not in ("", "runc"))
    if body.strings("HostConfig", "DeviceCgroupRules"):
        yield "DeviceCgroupRules"


def _is_usual(capability: str) -> bool:
    return capability.upper().removeprefix("CAP_") in _CAPABILITIES


def _is_foreign(mode: str) -> bool:
    return mode == "host" or mode.startswith(("container:", "ns:"))


def _mounts(body: Document) -> Iterator[str]:
    for bind in body.strings("HostConfig", "Binds"):
        if _is_path(bind):
            yield f"a mount of {bind.partition(':')[0]}"
    for mount in body.objects("HostConfig", "Mounts"):
        if mount.string("Type") not in ("volume", "tmpfs"):
            yield f"a mount of the type {mount.string('Type') or 'bind'}"
        if mount.keys("VolumeOptions", "DriverConfig", "Options"):
            yield "a volume with driver options"
    if body.strings("HostConfig", "VolumesFrom"):
        yield "VolumesFrom"


def _is_path(bind: str) -> bool:
    """A source that is no volume's name; with one part only there is no source (an anonymous volume)."""
    return ":" in bind and not bind.partition(":")[0].replace("_", "a").replace(".", "a").replace("-", "a").isalnum()
