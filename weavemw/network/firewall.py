"""Packets between containers on the weave bridge, and what containers ask of DNS, past the host's firewall.

Where ``br_netfilter`` is loaded, iptables sees bridged packets too, and Docker
sets the policy of FORWARD to DROP (Engine 1.13 and newer). So one rule accepts
what stays on the bridge. What leaves it is not our rule's business. A host that
accepts no connections by default (ufw, say) would drop DNS from its containers.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from weavemw.errors import NetworkError

__all__ = ["let_ask", "let_through", "masquerade", "shut", "unmasquerade"]

_log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

_PROGRAMS = ("iptables", "ip6tables")
_LIMIT = 10.0  # seconds; another program may hold the lock on the tables


def let_through(bridge: str) -> None:
    """See to it that packets from the bridge to the bridge are accepted; done again, it changes nothing.

    A host without iptables has no such firewall of Docker's. Failure is logged:
    where nothing filters bridged packets, the rule is not needed.
    """
    for program in filter(shutil.which, _PROGRAMS):
        _accept(program, _rule(bridge))


def let_ask(bridges: Iterable[str], port: int = 53) -> None:
    """See to it that DNS on this host can be asked by these bridges and by Docker's networks; otherwise as above."""
    for rule in _asking(bridges, port):
        _accept(_PROGRAMS[0], rule)


def shut(bridge: str, *others: str) -> None:
    """Remove what :func:`let_through` added for the bridge, and :func:`let_ask` for it and the others."""
    for program in filter(shutil.which, _PROGRAMS):
        _drop(program, _rule(bridge))
    if shutil.which(_PROGRAMS[0]):
        for rule in _asking((bridge, *others), 53):
            _drop(_PROGRAMS[0], rule)


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


def _rule(bridge: str) -> tuple[str, ...]:
    return ("FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")


def _asking(bridges: Iterable[str], port: int) -> list[tuple[str, ...]]:
    return [("INPUT", "-i", bridge, "-p", protocol, "--dport", str(port), "-j", "ACCEPT")
            for bridge in (*bridges, "br-+") for protocol in ("udp", "tcp")]


def _accept(program: str, rule: tuple[str, ...]) -> None:
    try:
        if _run(program, "-C", *rule).returncode:
            result = _run(program, "-I", *rule)
            if result.returncode:
                _log.warning("%s -I %s: %s", program, " ".join(rule), result.stderr.strip())
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s", error)


def _drop(program: str, rule: tuple[str, ...]) -> None:
    try:
        _run(program, "-D", *rule)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s", error)


def _run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "-w", *args], capture_output=True, text=True, timeout=_LIMIT, check=False)
