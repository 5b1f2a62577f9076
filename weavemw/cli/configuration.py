"""Settings written as a configuration file, each with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from weavemw.cli.sources import Given
from weavemw.settings import Settings

__all__ = ["as_toml", "lines"]

_WIDTH = 44  # where the sources begin


def lines(settings: Settings, given: Mapping[str, Given], router: Mapping[str, Given] | None = None) -> list[str]:
    """The lines of a file that means the same; with ``router``, its table too.

    A comment says whether a value is a default, or else where it comes from.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    own = [_line(name, value, given[name].source if name in given else "default")
           for name, value in values.items() if value is not None]
    if router is None:
        return own
    return [*own, "", "[router]", *(_line(name, each.value, each.source) for name, each in router.items())]


def _line(name: str, value: Any, source: str) -> str:
    option = {"listeners": "-H"}.get(name, source) if source.startswith("--") else source
    setting = f"{name.replace('_', '-')} = {as_toml(value)}"
    return f"{setting:<{_WIDTH}}  # {option}"


def as_toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(as_toml, value))}]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
