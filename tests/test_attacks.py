"""docs/attacks.md names tests that there are, and all of tests/engine/test_attacks.py."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (_ROOT / "docs/attacks.md").read_text())


def test_each_attack_names_a_test_that_is_there() -> None:
    """In the file that it is said to be in."""
    missing = [name for file, name in _NAMED if f"def {name}(" not in (_ROOT / file).read_text()]
    assert len(_NAMED) > 30
    assert not missing


def test_no_attack_is_left_out() -> None:
    """Of those that are tried on a real engine."""
    tried = re.findall(r"^def (test_\w+)\(", (_ROOT / "tests/engine/test_attacks.py").read_text(), re.MULTILINE)
    assert not set(tried) - {name for _, name in _NAMED}


def test_each_row_has_a_test() -> None:
    """A table's rows, but for its head."""
    rows = [line for line in (_ROOT / "docs/attacks.md").read_text().splitlines() if line.startswith("| ")]
    heads = [row for row in rows if row in ("| Attack | What happens | Test |", "| --- | --- | --- |")]
    assert len(rows) - len(heads) == len(_NAMED)
