"""The command ``weave``, as it is installed; ``python -m weavemw`` is the same.

Here and not where the command is made, since importing that takes a moment,
and whoever interrupts it then wants no traceback either.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Run ``weave``; doesn't return."""
    try:
        from weavemw.cli import main as weave
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    weave()


if __name__ == "__main__":
    main()
