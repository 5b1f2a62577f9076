from __future__ import annotations

import runpy
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_the_listing_is_up_to_date() -> None:
    """Every module stands in docs/architecture.md with what it says of itself."""
    script = runpy.run_path(str(_ROOT / "scripts" / "architecture.py"))
    page = (_ROOT / "docs" / "architecture.md").read_text()
    assert script["renewed"](page) == page, "run: python scripts/architecture.py"
