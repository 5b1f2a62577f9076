"""A container's ``/etc/hostname``, which Docker writes at each start: the hostname that it has by now."""

from __future__ import annotations

from weavemw.dockerapi.container import Container
from weavemw.network import own_files

__all__ = ["rewrite"]


def rewrite(container: Container, hostname: str) -> bool:
    """Let the file name this hostname; see :func:`weavemw.network.own_files.change`."""
    return own_files.change(container, container.hostname_path, "/etc/hostname", lambda _: f"{hostname}\n")
