"""What the command line asks the router, beyond what the proxy asks it (see :mod:`weavemw.router.client`)."""

from __future__ import annotations

from collections.abc import Sequence

import requests

from weavemw.errors import RouterError, RouterUnreachable

__all__ = ["call_router", "router_serves", "router_text"]

_LIMIT = 5.0


def router_serves(address: str) -> bool:
    """Whether a router's API answers at ``address`` (host:port)."""
    return router_text(address, "/status") is not None


def router_text(address: str, path: str) -> str | None:
    """What ``GET path`` gives, or ``None`` when nothing answers there, or not with 200."""
    try:
        reply = _asked(address, "GET", path, _LIMIT)
    except requests.RequestException:
        return None
    return reply.text if reply.status_code == 200 else None


def call_router(address: str, method: str, path: str, form: Sequence[tuple[str, str]] = (), *,
                timeout: float = _LIMIT, also: Sequence[int] = (), accept: str = "*/*") -> str:
    """What the router answers; ``timeout`` in seconds, ``also`` are statuses that are no failure here.

    Raises :class:`~weavemw.errors.RouterUnreachable`, and
    :class:`~weavemw.errors.RouterError` with the router's own words.
    """
    try:
        reply = _asked(address, method, path, timeout, form, accept)
    except requests.ReadTimeout as error:
        raise RouterUnreachable(f"the weave router at {address} did not answer within {timeout:g} s") from error
    except requests.RequestException as error:
        raise RouterUnreachable(f"weave router is not running (nothing answers at {address})") from error
    if reply.status_code >= 300 and reply.status_code not in also:
        raise RouterError(reply.text.strip() or f"the weave router answered {reply.status_code}")
    return reply.text


def _asked(address: str, method: str, path: str, timeout: float, form: Sequence[tuple[str, str]] = (),
           accept: str = "*/*") -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, f"http://{address}{path}", data=list(form) or None, timeout=timeout,
                               headers={"Accept": accept}, allow_redirects=False)
