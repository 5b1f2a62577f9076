from __future__ import annotations

import pytest

from weavemw.router.shares import Shares


@pytest.mark.parametrize(("have", "client", "richest"), [
    pytest.param({}, "a", "a", id="nobody has any"),
    pytest.param({"a": 3}, "a", "a", id="only itself"),
    pytest.param({"a": 3, "b": 1}, "b", "a", id="another has more"),
    pytest.param({"a": 3, "b": 2}, "b", "b", id="it would have as much"),
    pytest.param({"a": 3, "b": 3}, "b", "b", id="it would have more"),
    pytest.param({"a": 1, "b": 1}, "c", "a", id="it has none, the others one each"),
    pytest.param({"a": 1, "b": 4, "c": 3}, "d", "b", id="the one with most"),
])
def test_who_has_most(have: dict[str, int], client: str, richest: str) -> None:
    """It is who has most with one more of the client; in a tie the client, if it has any."""
    shares: Shares[int] = Shares(10)
    for holder, count in have.items():
        for number in range(count):
            shares.add(holder, number)
    assert shares.richest(client) == richest


def test_things_come_and_go() -> None:
    """They are kept in their order and counted; what is gone can go again, and leaves nothing."""
    shares: Shares[str] = Shares(2)
    shares.add("a", "first")
    assert not shares.full
    shares.add("a", "second")
    assert (shares.full, len(shares), shares.of("a"), shares.of("b")) == (True, 2, ("first", "second"), ())
    for _ in range(2):
        shares.remove("a", "first")
    assert (len(shares), shares.of("a")) == (1, ("second",))
    shares.remove("a", "second")
    assert (len(shares), shares._things) == (0, {})
