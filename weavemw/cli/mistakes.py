"""What to say when something is wrong: the error's own words, and what to do about it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable

from weavemw.attaching.attachment import NotRunning
from weavemw.cli.command import Invocation
from weavemw.errors import DockerError, DockerUnreachable, InvalidCidr, RouterError, RouterUnreachable, WeaveError
from weavemw.network.bridge import EXPOSE

__all__ = ["explained"]

_REFUSED = ("connection refused", "nothing answers")
_FORBIDDEN = ("Permission denied", "Operation not permitted")
_HINTS = {
    r"TLS: can't read .*No such file": "`weave certs` makes what is needed",
    r"can't (use|install the wait program in) ": "--state-dir names another directory",
    r"can't write .*\.json: ": "--run-dir names another directory",
}
_TAKEN = re.compile(r"Unable to claim: address (?P<address>\S+) is already owned by (?P<owner>\S+)")
_NO_CONTAINER = re.compile(r"No such container: (?P<name>.+)")


def explained(error: WeaveError, weave: Invocation) -> str:
    """An error as one line that says what to do."""
    words = " ".join(_specific(error, weave).split())
    words += next((f"; {hint}" for pattern, hint in _HINTS.items()
                   if re.search(pattern, words) and hint not in words), "")
    if any(each in words for each in _FORBIDDEN) and os.geteuid() != 0 and "as root" not in words:
        return f"{words}: try again as root"
    return words


def _specific(error: WeaveError, weave: Invocation) -> str:
    for kind, explain in _EXPLAIN.items():
        if isinstance(error, kind):
            with contextlib.suppress(WeaveError):  # asking what would help failed too: then without
                return explain(error, weave) or error.message
    return error.message


def _invalid(error: WeaveError, _: Invocation) -> str:
    assert isinstance(error, InvalidCidr)
    return f'invalid address "{error.value}": {error.reason}'


def _not_running(error: WeaveError, _: Invocation) -> str:
    name = error.message.removesuffix(" is not running")
    return f"{error.message}: `weave start {name}` starts it, and attaches it"


def _no_docker(error: WeaveError, weave: Invocation) -> str:
    if any(each in error.message for each in ("`", "in time", *_FORBIDDEN)):
        return error.message
    given = weave.given().get("docker_host")
    what = f"or correct {given.source}" if given else "or name its socket by DOCKER_HOST"
    return f"{error.message}: start Docker, {what}"


def _docker_said(error: WeaveError, weave: Invocation) -> str:
    found = _NO_CONTAINER.fullmatch(error.message)
    if not found:
        return error.message
    rows = weave.docker().get("/containers/json?all=1")
    names = [name.removeprefix("/") for row in rows for name in row.get("Names") or ()]
    near = difflib.get_close_matches(found["name"], names, 1)
    return f"{error.message}: did you mean {near[0]}?" if near else f"{error.message}: `docker ps -a` lists them all"


def _no_router(error: WeaveError, weave: Invocation) -> str:
    if not any(each in error.message for each in _REFUSED):
        return error.message
    address = weave.settings().router_address
    return f"weave router is not running (nothing answers at {address}): `weave launch` starts it"


def _router_said(error: WeaveError, weave: Invocation) -> str:
    if error.message.lstrip().startswith("<"):
        address = weave.settings().router_address
        return f"what answers at {address} is no weave router: correct WEAVE_HTTP_ADDR, or end it"
    found = _TAKEN.search(error.message)
    return _taken(found["address"], found["owner"], weave) if found else error.message


def _taken(address: str, owner: str, weave: Invocation) -> str:
    if owner == EXPOSE:
        return f"address {address} is taken by this host: choose another, or `weave hide {address}`"
    container = weave.docker().find(owner)
    if container is None:
        return f"address {address} is taken by {owner[:12]}: choose another"
    name = container["Name"].removeprefix("/")
    return f"address {address} is taken by {name} ({owner[:12]}): choose another, or `weave detach {address} {name}`"


#: The more special kind first.
_EXPLAIN: dict[type[WeaveError], Callable[[WeaveError, Invocation], str]] = {
    InvalidCidr: _invalid,
    NotRunning: _not_running,
    DockerUnreachable: _no_docker,
    DockerError: _docker_said,
    RouterUnreachable: _no_router,
    RouterError: _router_said,
}
