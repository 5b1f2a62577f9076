"""How far long work has come, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["progress"]

_STEP = 100


@contextmanager
def progress(doing: str, done: str, total: int, *, least: int = 1) -> Iterator[Callable[[int], None]]:
    """Gives a function that is to be told how many of ``total`` are done.

    On a terminal they are shown as "``doing`` [####----] 40/100", elsewhere, at each hundred and at the end, as
    "``done`` 100 of 1000"; if there are fewer than ``least``, not at all.
    """
    if total < least:
        yield lambda count: None
    elif sys.stderr.isatty():
        with click.progressbar(length=total, label=doing, file=sys.stderr, show_pos=True, width=30) as bar:
            yield lambda count: bar.update(count - bar.pos)
    else:
        yield _Lines(done, total).tell


class _Lines:
    def __init__(self, done: str, total: int) -> None:
        self._done = done
        self._total = total
        self._told = 0

    def tell(self, count: int) -> None:
        if count // _STEP > self._told // _STEP or (count >= self._total > self._told):
            click.echo(f"{self._done} {count} of {self._total}", err=True)
            self._told = count
