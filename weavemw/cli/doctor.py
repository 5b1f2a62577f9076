"""What is wrong on this host, and what cures it: doctor."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import click

from weavemw import __version__, assembly
from weavemw.cli.command import Invocation, verb
from weavemw.dockerapi.container import Container
from weavemw.errors import WeaveError

__all__ = ["Finding", "doctor", "findings", "of_clock", "of_disk", "of_health", "of_rules", "of_versions"]

_ROOM = 100 << 20  # bytes
_CLOCK = 5.0  # seconds
_ASKED = 20  # containers, among which those are that ask weaveDNS by each of its addresses
_RELAUNCH = "`weave relaunch`"
_SERVES = "look into `docker logs weave` and `docker logs weaveproxy`"

#: What cures a complaint, by a part of it; the first that fits.
_CURES = (
    ("not running", "`weave launch`"),
    ("engine:", "start Docker; DOCKER_HOST names its socket"),
    ("the bridge", "it comes back within seconds while the router runs; else " + _RELAUNCH),
    ("can't write in", "make room there, or mount it writable"),
    ("no resolver", "name one in /etc/resolv.conf, or by --upstream"),
    ("listens nowhere", "start Docker, or end what has port 53 there: `ss -lunp sport = 53`"),
    ("does not follow", f"{_RELAUNCH}; if Docker hangs, restart Docker"),
    ("asking Docker", "Docker hangs: restart Docker"),
    ("cut off", "`weave attach CONTAINER`"),
    ("did not answer", _RELAUNCH),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``wrong`` is empty if it is as it should be, ``cure`` says what helps."""

    what: str
    wrong: str = ""
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.wrong}. Cure: {self.cure}" if self.wrong else f"{self.what}: fine"


@verb("doctor")
@click.option("--json", "as_json", is_flag=True, help="The same as data.")
@click.pass_obj
def doctor(weave: Invocation, as_json: bool) -> None:
    """Look at everything that weave needs on this host, and say what cures what is wrong: router, proxy, Docker,
    bridge, firewall, DNS, reachability between two containers, disk, clock, versions.

    Its status is 1 if something is wrong.

    \b
    weave doctor
    weave doctor --json
    """
    found = findings(weave)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        from weavemw.cli.display import screen

        to = screen(weave.environ)
        for each in found:
            click.echo(to.paint(str(each), fg="red" if each.wrong else "green"), color=to.colour)
    if any(each.wrong for each in found):
        click.get_current_context().exit(1)


def findings(weave: Invocation, facts: Mapping[str, Any] | None = None) -> list[Finding]:
    """All of it, in some ten seconds at most; ``facts`` are those of :func:`weavemw.cli.facts.gather`, if known."""
    from weavemw.cli.facts import gather

    known, settings = facts or gather(weave), weave.settings()
    has_docker = not known["engine"].get("error")
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "health": partial(of_health, known),
        "versions": partial(of_versions, known, __version__),
        "bridge": lambda: _bridge(settings.bridge),
        "firewall": lambda: of_rules(settings.bridge, _rules()),
        "disk": lambda: of_disk({path: _free(path) for path in (settings.state_dir, settings.run_dir)}),
        "clock": lambda: of_clock(_clock_of_docker(weave) if has_docker else None, time.time()),
    }
    if has_docker and known["router"]["running"]:
        looks["containers"] = lambda: _containers(weave, known)
    return [finding for what, look in looks.items() for finding in _looked(what, look)]


def of_health(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """What `weave healthcheck` complains of, each with its cure. Pure."""
    from weavemw.cli.status import complaints

    wrong = complaints(facts)
    for each in wrong:
        part, _, what = each.partition(": ")
        yield Finding(part, what or each, next((cure for sign, cure in _CURES if sign in each), _SERVES))
    if not wrong:
        yield Finding("router, proxy, Docker")


def of_versions(facts: Mapping[str, Any], ours: str) -> Iterator[Finding]:
    """Whether what runs is of this command's version. Pure."""
    proxy = facts["proxy"].get("version", ours) if facts["proxy"]["running"] else ours
    wrong = f"the proxy is {proxy}, this command {ours}" if proxy != ours else ""
    yield _finding("versions", wrong, _RELAUNCH)


def of_rules(bridge: str, rules: Sequence[str] | None) -> Iterator[Finding]:
    """Whether the firewall lets through what stays on the bridge, by ``iptables -S``; ``None``: no iptables. Pure."""
    drops = rules is not None and "-P FORWARD DROP" in rules
    is_open = rules is not None and f"-A WEAVE -i {bridge} -o {bridge} -j ACCEPT" in rules \
        and "-A FORWARD -j WEAVE" in rules
    wrong = "" if is_open or not drops else f"nothing accepts what stays on {bridge}, and FORWARD drops"
    yield _finding("firewall", wrong, f"the router mends it within seconds while it runs; else {_RELAUNCH}")


def of_disk(free: Mapping[Path, int]) -> Iterator[Finding]:
    """Whether there is room, in bytes. Pure."""
    full = [f"{path} has {left >> 20} MB left" for path, left in free.items() if left < _ROOM]
    yield _finding("disk", "; ".join(full), "make room there")


def of_clock(docker: float | None, ours: float) -> Iterator[Finding]:
    """Whether Docker's clock and ours go alike, and it is later than this program (Unix times). Pure."""
    wrong = ""
    if ours < datetime(2024, 1, 1).timestamp():
        wrong = "this host's clock says that it is before 2024"
    elif docker is not None and abs(docker - ours) > _CLOCK:
        wrong = f"Docker's clock is {docker - ours:+.0f} s from ours"
    yield _finding("clock", wrong, "set the clock (NTP): certificates and events depend on it")


def _finding(what: str, wrong: str, cure: str) -> Finding:
    return Finding(what, wrong, cure if wrong else "")


def _looked(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except (WeaveError, OSError) as error:
        hint = "try again as root" if os.geteuid() else _SERVES
        yield Finding(what, f"it can't be looked at: {error}", hint)


def _bridge(name: str) -> Iterator[Finding]:
    from weavemw.network.bridge import look

    found = look(name)
    yield _finding("bridge", "" if found else f"there is no bridge {name}", _RELAUNCH)


def _rules() -> list[str] | None:
    import subprocess

    if not shutil.which("iptables"):
        return None
    done = subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise WeaveError(done.stderr.strip())
    return done.stdout.splitlines()


def _free(path: Path) -> int:
    there = os.statvfs(path)
    return there.f_bavail * there.f_frsize


def _clock_of_docker(weave: Invocation) -> float | None:
    said = str(weave.docker().get("/info").get("SystemTime") or "")
    return datetime.fromisoformat(said[:19] + "+00:00").timestamp() if said.endswith("Z") else None


def _network(container: Mapping[str, Any]) -> object:
    return ip_interface(container["addresses"][0]).network


def _askers(weave: Invocation, attached: Sequence[Container]) -> dict[str, Container]:
    """Where weaveDNS is reached, and by whom: by all on the weave network, by some on Docker's bridge too."""
    router = assembly.router(weave.settings())
    by_docker = [each for each in attached if each.network_mode in ("default", "bridge")]
    servers = {router.dns_address("weave"): attached[0]} | {router.dns_address(): each for each in by_docker[:1]}
    return {server: each for server, each in servers.items() if server}


def _containers(weave: Invocation, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """From within one that is attached: another by its address, and weaveDNS by each of its addresses."""
    from weavemw.network.netlink import NetlinkNetwork
    from weavemw.network.reach import echo, resolves

    attached = [each for each in facts["containers"]["attached"] if each["addresses"] and each["name"]]
    if not attached:
        return
    first, network = weave.docker().inspect(attached[0]["id"]), NetlinkNetwork(weave.settings().bridge)
    near = [each for each in attached[1:] if _network(each) == _network(attached[0])]  # other subnets are kept apart
    for other in near[:1]:
        address = str(ip_interface(other["addresses"][0]).ip)
        raw = partial(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with network.visit(first.pid, first.sandbox_key, raw) as sock:
            wrong = "" if echo(sock, address) else f"{first.name} does not reach {other['name']} at {address}"
        yield _finding("reachability", wrong, f"`weave attach {other['name']}`; is there a firewall in one of them?")
    who = [weave.docker().inspect(each["id"]) for each in attached[:_ASKED]]
    for server, one in _askers(weave, who).items():
        sock = network.visit(one.pid, one.sandbox_key, partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
        with sock:
            wrong = "" if resolves(sock, server, 53, "weave.local") else f"{one.name} gets no answer from {server}"
        yield _finding(f"DNS at {server}", wrong, f"{_RELAUNCH}; does the host's firewall drop port 53?")
