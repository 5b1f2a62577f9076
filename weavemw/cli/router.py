"""What the command line asks the router, beyond what the proxy asks it (see :mod:`weavemw.router.client`)."""

from __future__ import annotations

from collections.abc import Sequence

from weavemw.errors import RouterBusy, RouterError, RouterUnreachable
from weavemw.ops.run_dir import RouterAddress
from weavemw.router.client import RouterClient

__all__ = ["call_router", "router_serves", "router_text"]

_LIMIT = 5.0


def router_serves(address: RouterAddress) -> bool:
    """Whether a router's API answers at ``address``."""
    return router_text(address, "/status") is not None


def router_text(address: RouterAddress, path: str) -> str | None:
    """What ``GET path`` gives, or ``None`` when nothing answers there, or no such thing."""
    try:
        return RouterClient(address, timeout=_LIMIT).ask("GET", path)
    except RouterError:
        return None


def call_router(address: RouterAddress, method: str, path: str, form: Sequence[tuple[str, str]] = (), *,
                timeout: float = _LIMIT, also: Sequence[int] = (), accept: str = "*/*") -> str:
    """What the router answers; ``timeout`` in seconds, ``also`` are statuses that are no failure here.

    Raises :class:`~weavemw.errors.RouterUnreachable`, and
    :class:`~weavemw.errors.RouterError` with the router's own words.
    """
    try:
        return RouterClient(address, timeout=timeout).ask(method, path, form, also=also, accept=accept)
    except RouterBusy:
        raise
    except RouterUnreachable as error:
        raise RouterUnreachable(f"weave router is not running (nothing answers at {address})",
                                absent=True) from error
