"""Which packets come from other hosts, and which go there: rules of nftables, in tables of our own, written whole.

VXLAN knows no sender: the kernel takes in what anybody sends to its port. And each host has 169.254.53.1 for itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from weavemw.errors import NetworkError

__all__ = ["Filter", "apply", "check", "remove", "rules"]

_LIMIT = 10.0  # seconds
_LINK_LOCAL = "169.254.0.0/16"
_PROGRAM = "nft"


@dataclass(frozen=True, slots=True)
class Filter:
    """What is let in by the VXLAN device ``device``: from ``senders``, to UDP port ``port`` of this host.

    With ``secured``, the interface of an encrypted network, packets of VXLAN come and go by that alone.
    """

    device: str
    port: int
    family: int
    senders: frozenset[IPv4Address | IPv6Address]
    secured: str = ""


def check() -> None:
    """Raises :class:`~weavemw.errors.NetworkError` where nothing can be filtered."""
    if not shutil.which(_PROGRAM):
        raise NetworkError("can't keep packets of strangers out: nft is missing (apt-get install nftables)")


def apply(wanted: Filter) -> None:
    """Let these rules hold, all at once, instead of those before. Raises :class:`~weavemw.errors.NetworkError`."""
    check()
    _run(rules(wanted))


def remove(device: str) -> None:
    """Remove the tables for a VXLAN device; no error if there are none.

    Raises :class:`~weavemw.errors.NetworkError`.
    """
    if shutil.which(_PROGRAM):
        _run(_gone(_table(device)))


def rules(wanted: Filter) -> str:
    """The rules as nft(8) reads them. Pure."""
    return _gone(_table(wanted.device)) + _incoming(wanted) + _crossing(wanted)


def _table(device: str) -> str:
    return "weavemw_" + re.sub(r"\W", "_", device)


def _gone(table: str) -> str:
    return "".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in ("inet", "bridge"))


def _incoming(wanted: Filter) -> str:
    proto = "ip" if wanted.family == 4 else "ip6"
    elements = ", ".join(map(str, sorted(wanted.senders, key=int)))
    only = f'iifname != "{wanted.secured}" udp dport {wanted.port} drop' if wanted.secured else ""
    out = f'oifname != "{wanted.secured}" ip daddr 240.0.0.0/4 udp dport {wanted.port} drop' if wanted.secured else ""
    return f"""table inet {_table(wanted.device)} {{
  set senders {{ type ipv{wanted.family}_addr; {f"elements = {{ {elements} }}" if elements else ""} }}
  chain input {{
    type filter hook input priority -10;
    {only}
    udp dport {wanted.port} {proto} saddr != @senders drop
  }}
  chain output {{
    type filter hook output priority -10;
    {out}
  }}
}}
"""


def _crossing(wanted: Filter) -> str:
    way = {"input": "iifname", "output": "oifname"}
    return f"""table bridge {_table(wanted.device)} {{
  chain own {{
    arp daddr ip {_LINK_LOCAL} drop
    arp saddr ip {_LINK_LOCAL} drop
    ip daddr {_LINK_LOCAL} drop
    ip saddr {_LINK_LOCAL} drop
  }}
  chain forward {{
    type filter hook forward priority -10;
    iifname "{wanted.device}" jump own
    oifname "{wanted.device}" jump own
  }}
""" + "".join(f"""  chain {hook} {{
    type filter hook {hook} priority -10;
    {match} "{wanted.device}" jump own
  }}
""" for hook, match in way.items()) + "}\n"


def _run(text: str) -> None:
    try:
        result = subprocess.run([_PROGRAM, "-f", "-"], input=text, capture_output=True, text=True, timeout=_LIMIT,
                                check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"can't filter packets of other hosts: {error}") from error
    if result.returncode:
        said = (result.stderr.strip() or "nft failed").splitlines()[0]
        raise NetworkError(f"can't filter packets of other hosts: {said}")
