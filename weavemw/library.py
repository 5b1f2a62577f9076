"""Docker's API through middlewares of one's own: the short form, for programs that build on weavemw.

``docker_proxy``, ``on`` and ``on_answer`` are there as ``from weavemw import docker_proxy, on, on_answer``.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from weavemw.dockerapi.routes import NAMES
from weavemw.errors import BadRequest
from weavemw.middleware.answers import STREAMS, Answer, AnswerHook
from weavemw.middleware.errors import ErrorResponder
from weavemw.middleware.hooks import Hook
from weavemw.middleware.origin import OriginGuard
from weavemw.transport.hijack import Handover
from weavemw.transport.origin import own_names
from weavemw.transport.passthrough import Passthrough
from weavemw.transport.relay import Relay
from weavemw.transport.upstream import Upstream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from weavemw.dockerapi.request import Request

__all__ = ["Layer", "docker_proxy", "on", "on_answer"]

#: What makes a middleware around an app: a middleware's class, or what ``on`` makes of a function.
Layer = Callable[["WSGIApplication"], "WSGIApplication"]


def docker_proxy(*layers: Layer, socket: str = "/var/run/docker.sock",
                 allow_hosts: Iterable[str] = ()) -> WSGIApplication:
    """A WSGI app that carries all of Docker's API to the engine at ``socket``. ::

        from weavemw import docker_proxy, errors, on

        @on("container_create")
        def no_privileged(call):
            if call.body.boolean("HostConfig", "Privileged"):
                raise errors.Forbidden("no privileged containers here")

        app = docker_proxy(no_privileged, socket="/var/run/docker.sock")

    Requests pass the layers in the order given. A layer is a class of a middleware, or anything else that takes
    an app and returns one. Attached containers, logs, builds and all else that streams goes through, and costs no
    thread while it is quiet under the server that weavemw brings (``gunicorn -c python:weavemw.serving.worker``).

    Errors of :mod:`weavemw.errors` are answered as Docker would. Web pages are refused at TCP listeners; names of
    this host that are neither addresses nor its own are given by ``allow_hosts``. Building it opens nothing.

    With layers, a start that brings a HostConfig (up to API 1.23, Docker 20.10 to 24) is refused: what a layer saw
    at create is what runs.
    """
    app: WSGIApplication = Passthrough(Upstream(socket))
    for layer in reversed((on("container_start")(_refuse_host_config), *layers) if layers else ()):
        app = layer(app)
    names = functools.cache(lambda: own_names(tuple(allow_hosts)))
    return Handover(ErrorResponder(OriginGuard(app, names=names)), relay=Relay())


def on(*calls: str) -> Callable[[Callable[[Request], object]], Layer]:
    """Make a layer of a function that judges these calls before Docker sees them; without names, all requests.

    The function gets a :class:`~weavemw.dockerapi.request.Request`. What it raises of :mod:`weavemw.errors` is the
    answer; what it changes in ``call.body`` is what goes on. Names are those of :mod:`weavemw.dockerapi.routes`;
    one that is unknown is a ``ValueError`` at once. The function itself stays reachable as ``__wrapped__``.
    """
    _check(calls)

    def decorate(judge: Callable[[Request], object]) -> Layer:
        return _named(judge, lambda app: Hook(app, calls=frozenset(calls) if calls else None, judge=judge))

    return decorate


def on_answer(*calls: str) -> Callable[[Callable[[Request, Answer], object]], Layer]:
    """Make a layer of a function that sees Docker's answers to these calls, and may change them.

    The function gets the :class:`~weavemw.dockerapi.request.Request` and an
    :class:`~weavemw.middleware.answers.Answer`. Raises ``ValueError`` for unknown names, and for calls whose answers
    are streams.
    """
    _check(calls)
    if not calls or STREAMS.intersection(calls):
        raise ValueError(f"name calls whose answers are no streams; these are: {', '.join(sorted(STREAMS))}")

    def decorate(see: Callable[[Request, Answer], object]) -> Layer:
        return _named(see, lambda app: AnswerHook(app, calls=frozenset(calls), see=see))

    return decorate


def _refuse_host_config(call: Request) -> None:
    """Up to API 1.23 a start may bring a HostConfig, which replaces the one that a policy saw at create."""
    if call.body.has_host_config:
        raise BadRequest("a start with a HostConfig is not supported: give it at create")


def _named(function: Callable[..., object], layer: Layer) -> Layer:
    return functools.update_wrapper(layer, function)


def _check(calls: Iterable[str]) -> None:
    for name in calls:
        if name not in NAMES:
            near = difflib.get_close_matches(name, sorted(NAMES), 1)
            raise ValueError(f"no call of Docker's API is named {name!r}" + (f": is it {near[0]}?" if near else ""))
