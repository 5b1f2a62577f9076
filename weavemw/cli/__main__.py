"""``python -m weavemw.cli`` is ``weave``."""

from weavemw.cli import main

main()
