"""How many files and connections one of our programs may have open."""

from __future__ import annotations

import resource

__all__ = ["raise_limit"]


def raise_limit() -> None:
    """As many as the system allows: shells and services often begin with 1024, and a stream takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
