"""What ``weave status`` shows, made of facts (:mod:`weavemw.cli.facts`). Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weavemw import __version__
from weavemw.cli.display import Screen, block, since, table

if TYPE_CHECKING:
    from weavemw.cli.facts import Facts

__all__ = ["container_table", "error_table", "overview", "router_words"]

#: How much of a list is shown where it is not what was asked for.
_SOME, _LAST = 20, 3


def overview(facts: Facts, to: Screen, *, everything: bool = False, now: float | None = None) -> str:
    """Router, proxy, containers, errors; the last line says whether the proxy runs."""
    now = time.time() if now is None else now
    parts = []
    if "router" in facts:
        parts.append(router_words(facts["router"], to))
    if "proxy" in facts:
        parts += [_proxy(facts, to, now), container_table(facts["containers"], to, None if everything else _SOME),
                  error_table(facts["errors"], to, now, None if everything else _LAST),
                  _last_line(facts["proxy"], to)]
    return "\n\n".join(part for part in parts if part)


def router_words(router: Facts, to: Screen) -> str:
    """A router's own status; or that there is none."""
    if router["running"]:
        return re.sub(r"(?m)^( *Service: )(.*)$", lambda found: found[1] + to.paint(found[2], bold=True),
                      router["status"].strip("\n"))
    return to.paint(router["error"], fg="red")


def container_table(containers: Facts, to: Screen, limit: int | None = None) -> str:
    """A line for each container that is attached, waits, or was left alone; those that wait come first."""
    rows = [*(_row(each, to.paint("waiting", fg="yellow"), _waits(each)) for each in containers["waiting"]),
            *(_row(each, to.paint("attached", fg="green"), _has(each)) for each in containers["attached"]),
            *(_row(each, "left alone", each.get("reason", "")) for each in containers["left_alone"])]
    if not rows:
        return ""
    shown = table(("CONTAINER", "NAME", "STATE", "ADDRESSES AND NAMES, OR WHY"), rows[:limit], to)
    more = len(rows) - len(rows[:limit])
    return shown + (f"\n… and {more} more: `weave status proxy` shows them all" if more else "")


def error_table(errors: Sequence[Facts], to: Screen, now: float, limit: int | None = None) -> str:
    """The last warnings and errors, the newest last; what was said over and over stands once."""
    if not errors:
        return ""
    found: dict[tuple[str, str], list[Facts]] = {}
    for each in errors:
        found.setdefault((each["program"], each["message"].partition("; next attempt")[0]), []).append(each)
    rows = sorted((same[-1]["time"], program, message + (f" ({len(same)} times)" if len(same) > 1 else ""))
                  for (program, message), same in found.items())
    return table(("LAST ERRORS", "FROM", "MESSAGE"), [
        (_when(moment, now), program, message) for moment, program, message in rows[-limit if limit else 0:]], to)


def _last_line(proxy: Facts, to: Screen) -> str:
    if proxy["running"]:
        return to.paint("weave proxy is running", fg="green")
    why = f" ({proxy['error']})" if proxy.get("error") else ""
    return to.paint(f"weave proxy is not running{why}", fg="red")


def _proxy(facts: Facts, to: Screen, now: float) -> str:
    proxy = facts["proxy"]
    if not proxy["running"]:
        return block([("Service", to.paint("proxy", bold=True)), ("Engine", _engine(facts["engine"], to))], to)
    return block([
        ("Service", to.paint("proxy", bold=True)),
        ("Version", _version(proxy, to)),
        *(("Listener", _listener(each, to)) for each in proxy["listening"]),
        ("Engine", _engine(facts["engine"], to)),
        ("Router", str(proxy.get("router_address", ""))),
        *([("UpFor", since(now - proxy["started"]))] if proxy.get("started") else []),
        ("Watcher", _watcher(proxy.get("watcher"), to)),
        ("Containers", _counts(facts["containers"])),
    ], to)


def _version(proxy: Facts, to: Screen) -> str:
    version = str(proxy.get("version", "unknown"))
    if version == __version__:
        return version
    return version + to.paint(f" (this command is {__version__}; `weave relaunch` starts the proxy anew)", fg="yellow")


def _listener(listening: Facts, to: Screen) -> str:
    error = listening["error"]
    return str(listening["address"]) + (to.paint(f" ({error})", fg="red") if error else "")


def _engine(engine: Facts, to: Screen) -> str:
    if engine.get("error"):
        return to.paint(engine["error"], fg="red")
    return f"Docker {engine['version']}, API {engine['api_version']}, {engine['host']}"


def _watcher(state: Facts | None, to: Screen) -> str:
    if state is None:
        return "starting"
    if state["connected"]:
        found, looked = state.get("found", 0), state.get("looked", 0)
        progress = f" (looked at {looked} of {found} containers)" if looked < found else ""
        failing = [to.paint(f"; {what}: {_waits({**row, 'reason': row['error']})}", fg="yellow")
                   for what, row in (state.get("failing") or {}).items()]
        in_the_way = [to.paint(f"; {each}", fg="yellow") for each in state.get("in_the_way") or ()]
        return "".join(("follows Docker's events", progress, *failing, *in_the_way))
    return to.paint(f"does not follow Docker's events: {state['error'] or 'not yet'}", fg="red")


def _counts(containers: Facts) -> str:
    parts = [f"{len(containers[key])} {key.replace('_', ' ')}" for key in ("attached", "waiting", "left_alone")]
    return ", ".join(part for part in parts if not part.startswith("0 ")) or "none"


def _row(container: Facts, state: str, detail: str) -> tuple[str, str, str, str]:
    return str(container["id"])[:12], container.get("name") or "-", state, detail


def _has(container: Facts) -> str:
    if container["addresses"] is None:
        return "addresses unknown: the router does not answer"
    return " ".join((*container["addresses"], *container["names"])) or "no addresses at the router"


def _waits(container: Facts) -> str:
    tried = f" (tried {container['attempts']} times)" if container.get("attempts", 0) > 1 else ""
    return f"{container['reason']}{tried}"


def _when(moment: float, now: float) -> str:
    form = "%H:%M:%S" if now - moment < 86400 / 2 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(moment))
