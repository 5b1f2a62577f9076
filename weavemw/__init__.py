"""weavemw: the Weave Docker API proxy as composable WSGI middlewares.

``gunicorn weavemw.app:proxy`` serves the whole stack; every middleware in
:mod:`weavemw.middleware` also works alone around any WSGI app that speaks
Docker's API.

What is public, and changes only with a word in the changelog:

* :mod:`weavemw.app`: ``build`` and ``proxy``; :class:`weavemw.settings.Settings`, which they are made of.
* :mod:`weavemw.middleware`: ``cidr.CidrParser``, ``entrypoint.EntrypointWrapper``, ``dns.DnsInjector``,
  ``ipam.IpamClient``, ``attach.Attacher``, ``inspect.InspectRewriter``, ``origin.OriginGuard``,
  ``errors.ErrorResponder``; what they leave for each other is in :mod:`weavemw.context`.
* :mod:`weavemw.transport`: ``passthrough.Passthrough``, ``upstream.Upstream``, ``hijack.Handover``, ``relay.Relay``,
  ``http_client.HttpClient``.
* ``Docker`` and ``DockerClient`` of :mod:`weavemw.dockerapi.client`, ``Router`` and ``RouterClient`` of
  :mod:`weavemw.router.client`: protocols and what speaks to the real ones.
* :mod:`weavemw.errors`: every error, with its ``code``, ``status`` and attributes.
* :mod:`weavemw.testing`: a Docker, a router and a network for tests.
* The command ``weave``, and ``python -m`` with ``weavemw``, ``weavemw.server``, ``weavemw.router``, ``weavemw.probe``.

All else is free to change.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
