"""The whole proxy as one WSGI application: ``gunicorn weavemw.app:proxy``.

The stack is read inside out: the passthrough app forwards to Docker, and each
middleware around it adds one thing. Building it touches neither Docker nor the
network. ``proxy`` is made of the environment when it is first asked for;
importing this module reads nothing.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from weavemw import assembly, wait
from weavemw.middleware.advice import CreateAdviser
from weavemw.middleware.attach import Attacher
from weavemw.middleware.cidr import CidrParser
from weavemw.middleware.commands import CommandChecker
from weavemw.middleware.dns import DnsInjector
from weavemw.middleware.entrypoint import EntrypointWrapper
from weavemw.middleware.errors import ErrorResponder
from weavemw.middleware.inspect import InspectRewriter
from weavemw.middleware.ipam import IpamClient
from weavemw.middleware.origin import OriginGuard
from weavemw.middleware.readers import TraceRemover
from weavemw.network.plan import mac_for
from weavemw.ops.tally import Tally
from weavemw.settings import Settings
from weavemw.transport.hijack import Handover
from weavemw.transport.origin import own_names
from weavemw.transport.passthrough import Passthrough
from weavemw.transport.relay import Relay
from weavemw.transport.upstream import Upstream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["build", "proxy"]


def build(settings: Settings, tally: Tally | None = None) -> WSGIApplication:
    """The proxy's stack for these settings; ``tally`` counts what it does."""
    tally = tally or Tally()
    docker, router = assembly.docker(settings), assembly.router(settings)
    attachment = assembly.attachment(settings, tally)
    places = threading.BoundedSemaphore(max(1, settings.threads * 3 // 4))  # so many may wait for the router
    app: WSGIApplication = Passthrough(Upstream(settings.docker_socket))
    if settings.rewrite_inspect:
        app = InspectRewriter(app, router=router, mac_of=lambda container: mac_for(container.id))
    if settings.hide_wait_program:
        app = TraceRemover(app)
    return Handover(
        ErrorResponder(OriginGuard(
            CidrParser(
                CreateAdviser(EntrypointWrapper(
                    DnsInjector(
                        IpamClient(
                            Attacher(CommandChecker(app, docker=docker), attachment=attachment),
                            attachment=attachment, start_timeout=settings.start_timeout,
                            places=places),
                        router=router, with_dns=settings.with_dns,
                        hostname_from_label=settings.hostname_from_label,
                        hostname_match=settings.hostname_match,
                        hostname_replacement=settings.hostname_replacement),
                    wait_dir=functools.cache(lambda: wait.install(settings.state_dir)), docker=docker),
                    docker=docker, router=router, places=places),
                docker=docker, default_ipalloc=settings.default_ipalloc),
            names=None if settings.uses_tls else functools.cache(lambda: own_names(settings.allow_host)),
            allowed=settings.allow_origin)),
        relay=Relay(tally), tally=tally)


class WithWatcher:
    """Starts the watcher with the first request, for servers that have no place to start it at once.

    :mod:`weavemw.server` and ``conf/gunicorn.conf.py`` have one.
    """

    def __init__(self, app: WSGIApplication, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._lock = threading.Lock()
        self._started = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._started:
            self._start()
        return self.app(environ, start_response)

    def _start(self) -> None:
        with self._lock:
            if not self._started:
                assembly.watcher(self._settings, assembly.tally(self._settings.run_dir)).start()
                self._started = True


if TYPE_CHECKING:
    proxy: WithWatcher

_making = threading.Lock()


def __getattr__(name: str) -> WithWatcher:
    """``proxy``; raises :class:`~weavemw.errors.SettingsError` if the environment holds what can't be used."""
    if name != "proxy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _making:
        if "proxy" not in globals():
            settings = Settings.from_environ(os.environ)
            globals()["proxy"] = WithWatcher(build(settings, assembly.tally(settings.run_dir)), settings)
    return globals()["proxy"]  # type: ignore[no-any-return]
