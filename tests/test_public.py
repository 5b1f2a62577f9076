"""What weavemw says is public is there."""

from __future__ import annotations

import importlib
import re

import weavemw


def _named() -> list[tuple[str, str]]:
    """The modules of the docstring's list, each with a name that is said to be in it."""
    found: list[tuple[str, str]] = []
    for item in weavemw.__doc__.partition("changelog:")[2].partition("* The command")[0].split("\n* "):
        modules = re.findall(r":mod:`([\w.]+)`", item)
        for name in re.findall(r"``([\w.]+)``", item):
            for module in modules or ():
                found.append((module, name))
        found += [tuple(each.rsplit(".", 1)) for each in re.findall(r":class:`([\w.]+)`", item)]  # type: ignore[misc]
    return found


def _has(module: str, name: str) -> bool:
    inner, _, last = f"{module}.{name}".rpartition(".")
    try:
        there = importlib.import_module(inner)
    except ImportError:
        return False
    return hasattr(there, last) and (last in getattr(there, "__all__", ()) or last == "proxy")


def test_every_public_name_is_there() -> None:
    """In one of the modules of its line, and in its ``__all__``."""
    named = _named()
    assert len(named) > 15
    names = {name for _, name in named} - {"code", "status"}
    assert {name for name in names if not any(_has(module, name) for module, said in named if said == name)} == set()
