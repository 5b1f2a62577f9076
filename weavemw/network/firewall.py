"""Packets between containers on the weave bridge, past Docker's firewall.

Where ``br_netfilter`` is loaded, iptables sees bridged packets too, and Docker
sets the policy of FORWARD to DROP (Engine 1.13 and newer). So one rule accepts
what stays on the bridge. What leaves it is not our rule's business.
"""

from __future__ import annotations

import logging
import shutil
import subprocess

__all__ = ["let_through", "shut"]

_log = logging.getLogger(__name__)

_PROGRAMS = ("iptables", "ip6tables")
_LIMIT = 10.0  # seconds; another program may hold the lock on the tables


def let_through(bridge: str) -> None:
    """See to it that packets from the bridge to the bridge are accepted; done again, it changes nothing.

    A host without iptables has no such firewall of Docker's. Failure is logged:
    where nothing filters bridged packets, the rule is not needed.
    """
    for program in filter(shutil.which, _PROGRAMS):
        _accept(program, _rule(bridge))


def shut(bridge: str) -> None:
    """Remove what :func:`let_through` added."""
    for program in filter(shutil.which, _PROGRAMS):
        _run(program, "-D", *_rule(bridge))


def _rule(bridge: str) -> tuple[str, ...]:
    return ("FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")


def _accept(program: str, rule: tuple[str, ...]) -> None:
    try:
        if _run(program, "-C", *rule).returncode:
            result = _run(program, "-I", *rule)
            if result.returncode:
                _log.warning("%s -I %s: %s", program, " ".join(rule), result.stderr.strip())
    except subprocess.TimeoutExpired as error:
        _log.warning("%s", error)


def _run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "-w", *args], capture_output=True, text=True, timeout=_LIMIT, check=False)
