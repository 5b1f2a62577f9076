"""Measurements: ``python -m bench`` prints one table, ``python -m bench.endurance`` proves what takes long.

Both run on a test host (``tests/engine/host.py``): a network namespace with a Docker Engine of its own. They need root.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/engine"))
