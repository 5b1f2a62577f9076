"""Asking: status, healthcheck, metrics, version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from weavemw import __version__
from weavemw.cli.command import Invocation, verb
from weavemw.cli.router import call_router
from weavemw.errors import RouterError, RouterUnreachable, WeaveError
from weavemw.ops import health
from weavemw.ops.run_dir import RouterAddress

__all__ = ["complaints", "healthcheck", "metrics", "status", "version"]

#: How the reason begins why somebody waits for nothing.
CUT_OFF = "it is cut off"
#: Parts of the router's status, and where each is in its report: so it is in a Weave Net router's as well.
_ROUTER_PARTS = {"targets": ("Router", "Targets"), "connections": ("Router", "Connections"),
                 "peers": ("Router", "Peers"), "dns": ("DNS",), "ipam": ("IPAM",)}


@verb("status")
@click.argument("part", required=False, type=click.Choice(["proxy", "router", *_ROUTER_PARTS]))
@click.option("--json", "as_json", is_flag=True, help="The same as data.")
@click.pass_obj
def status(weave: Invocation, part: str | None, as_json: bool) -> None:
    """Say how router and proxy are, which containers are attached, which wait, which were left alone, and why.

    Its status is 1 when neither router nor proxy runs, or something is wrong with what runs, which is said on stderr.

    \b
    weave status
    weave status dns
    weave status proxy --json
    """
    if part in _ROUTER_PARTS:
        return _echo_router_part(weave, part, as_json=as_json)
    from weavemw.cli import display, facts, overview

    whole = facts.gather(weave)
    found = _only(whole, part)
    to = display.screen(weave.environ)
    click.echo(json.dumps({"version": __version__, **found}, indent=2) if as_json
               else overview.overview(found, to, everything=part is not None), color=to.colour)
    if wrong := _of_what_runs(whole, part):
        click.echo("\n".join(to.paint(f"wrong: {each}", fg="red") for each in wrong), err=True, color=to.colour)
    if wrong or not any(found[name]["running"] for name in ("router", "proxy") if name in found):
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
    """Say in one line whether router, proxy and Docker serve. If not: which of them does not, and the status is 1.

    It ends within some five seconds, whatever hangs.

    \b
    weave healthcheck || mail -s "weave is down" root
    weave healthcheck > /dev/null && echo healthy
    """
    from weavemw.cli.facts import gather

    found = gather(weave)
    if wrong := complaints(found):
        raise WeaveError("; ".join(wrong))
    click.echo(f"healthy: proxy {found['proxy'].get('version', '')}, router at {found['router']['address']}, "
               f"Docker {found['engine']['version']}")


@verb("metrics")
@click.pass_obj
def metrics(weave: Invocation) -> None:
    """Print the proxy's metrics in Prometheus's text format, whatever router it uses.

    The router built in serves them too, with its own: http://127.0.0.1:6784/metrics. Beside a Weave Net router, which
    shows only its own, this is for node_exporter's textfile collector.

    \b
    weave metrics
    weave metrics > /var/lib/node_exporter/weave.prom.new && mv /var/lib/node_exporter/weave.prom{.new,}
    """
    from weavemw.ops.metrics import exposed, of_proxy

    click.echo(exposed(of_proxy(weave.run_dir))[0].decode(), nl=False)


def complaints(facts: Mapping[str, Any]) -> list[str]:
    """What is wrong, part by part; empty if all serves."""
    proxy, router, engine = facts["proxy"], facts["router"], facts["engine"]
    wrong = []
    if engine.get("error"):
        wrong.append(f"engine: {engine['error']}")
    if not router["running"]:
        wrong.append(f"router: {router['error']}")
    wrong += [f"router: {problem}" for problem in router.get("problems", ())]
    if not proxy["running"]:
        return [*wrong, f"proxy: {proxy.get('error') or 'weave proxy is not running'}"]
    if not engine.get("error"):
        wrong += [f"proxy: {each['address']} {each['error']}" for each in proxy["listening"] if each["error"]]
    return wrong + _watcher_complaint(proxy.get("watcher"), engine) + _cut_off(facts.get("containers") or {})


def _watcher_complaint(state: Mapping[str, Any] | None, engine: Mapping[str, Any]) -> list[str]:
    return [] if engine.get("error") else [f"proxy: {problem}" for problem in health.of_watcher(state)]


def _of_what_runs(facts: Mapping[str, Any], part: str | None) -> list[str]:
    """What is wrong with what is asked for, but that a part was not launched."""
    missing = tuple(f"{name}: " for name in ("router", "proxy") if not facts[name]["running"])
    return [each for each in complaints(facts) if not each.startswith(missing) and not each.endswith(": not yet")
            and (part != "router" or each.startswith("router: "))]


def _cut_off(containers: Mapping[str, Any]) -> list[str]:
    """Those that nobody attaches, of whom the watcher knows nothing."""
    return [f"container {each['name']}: {each['reason']}" for each in containers.get("waiting", ())
            if not each.get("attempts") and each["reason"].startswith(CUT_OFF)]


def _only(facts: dict[str, Any], part: str | None) -> dict[str, Any]:
    if part is None:
        return facts
    return {"router": facts["router"]} if part == "router" else {k: v for k, v in facts.items() if k != "router"}


def _echo_router_part(weave: Invocation, part: str, *, as_json: bool) -> None:
    address = weave.settings().router_at
    if as_json:
        click.echo(json.dumps(_part_of_report(address, part), indent=2))
    elif text := call_router(address, "GET", f"/status/{part}").rstrip("\n"):
        click.echo(text)


def _part_of_report(address: RouterAddress, part: str) -> Any:
    """A part of the router's report; of one that has none in JSON, or not that part, its words."""
    try:
        found = json.loads(call_router(address, "GET", "/report", accept="application/json"))
        for name in _ROUTER_PARTS[part]:
            found = found[name]
    except RouterUnreachable:
        raise
    except (RouterError, ValueError, KeyError, TypeError):
        return {"text": call_router(address, "GET", f"/status/{part}")}
    return found
