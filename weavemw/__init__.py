"""weavemw: the Weave Docker API proxy as composable WSGI middlewares.

``gunicorn weavemw.app:proxy`` serves the whole stack; every middleware in
:mod:`weavemw.middleware` also works alone around any WSGI app that speaks
Docker's API.

``docker_proxy``, ``on`` and ``on_answer`` are the short form for programs of one's own (:mod:`weavemw.library`).

What is public, and changes only with a word in the changelog:

* :mod:`weavemw.library`: ``docker_proxy``, ``on``, ``on_answer``, which are also names of this package;
  :mod:`weavemw.policies`: ``read_only``, ``allow``, ``refuse_privileged``, ``refuse_host_mounts``, ``label``,
  ``audit``; what functions get is ``Request`` and ``Document`` of :mod:`weavemw.dockerapi.request` and ``Answer`` of
  :mod:`weavemw.middleware.answers`.
* :mod:`weavemw.app`: ``build`` and ``proxy``; :class:`weavemw.settings.Settings`, which they are made of.
* :mod:`weavemw.middleware`: ``hooks.Hook``, ``answers.AnswerHook``, ``cidr.CidrParser``,
  ``entrypoint.EntrypointWrapper``, ``dns.DnsInjector``, ``ipam.IpamClient``, ``attach.Attacher``,
  ``inspect.InspectRewriter``, ``origin.OriginGuard``, ``errors.ErrorResponder``; what they leave for each other is in
  :mod:`weavemw.context`.
* :mod:`weavemw.transport`: ``passthrough.Passthrough``, ``upstream.Upstream``, ``hijack.Handover``, ``relay.Relay``,
  ``http_client.HttpClient``.
* ``Docker`` and ``DockerClient`` of :mod:`weavemw.dockerapi.client`, ``Router`` and ``RouterClient`` of
  :mod:`weavemw.router.client`: protocols and what speaks to the real ones.
* :mod:`weavemw.errors`: every error, with its ``code``, ``status`` and attributes.
* :mod:`weavemw.testing`: a Docker, a router and a network for tests.
* The command ``weave``, and ``python -m`` with ``weavemw``, ``weavemw.server``, ``weavemw.router``, ``weavemw.probe``.

All else is free to change.
"""

TYPE_CHECKING = False  # not typing's, whose import costs more than all that is here

if TYPE_CHECKING:
    from weavemw.library import docker_proxy, on, on_answer

__all__ = ["__version__", "docker_proxy", "on", "on_answer"]

__version__ = "0.1.0"

_LIBRARY = ("docker_proxy", "on", "on_answer")


def __getattr__(name: str) -> object:
    """The library's names, imported when they are asked for: most who import weavemw want one small part of it."""
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weavemw import library

    return getattr(library, name)
