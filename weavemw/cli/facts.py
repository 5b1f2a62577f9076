"""What there is to know of this host's router, proxy, engine and containers: asked all at once, whoever is down.

Nothing here fails because something does not answer: what could not be found
out is an ``error`` in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from weavemw.cli.command import Invocation
from weavemw.cli.management import ManagingClient
from weavemw.cli.mistakes import explained
from weavemw.cli.router import call_router
from weavemw.cli.supervisor import PROXY, ROUTER, Supervisor
from weavemw.dockerapi import hosts
from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.wait_mount import starts_with_it
from weavemw.errors import RouterError, RouterUnreachable, WeaveError
from weavemw.network.netlink import NetlinkNetwork
from weavemw.network.plan import HostInterface, host_names
from weavemw.ops import run_file, troubles
from weavemw.ops.run_dir import RouterAddress, router_at
from weavemw.ops.watcher_state import read_state
from weavemw.router.client import RouterClient
from weavemw.serving import listeners

__all__ = ["Facts", "attached_ids", "containers", "gather", "held_back", "is_of_now", "router_facts"]

_LIMIT = 5.0  # seconds for each answer
_TROUBLES, _SHOWN = 100, 20  # last errors that are looked at, and that are shown
_ABOUT = re.compile(r"\bcontainer (?P<id>[0-9a-f]{12})\b|/containers/(?P<name>[^/ ]+)/")
Facts = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
T = TypeVar("T")


def gather(weave: Invocation) -> Facts:
    """All of it, in little more than the time of the slowest answer (at most some five seconds)."""
    settings, proxy = weave.settings(), proxy_facts(weave)
    engine_host = proxy.get("docker_host") or settings.docker_host
    address = router_at(weave.run_dir, proxy.get("router_address") or settings.router_address)
    docker, router = ManagingClient(engine_host.removeprefix("unix://"), timeout=_LIMIT), RouterClient(address)
    with ThreadPoolExecutor(16, "status") as pool:
        found: dict[str, Future[Any]] = {
            "router": pool.submit(router_facts, address),
            "engine": pool.submit(_engine, docker),
            "listening": pool.submit(_listening, proxy, pool),
            "all": pool.submit(_or_none, lambda: docker.get("/containers/json?all=1")),
            "running": pool.submit(_or_none, lambda: docker.get("/containers/json")),
            "owned": pool.submit(_or_none, router.owned),
            "names": pool.submit(_or_none, router.names),
            "router_trouble": pool.submit(_or_none, lambda: Supervisor(docker).trouble(ROUTER)),
            "proxy_trouble": pool.submit(_or_none, lambda: Supervisor(docker).trouble(PROXY)),
            "interfaces": pool.submit(_or_none, NetlinkNetwork(settings.bridge).interfaces),
        }
        asked = {name: answer.result() for name, answer in found.items()}
    if proxy["running"]:
        proxy |= {"listening": asked["listening"], "engine": asked["engine"]}
    for program, facts in (("router", asked["router"]), ("proxy", proxy)):
        _explain(facts, asked[f"{program}_trouble"])
    return {"router": asked["router"], "proxy": proxy, "engine": {"host": engine_host, **asked["engine"]},
            "containers": containers(proxy, asked["running"], asked["interfaces"], asked["owned"], asked["names"]),
            "errors": _errors(weave.run_dir, asked["all"])}


def _explain(facts: Facts, trouble: str | None) -> None:
    """If it does not run, its container may know why."""
    if trouble and not facts["running"]:
        facts["error"] = ": ".join(filter(None, (facts.get("error"), trouble)))


def proxy_facts(weave: Invocation) -> Facts:
    """What the proxy says of itself in the run directory."""
    try:
        found = run_file.running(weave.run_dir / run_file.PROXY)
        state = read_state(weave.run_dir)
    except WeaveError as error:
        return {"running": False, "error": explained(error, weave)}
    if found is None:
        return {"running": False}
    if state and state.since < found.get("started", 0):  # an earlier proxy's
        state = None
    return {"running": True, **found, "watcher": asdict(state) if state else None}


def router_facts(address: RouterAddress) -> Facts:
    """Whether a router answers, and its own words."""
    try:
        text, wrong = call_router(address, "GET", "/status", timeout=_LIMIT), ""
    except RouterUnreachable as error:
        text, wrong = "", error.message
    except RouterError:
        text, wrong = "", f"weave router is not running (what answers at {address} is none)"
    if text.lstrip().startswith("<"):
        text, wrong = "", f"weave router is not running (what answers at {address} is none)"
    return {"running": not wrong, "address": str(address), "status": text, "error": wrong,
            "problems": [] if wrong else router_problems(address)}


def router_problems(address: RouterAddress) -> list[str]:
    """What a router says is wrong with it; a Weave Net router says nothing of that."""
    try:
        report = json.loads(call_router(address, "GET", "/report", timeout=_LIMIT, accept="application/json"))
        return list(map(str, report.get("Problems") or ()))
    except (RouterError, ValueError, AttributeError):  # of another kind, or one that has just ended
        return []


def containers(proxy: Facts, running: Rows | None, interfaces: Sequence[HostInterface] | None,
               owned: Mapping[str, Sequence[Any]] | None, names: Rows | None) -> Facts:
    """What is attached, what waits and why, what was left alone and why. ``None`` is what could not be found out."""
    watcher = proxy.get("watcher") or {}
    known = {row["Id"]: _name(row) for row in running or ()}
    attached = attached_ids(interfaces or (), [*known, *(owned or {})])
    return {
        "attached": [_attached(each, known, owned, names or ()) for each in sorted(attached, key=_by(known))],
        "waiting": _waiting(proxy, running or (), attached),
        "left_alone": [{"id": key, **row} for key, row in sorted((watcher.get("left_alone") or {}).items())
                       if key not in attached  # by hand
                       and row.get("name") not in (PROXY.name, ROUTER.name)] if proxy["running"] else [],
    }


def attached_ids(interfaces: Sequence[HostInterface], candidates: Sequence[str]) -> set[str]:
    """The containers to which host interfaces belong; those that name none are known by their own name."""
    by_name = {name: each for each in candidates for name in host_names(each)}
    return {each.container_id or by_name.get(each.name, "") for each in interfaces if each.is_port} - {""}


def _attached(container: str, known: Mapping[str, str], owned: Mapping[str, Sequence[Any]] | None,
              names: Rows) -> Facts:
    registered = dict.fromkeys(str(row["Hostname"]).rstrip(".") for row in names
                               if row.get("ContainerID") == container and not row.get("Tombstone"))
    return {"id": container, "name": known.get(container, ""),
            "addresses": None if owned is None else [str(address) for address in owned.get(container, ())],
            "names": list(registered)}


def _waiting(proxy: Facts, running: Rows, attached: set[str]) -> list[Facts]:
    """Those whose command is held back, and those which the watcher tries to attach or to clean up after."""
    pending = (proxy.get("watcher") or {}).get("pending") or {}
    alone = (proxy.get("watcher") or {}).get("left_alone") or {}
    held = held_back(running, attached | set(alone))
    rows = [{"id": key, "name": name, "attempts": 0, **_reason(proxy, key)} for key, name in held.items()]
    if proxy["running"]:
        rows += [{"id": key, "name": row.get("name") or key[:12], **_reason(proxy, key)} for key, row in pending.items()
                 if key not in held]
    return sorted(rows, key=lambda row: row["name"])


def held_back(running: Rows, attached: Set[str]) -> dict[str, str]:
    """The names of running containers whose command is held back, by id (rows of ``GET /containers/json``)."""
    return {row["Id"]: _name(row) for row in running
            if starts_with_it(row) and row["Id"] not in attached}


def _reason(proxy: Facts, container_id: str) -> Facts:
    if not proxy["running"]:
        return {"reason": "weave proxy is not running"}
    pending = ((proxy.get("watcher") or {}).get("pending") or {}).get(container_id)
    if pending is None:
        return {"reason": _of_work(proxy.get("watcher"), container_id)}
    return {"reason": pending.get("error", ""), "attempts": pending.get("attempts", 0), "since": pending.get("since")}


def _of_work(watcher: Facts | None, container_id: str) -> str:
    """That it is being attached, if the watcher does that, or will as soon as it has heard of it."""
    if watcher is None:
        return "it will be attached: the watcher is starting"
    if not watcher.get("connected"):
        return f"nobody attaches it: the watcher does not follow Docker's events: {watcher.get('error') or 'not yet'}"
    at_work = container_id in watcher.get("at_work", ()) or watcher.get("looked", 0) < watcher.get("found", 0)
    return "it is being attached" if at_work else "it is cut off, and nobody attaches it"


def _engine(docker: DockerClient) -> Facts:
    try:
        found = docker.get("/version")
        return {"version": found.get("Version"), "api_version": found.get("ApiVersion"),
                "min_api_version": found.get("MinAPIVersion")}
    except WeaveError as error:
        return {"error": error.message}


def _listening(proxy: Facts, pool: ThreadPoolExecutor) -> list[Facts]:
    guarded = bool(proxy.get("guarded"))
    asked: dict[str, Future[str]] = {
        each: pool.submit(listeners.complaint, hosts.parse(each), guarded=guarded, timeout=_LIMIT)
        for each in proxy.get("listeners") or ()}
    return [{"address": each, "error": answer.result()} for each, answer in asked.items()]


def _errors(run_dir: Path, known: Rows | None) -> list[Facts]:
    try:
        found = [asdict(each) for each in troubles.latest(run_dir, _TROUBLES)]
    except WeaveError:  # said of the proxy already
        return []
    return [each for each in found if known is None or is_of_now(each["message"], known)][-_SHOWN:]


def is_of_now(message: str, known: Rows) -> bool:
    """Whether a line of a log is about no container, or one that there is (rows of ``GET /containers/json``)."""
    about = _ABOUT.search(message)
    if about is None:
        return True
    name = about["id"] or about["name"]
    return any(row["Id"].startswith(name) or f"/{name}" in (row.get("Names") or ()) for row in known)


def _or_none(question: Callable[[], T]) -> T | None:
    """An answer; none where none comes, or one of a shape that we don't know."""
    try:
        return question()
    except (WeaveError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _by(known: Mapping[str, str]) -> Callable[[str], tuple[str, str]]:
    return lambda container: (known.get(container, ""), container)


def _name(row: Mapping[str, Any]) -> str:
    return str((row.get("Names") or [row["Id"][:12]])[0]).lstrip("/")
