"""`make bench`, tried: every measurement runs, and its table has a figure for each column."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.engine]

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "rows"), [("small", 21), ("volume", 5), ("streams", 6), ("attach", 2)])
@pytest.mark.usefixtures("engine_host")  # where there can be none, there is no bench either
def test_it_measures(kind: str, rows: int) -> None:
    """A quick run prints as many rows as it has measurements, each with ours, haproxy's and their ratio."""
    missing = [name for name in ("haproxy", "wrk") if not shutil.which(name, path="/usr/sbin:/usr/bin")]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: `scripts/setup tests` installs them")
    done = subprocess.run([sys.executable, "-m", "bench", "--quick", "--only", kind], cwd=_ROOT, capture_output=True,
                          text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    load, title, *lines = done.stdout.splitlines()
    assert load.startswith("load before: ")
    assert title.split()[:4] == ["direct", "bare", "weave", "haproxy"]
    assert len(lines) == rows
    assert all(_figures(line) >= 3 for line in lines), done.stdout


@pytest.mark.usefixtures("engine_host")
def test_it_measures_names() -> None:
    """A quick run of names compares our DNS server with dnsmasq, and follows names from birth to death."""
    missing = [name for name in ("dnsperf", "dnsmasq") if not shutil.which(name, path="/usr/sbin:/usr/bin")]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: `scripts/setup tests` installs them")
    done = subprocess.run([sys.executable, "-m", "bench", "--quick", "--only", "names"], cwd=_ROOT,
                          capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    _, title, *rows = done.stdout.splitlines()
    assert title.split()[:2] == ["weave", "dnsmasq"]
    assert len(rows) == 11
    assert all(_figures(row) >= 2 for row in rows[:7]), done.stdout
    assert all("p99" in row for row in rows[7:]), done.stdout


def _figures(line: str) -> int:
    return sum(word.strip("≥≤-").replace(",", "").replace(".", "", 1).isdigit() for word in line.split())
