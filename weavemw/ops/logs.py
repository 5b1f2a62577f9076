"""How our programs log: to stderr, a line for a message, in gunicorn's own format."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass, field

__all__ = ["OneLine", "Summed", "configure", "escaped", "summed"]

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


def summed(name: str) -> logging.Logger:
    """The logger of a module some of whose lines others can cause, as many as they like: see :class:`Summed`."""
    log = logging.getLogger(name)
    if not any(isinstance(each, Summed) for each in log.filters):
        log.addFilter(Summed())
    return log


@dataclass(slots=True)
class _Window:
    passed: int = 0
    withheld: list[logging.LogRecord] = field(default_factory=list)  # the first of them
    more: int = 0


class Summed(logging.Filter):
    """Lets through ``most`` lines of a kind in ``seconds``; of the others, it says at the end how many there were.

    So none pushes others out of a log, and none takes long. A kind is a message without its arguments, and a level:
    there are as many as the program has. For one logger, to which it is added; thread-safe.
    """

    def __init__(self, most: int = 10, seconds: float = 10.0) -> None:
        super().__init__()
        self._most, self._seconds = most, seconds
        self._windows: dict[tuple[object, int], _Window] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is to be seen."""
        with self._lock:
            window = self._window((record.msg, record.levelno))
            if window.passed < self._most:
                window.passed += 1
                return True
            if window.withheld:
                window.more += 1
            else:
                window.withheld.append(record)
            return False

    def end(self, *kinds: tuple[object, int]) -> None:
        """Say now what was withheld, of some kinds or of all; then they begin anew."""
        with self._lock:
            ended = [self._windows.pop(kind, _Window()) for kind in kinds or tuple(self._windows)]
        for window in ended:
            for record in window.withheld:
                self._say(record, window.more)

    def _window(self, kind: tuple[object, int]) -> _Window:
        if kind not in self._windows:
            self._windows[kind] = _Window()
            timer = threading.Timer(self._seconds, self.end, (kind,))
            timer.daemon = True
            timer.start()
        return self._windows[kind]

    def _say(self, record: logging.LogRecord, more: int) -> None:
        said = f"{record.getMessage()} … and {more:,} more in {self._seconds:g} s" if more else record.getMessage()
        changed = {"msg": "%s", "args": (said,), "exc_info": None, "exc_text": None}
        logging.getLogger(record.name).callHandlers(logging.makeLogRecord({**record.__dict__, **changed}))


def escaped(text: str) -> str:
    """Text on one line, without control characters."""
    return text.translate(_ESCAPES)
