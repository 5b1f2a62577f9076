"""``python -m weavemw.server``: the proxy in the foreground, with the options of ``weave launch-proxy``."""

from __future__ import annotations

import sys

from weavemw.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main(["launch-proxy", "--foreground", *sys.argv[1:]])
