"""``python -m weavemw.watch``: what the proxy's watcher does, where there is no proxy; the router starts it.

The settings are those of the environment. It ends with the process that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from weavemw import assembly
from weavemw.errors import WeaveError
from weavemw.ops import logs, troubles
from weavemw.settings import Settings

__all__ = ["main"]

_LOOK_AGAIN = 1.0  # seconds


def main() -> None:
    """Watch until SIGTERM, or the parent's end."""
    stop = threading.Event()
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.from_environ(os.environ)
        logs.configure(settings.log_level)
        troubles.record(settings.run_dir, "watcher")
        watcher = assembly.watcher(settings)
    except WeaveError as error:
        sys.exit(f"weave watcher: {error.advice}")
    watcher.start()
    while not stop.wait(_LOOK_AGAIN) and os.getppid() == parent:
        pass
    watcher.stop()


if __name__ == "__main__":
    main()
