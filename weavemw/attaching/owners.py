"""Who is meant by the 64 digits of a container's id in somebody else's sentence."""

from __future__ import annotations

import re

from weavemw.dockerapi.client import Docker
from weavemw.errors import WeaveError

__all__ = ["with_names"]

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def with_names(text: str, docker: Docker) -> str:
    """The text with the name and the short id of each container in place of its id; only that, if none has it."""
    return _ID.sub(lambda found: _name(found[0], docker), text)


def _name(container_id: str, docker: Docker) -> str:
    try:
        name = docker.inspect(container_id).name
    except WeaveError:
        name = ""
    return f"{name} ({container_id[:12]})" if name else container_id[:12]
