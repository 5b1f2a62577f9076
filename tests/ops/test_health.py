from __future__ import annotations

import os

import pytest

from weavemw.ops.health import of_directory, of_watcher


def test_a_directory_is_written_to(tmp_path):
    """And nothing is left there; one that is gone is named."""
    assert of_directory(tmp_path) == ""
    assert os.listdir(tmp_path) == []
    assert of_directory(tmp_path / "gone") == f"can't write in {tmp_path}/gone: No such file or directory"


@pytest.mark.parametrize(("state", "said"), [
    (None, ["it does not follow Docker's events: not yet"]),
    ({"connected": False, "error": "it stopped 30 s ago"}, ["it does not follow Docker's events: it stopped 30 s ago"]),
    ({"connected": True}, []),
    ({"connected": True, "pending": {"a" * 64: {"name": "web", "error": "no", "attempts": 1}}}, []),
    ({"connected": True, "pending": {"a" * 64: {"name": "web", "error": "no", "attempts": 2}}},
     ["container web is cut off: no"]),
    ({"connected": True, "failing": {"asking Docker": {"error": "no answer"}}}, ["asking Docker: no answer"]),
])
def test_what_a_watcher_can_not_do(state, said):
    """A container counts once it was tried twice."""
    assert of_watcher(state) == said
