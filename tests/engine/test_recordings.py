"""The sessions that the README shows."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from host import why_not

pytestmark = [pytest.mark.root, pytest.mark.engine]

_ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_every_recorded_session_can_be_had_again(tmp_path: Path) -> None:
    """`make recordings` types them all on a real engine; each command succeeds, and each session is drawn."""
    subprocess.run([sys.executable, _ROOT / "scripts/record.py", tmp_path], check=True, timeout=110)
    sessions = tomllib.loads((_ROOT / "docs/sessions.toml").read_text())["session"]
    assert {path.stem for path in tmp_path.glob("*.svg")} == {session["name"] for session in sessions}
