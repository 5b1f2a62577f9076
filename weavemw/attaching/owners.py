"""A router's refusal as a person understands it: who is meant by the 64 digits of an id, and what would help."""

from __future__ import annotations

import re

from weavemw.dockerapi.client import Docker
from weavemw.errors import AddressTaken, RouterError, RouterUnreachable, WeaveError

__all__ = ["clarify", "with_names"]

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


_HINTS = {"out of bounds": "choose a subnet of that range", "Unable to claim": "choose another address",
          "no free addresses": "remove containers that you don't need, or choose another subnet"}


def clarify(error: RouterError, docker: Docker) -> None:
    """Let its message name containers, and give it a hint if it has none."""
    error.args = (with_names(error.message, docker),)
    error.hint = error.hint or _hint(error)


def _hint(error: RouterError) -> str:
    if isinstance(error, AddressTaken):
        return "stop that container, or choose another address"
    if isinstance(error, RouterUnreachable):
        return "`weave status` says more"
    return next((hint for words, hint in _HINTS.items() if words in error.message), "")


def with_names(text: str, docker: Docker) -> str:
    """The text with the name and the short id of each container in place of its id; only that, if none has it."""
    return _ID.sub(lambda found: _name(found[0], docker), text)


def _name(container_id: str, docker: Docker) -> str:
    try:
        name = docker.inspect(container_id).name
    except WeaveError:
        name = ""
    return f"{name} ({container_id[:12]})" if name else container_id[:12]
