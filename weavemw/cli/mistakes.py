"""What to say when something is wrong: the error's own words, and what to do about it."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
from collections.abc import Callable
from typing import Any

from weavemw.attaching.attachment import NotRunning
from weavemw.cli.command import Invocation
from weavemw.errors import (
    AddressTaken,
    DockerUnreachable,
    InvalidCidr,
    NoSuchContainer,
    RouterUnreachable,
    WeaveError,
)
from weavemw.network.bridge import EXPOSE

__all__ = ["explained"]

_FORBIDDEN = (errno.EACCES, errno.EPERM)


def explained(error: WeaveError, weave: Invocation) -> str:
    """An error as one line that says what to do."""
    words = " ".join(_specific(error, weave).split())
    if error.hint:
        words += f"; {error.hint}"
    return f"{words}: try again as root" if error.errno in _FORBIDDEN and os.geteuid() != 0 else words


def _specific(error: WeaveError, weave: Invocation) -> str:
    explain = next((explain for kind, explain in _EXPLAIN.items() if isinstance(error, kind)), None)
    if explain:
        with contextlib.suppress(WeaveError):  # asking what would help failed too: then without
            return explain(error, weave)
    return error.message


def _invalid(error: InvalidCidr, _: Invocation) -> str:
    return f'invalid address "{error.value}": {error.reason}'


def _not_running(error: NotRunning, _: Invocation) -> str:
    return f"{error.message}: `weave start {error.container}` starts it, and attaches it"


def _no_docker(error: DockerUnreachable, weave: Invocation) -> str:
    """A Docker that is not there, by the system's word; one that is slow or closed to us is another matter."""
    if error.hint or error.errno in (0, *_FORBIDDEN):
        return error.message
    given = weave.given().get("docker_host")
    what = f"or correct {given.source}" if given else "or name its socket by DOCKER_HOST"
    return f"{error.message}: start Docker, {what}"


def _no_container(error: NoSuchContainer, weave: Invocation) -> str:
    rows = weave.docker().get("/containers/json?all=1")
    names = [name.removeprefix("/") for row in rows for name in row.get("Names") or ()]
    near = difflib.get_close_matches(error.container, names, 1)
    return f"{error.message}: did you mean {near[0]}?" if near else f"{error.message}: `docker ps -a` lists them all"


def _no_router(error: RouterUnreachable, weave: Invocation) -> str:
    if not error.absent:
        return error.message
    address = weave.settings().router_address
    return f"weave router is not running (nothing answers at {address}): `weave launch` starts it"


def _taken(error: AddressTaken, weave: Invocation) -> str:
    address, owner = error.address, error.owner
    if owner == EXPOSE:
        return f"address {address} is taken by this host: choose another, or `weave hide {address}`"
    container = weave.docker().find(owner)
    if container is None:
        return f"address {address} is taken by {owner[:12]}: choose another"
    name = container["Name"].removeprefix("/")
    return f"address {address} is taken by {name} ({owner[:12]}): choose another, or `weave detach {address} {name}`"


_EXPLAIN: dict[type[WeaveError], Callable[[Any, Invocation], str]] = {
    InvalidCidr: _invalid,
    NotRunning: _not_running,
    DockerUnreachable: _no_docker,
    NoSuchContainer: _no_container,
    RouterUnreachable: _no_router,
    AddressTaken: _taken,
}
