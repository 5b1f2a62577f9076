from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("target", "made_by"), [("FILE", "file"), ("PAGE", "page")])
def test_what_is_made_of_the_table_is_up_to_date(target: str, made_by: str) -> None:
    """The file that comes along, and the reference."""
    script: dict[str, Any] = runpy.run_path(str(_ROOT / "scripts" / "settings.py"))
    assert script[made_by]() == script[target].read_text(), "run: python scripts/settings.py"
