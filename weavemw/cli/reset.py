"""Uninstalling: reset, uninstall."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from weavemw import assembly, wait
from weavemw.cli.command import Invocation, require_root, verb
from weavemw.cli.launch import stop_running_proxy, stop_running_router
from weavemw.cli.management import ManagingClient
from weavemw.cli.progress import progress
from weavemw.cli.router import router_serves
from weavemw.cli.supervisor import our_images
from weavemw.dockerapi import hosts
from weavemw.errors import Conflict, DockerUnreachable, WeaveError
from weavemw.network import bridge, exposed, firewall, guard
from weavemw.network.netlink import NetlinkNetwork
from weavemw.ops import run_dir, run_file, troubles
from weavemw.ops.watcher_state import LOCK_FILE
from weavemw.serving import listeners
from weavemw.settings import Settings

__all__ = ["reset", "uninstall", "wait_users"]

#: Patterns of our files; what begins with a dot was being written when its writer was killed.
_STATE = ("router.db", "router.db-wal", "router.db-shm", "router.lock", ".router.db*")
_RUN = (run_file.PROXY, str(run_file.lock_of(Path(run_file.PROXY))), LOCK_FILE, troubles.LOCK,
        exposed.FILE, f".{exposed.FILE}.*",
        f".{run_file.PROXY}.*")


_force = click.option("--force", is_flag=True,
                      help="Go on where Docker does not answer; then the wait program stays.")


@verb("reset")
@_force
@click.option("--release", is_flag=True, help="Let containers that were made through weave start without it.")
@click.pass_obj
def reset(weave: Invocation, force: bool, release: bool) -> None:
    """Stop everything, and remove it from this host: interfaces, bridge, rules, sockets, addresses and names.

    Containers keep running, without their weave network. The wait program stays while a container mounts it: at its
    next start it waits for the network, so until weave is launched again, or with --release no more. What stays is
    listed, with the reason.

    \b
    weave reset
    weave reset --release
    """
    require_root("reset removes interfaces, bridge and files")
    _reset(weave, force=force, release=release)


@verb("uninstall")
@_force
@click.pass_obj
def uninstall(weave: Invocation, force: bool) -> None:
    """As `weave reset --release`, for good: afterwards `pip uninstall weavemw` removes the program.

    \b
    weave uninstall && pip uninstall weavemw
    """
    require_root("uninstall removes interfaces, bridge and files")
    _reset(weave, force=force, release=True)


def _reset(weave: Invocation, *, force: bool, release: bool) -> None:
    settings = weave.last_settings()
    known = run_file.last(settings.run_dir / run_file.PROXY).get("listeners", ())
    sockets = [*map(hosts.parse, dict.fromkeys((*known, *settings.listeners)))]
    waiting = _waiting(settings)
    if waiting and not release:
        click.echo(f"weave: warning: at their next start these containers wait until weave is launched again: "
                   f"{' '.join(waiting)}; `weave reset --release` lets them start without it", err=True)
    containers = _stop(weave, settings, force=force)
    try:
        if release:
            wait.release(settings.state_dir)
        for line in _remove_all(settings, sockets, containers, released=release):
            click.echo(f"left: {line}")
    except OSError as error:
        raise WeaveError(f"can't remove {error.filename}: {error.strerror}") from error


def _waiting(settings: Settings) -> list[str]:
    """The containers that wait for the network at each start; none if Docker does not say: that is met again."""
    try:
        return wait_users(assembly.docker(settings).get("/containers/json?all=1"), settings.state_dir / "wait")
    except DockerUnreachable:
        return []


def wait_users(containers: Iterable[Mapping[str, Any]], directory: Path) -> list[str]:
    """Names of the containers (rows of ``GET /containers/json``) that mount a directory."""
    there = directory.resolve()
    return sorted(_name(row) for row in containers
                  if any(Path(mount.get("Source") or "/").resolve().is_relative_to(there)
                         for mount in row.get("Mounts") or ()))


def _stop(weave: Invocation, settings: Settings, *, force: bool) -> list[dict[str, Any]] | None:
    """Stop both; gives all containers, or ``None`` if Docker does not answer and that is to be no obstacle."""
    try:
        stop_running_proxy(weave, settings)
        stop_running_router(settings)
        containers: list[dict[str, Any]] | None = assembly.docker(settings).get("/containers/json?all=1")
    except DockerUnreachable as error:
        if not force:
            raise DockerUnreachable(error.message, hint="`weave reset --force` goes on without") from error
        containers = None
    if containers is None and weave.proxy:
        raise Conflict("weave still runs, in a container that only Docker can end: start Docker, then reset")
    if weave.proxy or router_serves(settings.router_at):
        raise Conflict("weave still runs, and not in a container of Docker's: stop it where it was started, then reset")
    return containers


def _remove_all(settings: Settings, sockets: Iterable[hosts.Host],
                containers: list[dict[str, Any]] | None, *, released: bool) -> Iterator[str]:
    """Remove everything; gives what stays, and why."""
    yield from _remove_network(settings)
    yield from _remove_sockets(sockets)
    yield from _remove_files(settings, containers, released=released)
    if containers is None:
        yield "images of weavemw, since Docker does not answer"
    else:
        yield from _remove_images(ManagingClient(settings.docker_socket))


def _remove_network(settings: Settings) -> Iterator[str]:
    network = NetlinkNetwork(settings.bridge)
    interfaces = network.interfaces()
    with progress("removing interfaces", "removed interfaces:", len(interfaces), least=20) as tell:
        for count, interface in enumerate(interfaces, 1):
            network.delete(interface.name)
            tell(count)
    from weavemw.cluster import forwarding  # not for `weave --help`: it takes its time

    forwarding.remove(settings.bridge)
    guard.remove(settings.bridge)
    firewall.shut()
    found = bridge.look(settings.bridge)
    if found is None:
        return
    if found.ports:
        yield f"bridge {settings.bridge}, since interfaces of others are on it: {' '.join(found.ports)}"
    else:
        bridge.remove(settings.bridge)


def _remove_sockets(sockets: Iterable[hosts.Host]) -> Iterator[str]:
    for each in sockets:
        if isinstance(each, hosts.Unix) and Path(each.path).is_socket():
            if listeners.serves(each):
                yield f"{each.path}, since something else answers there"
            else:
                Path(each.path).unlink()


def _remove_files(settings: Settings, containers: list[dict[str, Any]] | None, *, released: bool) -> Iterator[str]:
    for directory, patterns in ((settings.state_dir, _STATE), (settings.run_dir, _RUN)):
        for path in (path for pattern in patterns for path in directory.glob(pattern)):
            path.unlink(missing_ok=True)
    for path in run_dir.router_sockets(settings.run_dir):
        path.unlink(missing_ok=True)
    for tree in (settings.run_dir / "locks", settings.run_dir / run_dir.STATUS, settings.state_dir / "names",
                 settings.state_dir / "detached"):
        _remove_tree(tree)
    yield from _remove_wait_programs(settings.state_dir / "wait", containers, released=released)
    for directory in (settings.state_dir / "wait", settings.state_dir, settings.run_dir):
        yield from _removed(directory)


def _remove_wait_programs(parent: Path, containers: list[dict[str, Any]] | None, *, released: bool) -> Iterator[str]:
    for path in parent.glob(".new-*"):  # was being written when its writer was killed
        path.unlink(missing_ok=True)
    why = ("need it to start, which they do at once from now on (what waits now: after `docker restart`)" if released
           else "need it to start, and wait for the network")
    for directory in sorted(filter(wait.holds_program, parent.glob("*"))):
        if containers is None:
            yield f"{directory}, since Docker does not say which containers need it to start"
        elif users := wait_users(containers, directory):
            yield f"{directory}, since containers {why}: {' '.join(users)}"
        else:
            _remove_tree(directory)


def _remove_tree(directory: Path) -> None:
    if directory.is_dir():
        shutil.rmtree(directory)


def _removed(directory: Path) -> Iterator[str]:
    """Remove a directory if it is empty; what is not ours in it is named."""
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    others = [path.name for path in found if path.name != "wait" and not wait.holds_program(path)]
    if others:
        yield f"{directory}, since it holds files of others: {' '.join(others)}"
    elif directory.is_dir() and not found:
        directory.rmdir()


def _remove_images(docker: ManagingClient) -> Iterator[str]:
    for name in our_images(docker):
        try:
            docker.remove_image(name)
        except WeaveError as error:
            yield f"image {name}, since {error.message}"


def _name(row: Mapping[str, Any]) -> str:
    names = row.get("Names") or [row["Id"][:12]]
    return str(names[0]).lstrip("/")
