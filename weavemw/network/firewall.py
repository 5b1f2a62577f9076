"""Packets between containers on the weave bridge, and what containers ask of DNS, past the host's firewall.

Where ``br_netfilter`` is loaded, iptables sees bridged packets too, and Docker
sets the policy of FORWARD to DROP (Engine 1.13 and newer). So one rule accepts
what stays on the bridge. What leaves it is not our rule's business. A host that
accepts no connections by default (ufw, say) would drop DNS from its containers.

The rules are in chains of our own, which are written whole, and name each bridge.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from weavemw.errors import NetworkError
from weavemw.network.plan import WEAVE_DNS

__all__ = ["asking", "let_ask", "let_through", "masquerade", "shut"]

_log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

_PROGRAMS = ("iptables", "ip6tables")
_THROUGH, _DNS, _MASQUERADE = "WEAVE", "WEAVE-DNS", "WEAVE-EXPOSE"
_PLACES = {_THROUGH: ("filter", "FORWARD"), _DNS: ("filter", "INPUT"), _MASQUERADE: ("nat", "POSTROUTING")}
_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.:@-]*")  # "+" at the end of a name stands for whatever follows
_LIMIT = 10.0  # seconds; another program may hold the lock on the tables


def let_through(bridge: str) -> None:
    """See to it that packets from the bridge to the bridge are accepted; done again, it changes nothing.

    A host without iptables has no such firewall of Docker's. Failure is logged:
    where nothing filters bridged packets, the rule is not needed.
    """
    for program in filter(shutil.which, _PROGRAMS):
        _set(program, _THROUGH, [("-i", bridge, "-o", bridge, "-j", "ACCEPT")])


def let_ask(bridge: str, others: Iterable[str], port: int = 53) -> None:
    """See to it that DNS on this host can be asked by these bridges; otherwise as above.

    Of weaveDNS's address on ``bridge`` nothing else can be asked: whatever listens on all addresses of the host would
    be within reach of containers without any other network.
    """
    if shutil.which(_PROGRAMS[0]):
        _set(_PROGRAMS[0], _DNS, asking(bridge, others, port))


def shut() -> None:
    """Remove what all functions here added; nothing to remove is no error."""
    for program in filter(shutil.which, _PROGRAMS):
        for chain in _PLACES:
            _remove(program, chain)


def asking(bridge: str, others: Iterable[str], port: int) -> list[tuple[str, ...]]:
    """Rules by which these bridges may ask DNS, and ``bridge`` nothing else of weaveDNS's address there. Pure."""
    names = filter(_NAME.fullmatch, dict.fromkeys((bridge, *others)))
    accepting = [("-i", name, "-p", protocol, "--dport", str(port), "-j", "ACCEPT")
                 for name in names for protocol in ("udp", "tcp")]
    return [*accepting, ("-i", bridge, "-d", str(WEAVE_DNS), "-j", "DROP")]


def masquerade(networks: Iterable[Network]) -> None:
    """Let packets between these networks and elsewhere, and no others, have this host's address.

    Raises :class:`~weavemw.errors.NetworkError` where iptables refuses, or is missing.
    """
    wanted = tuple(networks)
    for program, version in zip(_PROGRAMS, (4, 6), strict=True):
        rules = [rule for each in wanted if each.version == version for rule in _masquerading(each)]
        if not rules and shutil.which(program):
            _remove(program, _MASQUERADE)
        elif rules and (why := _changed(program, _MASQUERADE, rules)):
            raise NetworkError(f"can't masquerade {', '.join(map(str, wanted))}: {why}")


def _masquerading(network: Network) -> tuple[tuple[str, ...], ...]:
    here = str(network)
    return (("-s", here, "!", "-d", here, "-j", "MASQUERADE"), ("-d", here, "!", "-s", here, "-j", "MASQUERADE"))


def _set(program: str, chain: str, rules: Iterable[tuple[str, ...]]) -> None:
    """As :func:`_changed`; what went wrong is logged."""
    if why := _changed(program, chain, rules):
        _log.warning("chain %s: %s", chain, why)


def _changed(program: str, chain: str, rules: Iterable[tuple[str, ...]]) -> str:
    """Let a chain have exactly these rules, at once, and be asked; why not, if it can't be had.

    Where a filter begins with it, it is asked first; of those that translate addresses, last.
    """
    table, hook = _PLACES[chain]
    lines = (f"*{table}", f":{chain} - [0:0]", *(f"-A {chain} {' '.join(rule)}" for rule in rules), "COMMIT", "")
    try:
        result = _run(f"{program}-restore", "--noflush", given="\n".join(lines))
        if not result.returncode and _run(program, "-t", table, "-C", hook, "-j", chain).returncode:
            result = _run(program, "-t", table, "-A" if table == "nat" else "-I", hook, "-j", chain)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"{program}: {result.stderr.strip()}" if result.returncode else ""


def _remove(program: str, chain: str) -> None:
    table, hook = _PLACES[chain]
    for command in (("-D", hook, "-j", chain), ("-F", chain), ("-X", chain)):
        _try(program, "-t", table, *command)


def _try(program: str, *args: str) -> None:
    try:
        _run(program, *args)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s", error)


def _run(program: str, *args: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "-w", *args], input=given, capture_output=True, text=True, timeout=_LIMIT,
                          check=False)
