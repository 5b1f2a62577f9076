"""All that knows gunicorn: its worker class, its settings, its arbiter.

gunicorn's arbiter starts worker processes, replaces those that end, passes
signals on and reloads. A worker of ours serves with
:class:`~weavemw.serving.http_server.HttpServer`. Its states::

    init_process ──► run ── SIGTERM, a lost parent, a thread that died ──► stopping ──► exit
     (gunicorn)        │ once a second: heartbeat, and what makes            graceful_timeout
                       └ no progress is ended
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker as GunicornWorker

from weavemw.dockerapi.hosts import Network, networks
from weavemw.ops import troubles
from weavemw.ops.tally import Tally
from weavemw.serving import tls_files
from weavemw.serving.admission import Admission
from weavemw.serving.http_server import HttpServer
from weavemw.serving.tls_front import Front
from weavemw.settings import Settings

__all__ = ["Worker", "options", "run"]

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # gunicorn makes its own unpredictable, unlinked file there
_PR_SET_PDEATHSIG = 1
_BEAT = 1.0


class Worker(GunicornWorker):
    """A process of gunicorn's that serves with our server; the watcher runs beside it.

    ``allowed`` and ``front`` say who gets in by TCP; ``tally`` counts what no app sees.
    """

    allowed: tuple[Network, ...] = ()
    front: Front | None = None
    tally = Tally()

    def run(self) -> None:
        """Serve until told to stop, or until a thread has died that was to live as long as the process."""
        threading.excepthook = self._thread_died
        server = HttpServer(self.wsgi, threads=self.cfg.threads, most=self.cfg.worker_connections,
                            multiprocess=self.cfg.workers > 1, tally=self.tally)
        admission = Admission(server.adopt, allowed=self.allowed, front=self.front)
        for listener in self.sockets:
            server.listen(listener, None if listener.family == socket.AF_UNIX else admission)
        server.start()
        while self.alive and self.ppid == os.getppid():
            self.notify()  # type: ignore[no-untyped-call]
            server.tick()
            self._sleep()
        server.stop(self.cfg.graceful_timeout)

    def _sleep(self) -> None:
        """Until the next beat, or a signal: gunicorn has each write to a pipe."""
        select.select([self.PIPE[0]], [], [], _BEAT)
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)

    def _thread_died(self, died: threading.ExceptHookArgs) -> None:
        """A process without one of its loops serves nobody: gunicorn replaces it."""
        name = died.thread.name if died.thread else "?"
        self.log.critical("thread %s died of %r: this process ends, and another takes its place", name, died.exc_value,
                          exc_info=died.exc_value)
        self.alive = False
        os.write(self.PIPE[1], b"1")


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings for the proxy, but for ``bind``."""
    return {
        "worker_class": Worker,
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_connections": 10_000,
        "worker_tmp_dir": _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) else None,
        "proc_name": "weaveproxy",
        "loglevel": settings.log_level,
        "timeout": 60,
        "graceful_timeout": 3,
        "max_requests": 0,
        "control_socket_disable": True,
        "on_starting": lambda server: troubles.record(settings.run_dir, "proxy"),
        "post_fork": lambda server, worker: _prepare(settings, worker),
        "post_worker_init": lambda worker: _start_watching(settings, worker),
        "worker_exit": lambda server, worker: _stop_watching(worker),
    }


def run(settings: Settings, load: Callable[[], Any], bind: list[str]) -> None:
    """Run an arbiter whose workers serve what ``load`` makes, on sockets that are bound; doesn't return."""
    Arbiter(_Application(settings, load, bind)).run()


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


def _prepare(settings: Settings, worker: Worker) -> None:
    _end_with_master()
    worker.allowed = networks(settings.allow_from)
    if files := tls_files.of(settings):
        worker.front = Front(tls_files.Contexts(files))


def _start_watching(settings: Settings, worker: Any) -> None:
    from weavemw import assembly  # not before the fork: it belongs to the worker

    worker.tally = assembly.tally(settings.run_dir)
    worker.watcher = assembly.watcher(settings, worker.tally)
    worker.watcher.start()


def _stop_watching(worker: Any) -> None:
    if hasattr(worker, "watcher"):  # it has none if it failed to start
        worker.watcher.stop()


def _end_with_master() -> None:
    # A worker that outlives a killed master would keep the addresses from the next one.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
