from __future__ import annotations

import pytest

from weavemw.attaching.tasks import Death, Look, Settle, Sweep


@pytest.mark.parametrize(("task", "text"), [
    (Settle("0123456789ab" + "c" * 52), "container 0123456789ab"),
    (Death("0123456789ab" + "c" * 52), "removing the names of container 0123456789ab"),
    (Look(), "looking at all containers"),
    (Sweep(), "removing orphans"),
])
def test_as_a_log_names_it(task, text):
    """A container by its short id, and what is no container not as if it were one."""
    assert str(task) == text


def test_equal_is_the_same_task():
    """The same task is one, whoever made it; of one container there are different ones."""
    assert len({Settle("a"), Settle("a"), Settle("b"), Death("a"), Look(), Look(), Sweep()}) == 5
