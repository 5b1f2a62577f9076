from __future__ import annotations

import pytest

from weavemw.ops import memory


def test_memory_is_given_back_after_many_or_when_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after each: it takes the C library some time."""
    given: list[int] = []
    monkeypatch.setattr(memory, "_trim", lambda: given.append(1))
    ended = memory.Ended()
    for _ in range(511):
        ended.one(7)
    assert not given
    ended.one(7)
    assert len(given) == 1
    for _ in range(64):
        ended.one(0)
    assert len(given) == 2


def test_whatever_the_c_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no way to give memory back is no trouble."""
    memory._trim()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory._trim()
