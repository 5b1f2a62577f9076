"""Rows of figures as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Row", "table"]


@dataclass(frozen=True)
class Row:
    """One measurement of all that were compared, by name."""

    title: str
    values: dict[str, float]
    aim: str = ""


def table(rows: Iterable[Row], columns: Sequence[str], ratio: tuple[str, str]) -> str:
    """The rows under their columns; the last but one is the ratio of two of them."""
    lines = [["", *columns, "/".join(ratio), "aim"]]
    lines += [[row.title, *(_figure(row.values.get(name)) for name in columns), _ratio(row, *ratio), row.aim]
              for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: list[str], widths: list[int]) -> str:
    title, *figures, aim = cells
    return "  ".join([title.ljust(widths[0]), *map(str.rjust, figures, widths[1:-1]), aim]).rstrip()


def _ratio(row: Row, over: str, under: str) -> str:
    if under not in row.values or over not in row.values or not row.values[under]:
        return ""
    return f"{row.values[over] / row.values[under]:.2f}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
