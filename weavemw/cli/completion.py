"""What shells complete besides verbs and options: the names of containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from weavemw.errors import WeaveError
from weavemw.ops.run_file import OUR_CONTAINERS

__all__ = ["Completer", "containers"]

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def containers(*more: str, status: str = "running") -> Completer:
    """Completes the names of containers of this status ("": of all), and what else may stand there."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return sorted(name for name in (*more, *_names(ctx, status)) if name.startswith(incomplete))

    return complete


def _names(ctx: click.Context, status: str) -> list[str]:
    try:
        rows: list[dict[str, Any]] = ctx.obj.docker().get("/containers/json?all=1")
    except WeaveError:  # without Docker there is nothing to complete, and a shell's prompt is no place to say so
        return []
    names = [name.lstrip("/") for row in rows if status in ("", row.get("State")) for name in row.get("Names") or ()]
    return [name for name in names if "/" not in name and name not in OUR_CONTAINERS]
