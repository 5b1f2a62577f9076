from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from weavemw.attaching.reasons import Reason, Reasons

NONE, UNSURE, RENAMED, CONNECTED = Reason(0), Reason.UNSURE, Reason.RENAMED, Reason.CONNECTED


@pytest.mark.parametrize(("before", "meanwhile", "withdrawn", "after", "after_failure"), [
    (NONE, NONE, NONE, NONE, NONE),
    (RENAMED, NONE, NONE, NONE, RENAMED),
    (UNSURE | RENAMED, NONE, NONE, NONE, UNSURE | RENAMED),
    (NONE, CONNECTED, NONE, CONNECTED, CONNECTED),
    (RENAMED, CONNECTED, NONE, CONNECTED, RENAMED | CONNECTED),
    (RENAMED, RENAMED, NONE, RENAMED, RENAMED),
    (NONE, CONNECTED, CONNECTED, NONE, NONE),
    (RENAMED, RENAMED | CONNECTED, CONNECTED, RENAMED, RENAMED),
])
def test_what_is_heard_while_it_is_worked_on_stays(before, meanwhile, withdrawn, after, after_failure):
    """Reasons are taken out before the work; those that come meanwhile stay, and a failure puts all back."""
    reasons = Reasons()

    def work(*, fails):
        reasons.add("a", before)
        with reasons.taken("a") as taken:
            assert taken == before
            assert reasons.of("a") == NONE
            reasons.add("a", meanwhile)
            reasons.withdraw("a", withdrawn)
            if fails:
                raise KeyError
        return True

    assert work(fails=False)
    assert reasons.of("a") == after
    reasons.withdraw("a", ~NONE)
    with pytest.raises(KeyError):
        work(fails=True)
    assert reasons.of("a") == after_failure


def test_each_container_has_its_own():
    """What is heard of one container is no reason to look at another."""
    reasons = Reasons()
    reasons.add("a", RENAMED)
    reasons.add("b", UNSURE)
    with reasons.taken("a"):
        assert reasons.of("b") == UNSURE


def test_many_threads_lose_none():
    """Whoever adds while another takes: each addition is taken once, or is there in the end."""
    reasons = Reasons()

    def take(_):
        with reasons.taken("a") as taken:
            return taken

    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            added = [pool.submit(reasons.add, "a", reason) for reason in Reason]
            taken = list(pool.map(take, range(4)))
            [each.result() for each in added]
            assert reasons.of("a") | taken[0] | taken[1] | taken[2] | taken[3] == ~NONE
            reasons.withdraw("a", ~NONE)
