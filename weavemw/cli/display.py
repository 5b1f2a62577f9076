"""How things look: tables, blocks of keys and values, colours. Pure, but for what a terminal is asked."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

__all__ = ["Screen", "block", "screen", "since", "table"]

_KEY = 15  # where keys end, as in a Weave Net router's status
_GAP = "  "
_NARROWEST = 20
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Screen:
    """Where text goes: ``width`` in columns (0: no terminal, and lines as long as they are), and whether in colour."""

    width: int = 0
    colour: bool = False

    def paint(self, text: str, **style: object) -> str:
        """Text in a style of click's, if there are colours."""
        return click.style(text, **style) if self.colour else text  # type: ignore[arg-type]


def screen(environ: Mapping[str, str]) -> Screen:
    """What stdout is. Colours are for terminals that have them, unless ``NO_COLOR`` says otherwise (no-color.org)."""
    if not sys.stdout.isatty():
        return Screen()
    columns = environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else shutil.get_terminal_size().columns
    return Screen(width, not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb")


def block(rows: Sequence[tuple[str, str]], to: Screen) -> str:
    """Lines of "key: value", keys right-aligned; long values go on in the next line on a terminal."""
    return "\n".join(f"{key:>{_KEY}}: {_wrapped(value, _KEY + 2, to)}" for key, value in rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], to: Screen) -> str:
    """Columns, each as wide as its widest value; the last one goes on in the next line on a terminal."""
    lines = [tuple(to.paint(head, bold=True) for head in heads), *rows]
    widths = [max(map(_length, column)) for column in zip(*lines, strict=True)][:-1]
    indent = sum(widths) + len(_GAP) * len(widths)
    return "\n".join(
        "".join(_padded(value, width) + _GAP for value, width in zip(line, widths, strict=False))
        + _wrapped(line[-1], indent, to) for line in lines)


def since(seconds: float) -> str:
    """A duration in its two largest units: "2h05m"."""
    found: list[str] = []
    left = int(max(seconds, 0))
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if found:
            return f"{found[0]}{count:02}{unit}"
        if count or size == 1:
            found.append(f"{count}{unit}")
    return found[0]


def _wrapped(text: str, indent: int, to: Screen) -> str:
    room = to.width - indent
    if not to.width or _length(text) <= room or room < _NARROWEST:
        return text
    # Words in colour are short, and stand alone.
    return f"\n{' ' * indent}".join(textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _length(text))


def _length(text: str) -> int:
    return len(_ESCAPES.sub("", text))
