"""``python -m weavemw.cli`` is ``weave``."""

from weavemw.cli import main

if __name__ == "__main__":
    main()
