"""Options of the whole test run, and what is skipped where."""

from __future__ import annotations

import os

import pytest

from weavemw.ops.logs import Summed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine-root", metavar="DIR", default=os.environ.get("WEAVEMW_TEST_ENGINE_ROOT"),
        help="run test hosts with the Docker Engine of this root file system (see tests/engine/make-engine-root)")
    parser.addoption(
        "--state-machine-minutes", metavar="N", type=float, default=0,
        help="how long tests/engine/test_state_machine.py goes on, each way; without: a short while")


@pytest.fixture(autouse=True)
def _no_line_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many were logged by the tests before."""
    monkeypatch.setattr(Summed, "filter", lambda self, record: True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests first, then those that need root, then those with an engine; without root, only the first."""
    items.sort(key=lambda item: 2 * _has(item, "engine") + _has(item, "root"))
    if os.geteuid() != 0:
        for item in items:
            if _has(item, "root") or _has(item, "engine"):
                item.add_marker(pytest.mark.skip(reason="needs root (network namespaces)"))


def _has(item: pytest.Item, marker: str) -> bool:
    return item.get_closest_marker(marker) is not None
