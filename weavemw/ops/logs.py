"""How our programs log: to stderr, a line for a message, in gunicorn's own format."""

from __future__ import annotations

import logging
import sys

__all__ = ["OneLine", "configure", "escaped"]

_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
_DATE = "[%Y-%m-%d %H:%M:%S %z]"
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}


def configure(level: str) -> None:
    """Log what is of this level ("debug", "info", "warning", "error") or above it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(_FORMAT, _DATE))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class OneLine(logging.Formatter):
    """Control characters escaped: names that clients choose must not make up lines of their own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """The line, without the traceback."""
        return escaped(super().formatMessage(record))


def escaped(text: str) -> str:
    """Text on one line, without control characters."""
    return text.translate(_ESCAPES)
