"""The whole proxy as one WSGI application: ``gunicorn weavemw.app:proxy``.

The stack is read inside out: the passthrough app forwards to Docker, and each
middleware around it adds one thing. Building it touches neither Docker nor the
network.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from weavemw.hijack import Handover
from weavemw.passthrough import Passthrough
from weavemw.relay import Relay
from weavemw.settings import Settings
from weavemw.upstream import Upstream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["build", "proxy"]


def build(settings: Settings, *, relay: Relay | None = None) -> WSGIApplication:
    """The proxy's stack for these settings."""
    return Handover(
        Passthrough(Upstream(settings.docker_socket)),
        relay=relay or Relay(),
    )


proxy = build(Settings.from_environ(os.environ))
