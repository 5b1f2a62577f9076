"""All there is to know, for a bug report or for scripts: report."""

from __future__ import annotations

import json
from typing import Any

import click

from weavemw import __version__
from weavemw.cli.command import Invocation, verb
from weavemw.cli.router import call_router
from weavemw.errors import RouterUnreachable, WeaveError
from weavemw.ops.run_dir import RouterAddress, router_at

__all__ = ["of_proxy", "report"]


@verb("report")
@click.option("-f", "--format", "template", metavar="FORMAT", help="One part of it, as {{.IPAM.Range}}.")
@click.option("--text", "as_text", is_flag=True, help="For people: everything that `weave status` has.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, which is the default.")
@click.pass_obj
def report(weave: Invocation, template: str | None, as_text: bool, as_json: bool) -> None:
    """Print all that router and proxy know about themselves, as JSON: versions, listeners, engine, addresses, names,
    what is attached, what waits and why, what was left alone and why, the last errors, and what `weave doctor` finds.

    \b
    weave report
    weave report -f '{{.IPAM.DefaultSubnet}}'
    weave report -f '{{json .Proxy.Attached}}'
    weave report --text > report.txt
    """
    if sum(map(bool, (template, as_text, as_json))) > 1:
        raise click.UsageError("--format, --text and --json: choose one")
    from weavemw.cli import display, facts, overview
    from weavemw.cli.doctor import findings

    found = facts.gather(weave)
    if not (found["router"]["running"] or found["proxy"]["running"]):
        call_router(found["router"]["address"], "GET", "/status")  # raises, and knows why
        raise RouterUnreachable(found["router"]["error"])
    if as_text:
        return click.echo(f"Command: weave {__version__}\n\n"
                          + overview.overview(found, display.screen(weave.environ), everything=True))
    router = router_at(weave.run_dir, found["router"]["address"])
    data = {**_of_router(router), "Proxy": of_proxy(found), "Doctor": list(map(str, findings(weave, found)))}
    return click.echo(_formatted(data, template, router) if template
                      else json.dumps(data, indent=2))


def of_proxy(facts: dict[str, Any]) -> dict[str, Any]:
    """The proxy's part of the report, in the router's spelling."""
    proxy, engine, watcher = facts["proxy"], facts["engine"], facts["proxy"].get("watcher") or {}
    return {
        "Running": proxy["running"],
        "Error": proxy.get("error", ""),
        "Version": proxy.get("version", ""),
        "PID": proxy.get("pid", 0),
        "Started": proxy.get("started", 0),
        "TLS": proxy.get("tls", False),
        "Listeners": [{"Address": each["address"], "Error": each["error"]} for each in proxy.get("listening", ())],
        "Engine": {"Host": engine["host"], "Version": engine.get("version", ""),
                   "APIVersion": engine.get("api_version", ""), "Error": engine.get("error", "")},
        "RouterAddress": facts["router"]["address"],
        "Watcher": {"Connected": watcher.get("connected", False), "Error": watcher.get("error", ""),
                    "Counters": watcher.get("counters", {})},
        **_containers(facts["containers"]),
        "Errors": [{"Time": each["time"], "Program": each["program"], "Level": each["level"],
                    "Message": each["message"]} for each in facts["errors"]],
    }


def _containers(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "Attached": [{"ID": each["id"], "Name": each["name"], "Addresses": each["addresses"] or [],
                      "Names": each["names"]} for each in found["attached"]],
        "Waiting": [{"ID": each["id"], "Name": each["name"], "Reason": each["reason"],
                     "Attempts": each.get("attempts", 0)} for each in found["waiting"]],
        "LeftAlone": [{"ID": each["id"], "Name": each.get("name", ""), "Reason": each.get("reason", "")}
                      for each in found["left_alone"]],
    }


def _of_router(address: RouterAddress) -> dict[str, Any]:
    """The router's report; without one, why."""
    try:
        found = json.loads(call_router(address, "GET", "/report", accept="application/json"))
        return found if isinstance(found, dict) else {"Error": "the router's report is none"}
    except WeaveError as error:
        return {"Error": error.message}
    except ValueError:
        return {"Error": "the router's report is not JSON"}


def _formatted(data: dict[str, Any], template: str, address: RouterAddress) -> str:
    """A path is followed here, in all of it; what more Go's templates can do, a Weave Net router knows."""
    from weavemw.router.status import UnsupportedTemplate, formatted

    try:
        return formatted(data, template)
    except UnsupportedTemplate:
        if "Error" in data:
            raise
        return call_router(address, "GET", f"/report?{_query(template)}").rstrip("\n")


def _query(template: str) -> str:
    from urllib.parse import urlencode

    return urlencode({"format": template})
