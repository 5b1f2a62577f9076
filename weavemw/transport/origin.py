"""What tells a request that a web page made a browser send from one of a client that means this host.

A page of another origin says so in ``Origin`` or ``Sec-Fetch-Site`` (Fetch standard). A page whose name was made to
point here (DNS rebinding) says its name in ``Host``, and where it sends ``Origin``, there too. Of a page by plain
HTTP a browser sends neither ``Origin`` nor ``Sec-Fetch-Site`` with a GET, but always ``Accept-Language``.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterable

__all__ = ["BROWSERS_SAY", "is_address", "is_origin", "other_page", "own_names", "strange_name"]


#: Headers of which browsers send one with whatever a page asks for; clients of APIs have no use for them.
BROWSERS_SAY = ("Origin", "Accept-Language", "Referer", "Sec-Fetch-Mode")


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers write it: scheme, host, and a port that is not the scheme's own."""
    return re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s@]+", text.lower()) is not None


def other_page(host: str, origin: str | None, fetch_site: str | None, allowed: Collection[str] = ()) -> str:
    """The header by which a request is of a page of another origin, as a text; empty if it is not, or one allowed."""
    if origin is not None and origin.lower() in allowed:
        return ""
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return f"Origin: {origin}"
    return "Sec-Fetch-Site" if fetch_site in ("cross-site", "same-site") else ""


def strange_name(host: str, names: Callable[[], Collection[str]], *, strict: bool = False) -> str:
    """The name in a ``Host`` by which nobody calls this host; empty if it is an address, or one of ``names()``.

    ``names`` is asked only if it matters. Unless ``strict``, a name without a dot passes too: nobody can have one
    registered, but who answers for the DNS of a network can make one point here.
    """
    name = _name(host.lower())
    if not name or is_address(name) or name == "localhost" or name.endswith(".localhost"):
        return ""
    if "." not in name and not strict:
        return ""
    return "" if name in {each.lower() for each in names()} else name


def own_names(further: Iterable[str] = ()) -> frozenset[str]:
    """This host's names, as far as it knows, and ``further`` ones. May ask the DNS."""
    return frozenset([socket.gethostname(), socket.getfqdn(), *further])


@functools.lru_cache(1024)
def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
