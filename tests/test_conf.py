from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (apt-get install systemd)")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Every line that stands in them means something to systemd."""
    units = [tmp_path / unit.name for unit in _CONF.glob("*.service")]
    for unit in units:
        unit.write_text((_CONF / unit.name).read_text().replace("/usr/local/bin/weave", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "weave" in line]
    assert (len(units), ours) == (2, [])
