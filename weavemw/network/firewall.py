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

__all__ = ["asking", "let_ask", "let_through", "masquerade", "shut", "unmasquerade"]

_log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

_PROGRAMS = ("iptables", "ip6tables")
_THROUGH, _DNS = "WEAVE", "WEAVE-DNS"
_HOOKS = {_THROUGH: "FORWARD", _DNS: "INPUT"}
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
    """Remove what :func:`let_through` and :func:`let_ask` added; nothing to remove is no error."""
    for program in filter(shutil.which, _PROGRAMS):
        for chain, hook in _HOOKS.items():
            for command in (("-D", hook, "-j", chain), ("-F", chain), ("-X", chain)):
                _try(program, *command)


def asking(bridge: str, others: Iterable[str], port: int) -> list[tuple[str, ...]]:
    """Rules by which these bridges may ask DNS, and ``bridge`` nothing else of weaveDNS's address there. Pure."""
    names = filter(_NAME.fullmatch, dict.fromkeys((bridge, *others)))
    accepting = [("-i", name, "-p", protocol, "--dport", str(port), "-j", "ACCEPT")
                 for name in names for protocol in ("udp", "tcp")]
    return [*accepting, ("-i", bridge, "-d", str(WEAVE_DNS), "-j", "DROP")]


def masquerade(networks: Iterable[Network]) -> None:
    """Let packets between these networks and elsewhere have this host's address; done again, it changes nothing.

    Raises :class:`~weavemw.errors.NetworkError` where iptables refuses, or is missing.
    """
    for network in networks:
        for rule in _masquerading(network):
            if _nat(network, "-C", rule).returncode:
                result = _nat(network, "-A", rule)
                if result.returncode:
                    raise NetworkError(f"can't masquerade {network}: {result.stderr.strip()}")


def unmasquerade(networks: Iterable[Network]) -> None:
    """Remove what :func:`masquerade` added; nothing to remove is no error."""
    for network in networks:
        if shutil.which(_program(network)):
            for rule in _masquerading(network):
                _nat(network, "-D", rule)


def _masquerading(network: Network) -> tuple[tuple[str, ...], ...]:
    here = str(network)
    return (("-s", here, "!", "-d", here, "-j", "MASQUERADE"), ("-d", here, "!", "-s", here, "-j", "MASQUERADE"))


def _nat(network: Network, action: str, rule: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return _run(_program(network), "-t", "nat", action, "POSTROUTING", *rule)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"can't masquerade {network}: {error}") from error


def _program(network: Network) -> str:
    return _PROGRAMS[network.version == 6]


def _set(program: str, chain: str, rules: Iterable[tuple[str, ...]]) -> None:
    """Let a chain have exactly these rules, at once, and be asked first."""
    lines = ("*filter", f":{chain} - [0:0]", *(f"-A {chain} {' '.join(rule)}" for rule in rules), "COMMIT", "")
    result = _try(f"{program}-restore", "--noflush", given="\n".join(lines))
    if result and result.returncode:
        _log.warning("%s-restore, chain %s: %s", program, chain, result.stderr.strip())
    elif result and (found := _try(program, "-C", _HOOKS[chain], "-j", chain)) and found.returncode:
        _try(program, "-I", _HOOKS[chain], "-j", chain)


def _try(program: str, *args: str, given: str = "") -> subprocess.CompletedProcess[str] | None:
    try:
        return _run(program, *args, given=given)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s", error)
        return None


def _run(program: str, *args: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "-w", *args], input=given, capture_output=True, text=True, timeout=_LIMIT,
                          check=False)
