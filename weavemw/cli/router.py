"""What the command line asks the router, beyond what the proxy asks it (see :mod:`weavemw.router.client`)."""

from __future__ import annotations

import requests

__all__ = ["router_serves", "router_text"]

_LIMIT = 5.0


def router_serves(address: str) -> bool:
    """Whether a router's API answers at ``address`` (host:port)."""
    return router_text(address, "/status") is not None


def router_text(address: str, path: str) -> str | None:
    """What ``GET path`` gives, or ``None`` when nothing answers there, or not with 200."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            reply = session.get(f"http://{address}{path}", timeout=_LIMIT, allow_redirects=False)
        except requests.RequestException:
            return None
        return reply.text if reply.status_code == 200 else None
