"""The proxy as a program: listeners, gunicorn, and what runs beside the requests.

:func:`serve` binds the listeners itself (see :mod:`weavemw.serving.listeners`) and
hands them to an embedded gunicorn. ``python -m weavemw.server`` is
``weave launch-proxy --foreground``; :func:`options` are the same options for
people who start gunicorn themselves (``conf/gunicorn.conf.py``).
"""

from __future__ import annotations

import ctypes
import functools
import json
import logging
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as http_errors

from weavemw import __version__, wait
from weavemw.dockerapi import hosts
from weavemw.dockerapi.hosts import Host
from weavemw.errors import SettingsError
from weavemw.ops import logs, run_dir, run_file, troubles
from weavemw.ops.tally import DIRECTORY, REQUESTS, Tally, remove_shared
from weavemw.serving import exposure, listeners, tls_files
from weavemw.serving.admission import AdmittingWorker
from weavemw.serving.tls_front import Front
from weavemw.settings import Settings

__all__ = ["Worker", "bind_all", "options", "serve", "start"]

log = logging.getLogger(__name__)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # gunicorn makes its own unpredictable, unlinked file there
_PR_SET_PDEATHSIG = 1
#: How long a thread waits for a connection's next request, in milliseconds.
_MOMENT = 2

#: What gunicorn's parser can object to, where the answer is not 400 (RFC 9110, RFC 6585).
_STATUS = {
    http_errors.ForbiddenProxyRequest: (403, "Forbidden"),
    http_errors.LimitRequestLine: (414, "URI Too Long"),
    http_errors.ExpectationFailed: (417, "Expectation Failed"),
    http_errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    http_errors.UnsupportedTransferCoding: (501, "Not Implemented"),
}
_OUR_FAULT = (http_errors.ConfigurationProblem, http_errors.InvalidResponseHeader,
              http_errors.InvalidResponseHeaderName)


class Worker(AdmittingWorker):
    """gunicorn's gthread worker, whose own answers are Docker's: JSON with a ``message``. ``tally`` counts them."""

    tally = Tally()

    def handle(self, conn: Any) -> Any:
        """Serve a connection's requests in this thread while they come one upon the other.

        Otherwise each would travel to the main thread's poller and back, which costs more than to answer it.
        """
        serve: Callable[[Any], Any] = super().handle
        kept = serve(conn)
        while kept is True and self.alive and _has_more(conn):
            kept = serve(conn)
        return kept

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what the application never saw (a request that can't be read), or failed at."""
        status, reason, message = _answer_to(exc)
        self.tally.add(REQUESTS, ("other", str(status)))
        if status == 500:
            self.log.exception("Error handling request %s %s", getattr(req, "method", "?"), getattr(req, "uri", "?"))
        else:
            # Not what it was: a body whose length was wrong may stand where a head should, with all its secrets.
            self.log.warning("Refused a request from %s: %s", addr[0] if addr else "the unix socket",
                             type(exc).__name__)
        try:
            util.write_nonblock(client, _error_response(status, reason, message))
        except OSError as error:  # the client went away before it got its answer
            self.log.debug("Could not answer: %s", error)


def serve(settings: Settings, load: Callable[[], Any] | None = None) -> None:
    """Run the proxy in the foreground until SIGTERM or SIGINT; doesn't return.

    ``load`` makes the WSGI app, in each worker; by default it is
    :func:`weavemw.app.build`. Raises :class:`~weavemw.errors.WeaveError` for
    everything that keeps the proxy from starting.
    """
    logs.configure(settings.log_level)
    Arbiter(_Application(settings, load or _loader(settings), bind=start(settings))).run()


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
    _raise_descriptor_limit()
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


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings for the proxy, but for ``bind``."""
    return {
        "worker_class": Worker,
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_connections": 10_000,
        "worker_tmp_dir": _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) else None,
        "proc_name": "weaveproxy",
        # At debug level gunicorn logs what it read of broken requests: that may be a body.
        "loglevel": "info" if settings.log_level == "debug" else settings.log_level,
        "timeout": 60,
        "graceful_timeout": 3,
        "keepalive": 75,
        "max_requests": 0,
        "limit_request_line": 0,
        "limit_request_field_size": 1 << 20,
        "limit_request_fields": 1000,
        # A client must not be able to say what its request's path or scheme is, but by the request line:
        # gunicorn believes such headers from every client of a unix socket.
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        "forwarded_allow_ips": "",
        "control_socket_disable": True,
        "on_starting": lambda server: troubles.record(settings.run_dir, "proxy"),
        "post_fork": lambda server, worker: _prepare(settings, worker),
        "post_worker_init": lambda worker: _start_watching(settings, worker),
        "worker_exit": lambda server, worker: _stop_watching(worker),
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
    if warning := exposure.open_to_all(settings):
        log.warning("%s", warning)
    return bound


def close_all(sockets: list[socket.socket]) -> None:
    """Close listening sockets, and remove the files of unix sockets."""
    for sock in sockets:
        name = sock.getsockname()
        sock.close()
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)


def _has_more(conn: Any) -> bool:
    """Whether the connection's next request is there, or comes in a moment."""
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(conn.parser.unreader.buf.getvalue() or poll.poll(_MOMENT))


class _Application(BaseApplication):
    cfg: Any

    def __init__(self, settings: Settings, load: Callable[[], Any], bind: list[str]) -> None:
        self._options = options(settings) | {"bind": bind}
        self._load = load
        super().__init__()  # type: ignore[no-untyped-call]

    def load(self) -> Any:
        return self._load()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)


def _loader(settings: Settings) -> Callable[[], Any]:
    def load() -> Any:
        from weavemw import assembly  # not before the fork: the stack belongs to the worker
        from weavemw.app import build

        return build(settings, assembly.tally(settings.run_dir))

    return load


def _start_watching(settings: Settings, worker: Any) -> None:
    from weavemw import assembly  # not before the fork: it belongs to the worker

    worker.tally = assembly.tally(settings.run_dir)
    worker.watcher = assembly.watcher(settings, worker.tally)
    worker.watcher.start()


def _stop_watching(worker: Any) -> None:
    if hasattr(worker, "watcher"):  # it has none if it failed to start
        worker.watcher.stop()


def _prepare(settings: Settings, worker: AdmittingWorker) -> None:
    _end_with_master()
    worker.allowed = hosts.networks(settings.allow_from)
    if files := tls_files.of(settings):
        worker.front = Front(tls_files.Contexts(files))


def _raise_descriptor_limit() -> None:
    """Every stream takes two descriptors, and shells and services often begin with 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end_with_master() -> None:
    # A worker that outlives a killed master would keep the addresses from the next one.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


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


def _answer_to(exc: BaseException) -> tuple[int, str, str]:
    if not isinstance(exc, http_errors.ParseException) or isinstance(exc, _OUR_FAULT):
        return 500, "Internal Server Error", "the weave proxy failed; its log says why"
    status, reason = _STATUS.get(type(exc), (400, "Bad Request"))
    return status, reason, str(exc)


def _error_response(status: int, reason: str, message: str) -> bytes:
    body = json.dumps({"message": message}).encode() + b"\n"
    head = (f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    return head.encode() + body
