"""Asking: status, version, healthcheck."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import click

from weavemw import __version__
from weavemw.cli.command import Invocation, verb
from weavemw.cli.router import router_text
from weavemw.docker import DockerClient
from weavemw.errors import WeaveError
from weavemw.supervisor import PROXY, ROUTER
from weavemw.watcher import read_state

__all__ = ["healthcheck", "status", "version"]

_PARTS = ["proxy", "router", "targets", "connections", "peers", "dns", "ipam"]


@verb("status")
@click.argument("part", required=False, type=click.Choice(_PARTS))
@click.option("--json", "as_json", is_flag=True, help="The same as data.")
@click.pass_obj
def status(weave: Invocation, part: str | None, as_json: bool) -> None:
    """Say how router and proxy are; its status is 1 when neither runs.

    \b
    weave status
    weave status dns
    weave status --json
    """
    if part and part not in ("proxy", "router"):
        return _echo_part(weave, part)
    found = {name: look(weave) for name, look in _LOOKS.items() if part in (None, name)}
    click.echo(json.dumps({"version": __version__, **found}, indent=2) if as_json else _as_text(found))
    if not any(facts["running"] for facts in found.values()):
        click.get_current_context().exit(1)
    return None


@verb("version")
def version() -> None:
    """Print the version.

    \b
    weave version
    """
    click.echo(f"weave {__version__}")


@verb("healthcheck")
@click.pass_obj
def healthcheck(weave: Invocation) -> None:
    """Say nothing and end with 0 if router and proxy serve; else say what does not, and end with 1.

    \b
    weave healthcheck || mail -s "weave is down" root
    """
    wrong = [f"nothing answers at {each}" for each, serves in weave.proxy_answers().items() if not serves]
    if not weave.proxy_listeners:
        wrong.append("weave proxy is not running")
    if not _router(weave)["running"]:
        wrong.append("weave router is not running")
    if wrong:
        raise click.ClickException("; ".join(wrong))


def _echo_part(weave: Invocation, part: str) -> None:
    address = weave.settings().router_address
    text = router_text(address, f"/status/{part}")
    if text is None:
        raise WeaveError(f"weave router is not running (nothing answers at {address})")
    click.echo(text.rstrip("\n"))


def _proxy(weave: Invocation) -> dict[str, Any]:
    facts = weave.proxy
    if facts is None:
        return {"running": False}
    return {"running": True, **facts, "answering": weave.proxy_answers(),
            "engine": _engine(facts.get("docker_host", "")),
            "watcher": asdict(state) if (state := read_state(weave.run_dir)) else None}


def _engine(docker_host: str) -> dict[str, Any]:
    try:
        found = DockerClient(docker_host.removeprefix("unix://"), timeout=5).get("/version")
        return {"version": found.get("Version"), "api_version": found.get("ApiVersion")}
    except WeaveError as error:
        return {"error": error.message}


def _router(weave: Invocation) -> dict[str, Any]:
    address = (weave.proxy or {}).get("router_address") or weave.settings().router_address
    text = router_text(address, "/status")
    return {"running": text is not None, "address": address, "status": text or ""}


_LOOKS = {"router": _router, "proxy": _proxy}


def _as_text(found: dict[str, dict[str, Any]]) -> str:
    blocks = []
    if router := found.get("router"):
        blocks.append(router["status"].strip("\n") if router["running"] else _router_absent(router))
    if proxy := found.get("proxy"):
        blocks.append(_proxy_block(proxy))
    return "\n\n".join(block for block in blocks if block)


def _router_absent(router: dict[str, Any]) -> str:
    return f"weave router is not running (nothing answers at {router['address']})"


def _proxy_block(proxy: dict[str, Any]) -> str:
    if not proxy["running"]:
        return "weave proxy is not running"
    return "\n".join([*(f"{key:>15}: {value}" for key, value in _proxy_rows(proxy)), "weave proxy is running"])


def _proxy_rows(proxy: dict[str, Any]) -> list[tuple[str, Any]]:
    answering = proxy["answering"].items()
    return [
        ("Service", "proxy"),
        ("Version", proxy.get("version", "")),
        *(("Listener", where if ok else f"{where} (does not answer)") for where, ok in answering),
        ("Engine", _engine_text(proxy)),
        ("Router", proxy.get("router_address", "")),
        ("UpFor", _duration(time.time() - proxy.get("started", time.time()))),
        *_watcher_rows(proxy["watcher"]),
    ]


def _watcher_rows(state: dict[str, Any] | None) -> list[tuple[str, Any]]:
    if state is None:
        return [("Watcher", "not started yet")]
    rows = [("Watcher", "follows Docker's events" if state["connected"] else f"not connected: {state['error']}")]
    rows += [("Waiting", f"{each['name']}: {each['error']}") for each in state["pending"].values()]
    alone = [each for each in state["left_alone"].values() if each.get("name") not in (PROXY.name, ROUTER.name)]
    return rows + [("LeftAlone", f"{each.get('name')}: {each.get('reason')}") for each in alone]


def _engine_text(proxy: dict[str, Any]) -> str:
    engine = proxy["engine"]
    about = engine.get("error") or f"Docker {engine['version']}, API {engine['api_version']}"
    return f"{proxy.get('docker_host', '')} ({about})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
