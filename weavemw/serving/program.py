"""The proxy as a program: what is done once, before there are workers.

:func:`serve` binds the listeners itself (see :mod:`weavemw.serving.listeners`) and
hands them to an embedded gunicorn (:mod:`weavemw.serving.worker`). ``python -m
weavemw.server`` is ``weave launch-proxy --foreground``; who starts gunicorn himself
calls :func:`start` (``conf/gunicorn.conf.py``).
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weavemw import __version__, wait
from weavemw.dockerapi import hosts
from weavemw.dockerapi.hosts import Host
from weavemw.errors import SettingsError
from weavemw.ops import descriptors, logs, run_dir, run_file
from weavemw.ops.tally import DIRECTORY, remove_shared
from weavemw.router.host import bridges
from weavemw.serving import exposure, listeners, worker
from weavemw.settings import Settings

__all__ = ["bind_all", "close_all", "facts", "serve", "start"]

log = logging.getLogger(__name__)


def serve(settings: Settings, load: Callable[[], Any] | None = None) -> None:
    """Run the proxy in the foreground until SIGTERM or SIGINT; doesn't return.

    ``load`` makes the WSGI app, in each worker; by default it is
    :func:`weavemw.app.build`. Raises :class:`~weavemw.errors.WeaveError` for
    everything that keeps the proxy from starting.
    """
    logs.configure(settings.log_level)
    worker.run(settings, load or _loader(settings), bind=start(settings))


@functools.cache
def start(settings: Settings) -> list[str]:
    """What is done once, before any worker: gives gunicorn's ``bind``.

    Takes the run file, installs the wait program, binds the listeners. Called
    again in the same process (gunicorn reloading its configuration), it gives
    the same. Raises :class:`~weavemw.errors.WeaveError`.
    """
    if os.geteuid() != 0:
        raise SettingsError("the proxy must be root: it makes network interfaces in containers' namespaces")
    for warning in exposure.check_tls(settings):
        log.warning("%s", warning)
    run_dir.prepare(settings.run_dir, settings.docker_socket)
    held = run_file.RunFile(settings.run_dir / run_file.PROXY, what="weave proxy")
    wait.install(settings.state_dir)
    _forget_the_last(settings.run_dir)
    descriptors.raise_limit()
    bind = [f"fd://{sock.detach()}" for sock in bind_all(settings)]
    held.write(facts(settings))
    return bind


def _forget_the_last(directory: Path) -> None:
    """What an earlier proxy counted, and what its watcher knew."""
    from weavemw.ops.watcher_state import STATE_FILE

    remove_shared(directory / DIRECTORY)
    (directory / STATE_FILE).unlink(missing_ok=True)


def facts(settings: Settings) -> dict[str, Any]:
    """What the running proxy tells ``weave status``, ``env`` and ``config`` by its run file."""
    return {
        "version": __version__,
        "listeners": [str(hosts.parse(each)) for each in settings.listeners],
        "docker_host": settings.docker_host,
        "router_address": settings.router_address,
        "state_dir": str(settings.state_dir),
        "bridge": settings.bridge,
        "docker_bridge": settings.docker_bridge,
        "mtu": settings.mtu,
        "tls": settings.uses_tls,
        "guarded": settings.uses_tls or bool(settings.allow_from),
        "started": time.time(),
    }


def bind_all(settings: Settings) -> list[socket.socket]:
    """Bind every listener of ``settings``, or none; unix sockets are made like Docker's socket.

    Raises :class:`~weavemw.errors.SettingsError`, also for a listener that is
    Docker's own socket: the proxy would talk to itself.
    """
    wanted = [hosts.parse(each) for each in settings.listeners]
    _refuse_loop(wanted, settings)
    like = _docker_socket(settings)
    bound: list[socket.socket] = []
    try:
        for listener in wanted:
            bound.append(listeners.bind(listener, like))
    except BaseException:
        close_all(bound)
        raise
    for warning in filter(None, (exposure.open_to_all(settings), exposure.lets_in_containers(settings, bridges))):
        log.warning("%s", warning)
    return bound


def close_all(sockets: list[socket.socket]) -> None:
    """Close listening sockets, and remove the files of unix sockets."""
    for sock in sockets:
        name = sock.getsockname()
        sock.close()
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)


def _loader(settings: Settings) -> Callable[[], Any]:
    def load() -> Any:
        from weavemw import assembly  # not before the fork: the stack belongs to the worker
        from weavemw.app import build

        return build(settings, assembly.tally(settings.run_dir))

    return load


def _docker_socket(settings: Settings) -> os.stat_result:
    try:
        return os.stat(settings.docker_socket)
    except OSError as error:
        raise SettingsError(f"no Docker at {settings.docker_socket}: {error.strerror}") from error


def _refuse_loop(wanted: list[Host], settings: Settings) -> None:
    docker = hosts.parse(settings.docker_host)
    for listener in wanted:
        if hosts.same_host(listener, docker):
            raise SettingsError(f"listener {listener} is the Docker socket itself: "
                                "the proxy would talk to itself; choose another -H or DOCKER_HOST")
