"""``python -m weavemw.probe``: Docker's health check of our containers."""

from weavemw.serving.probe import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
