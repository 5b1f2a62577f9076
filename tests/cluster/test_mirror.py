from __future__ import annotations

from weavemw.cluster.kv import Pair
from weavemw.cluster.mirror import ContainerEntry, Mirror


def test_names_of_a_host_that_is_unseen_are_withheld_and_come_back() -> None:
    now = [0.0]
    mirror = Mirror("h1", lambda: now[0])
    entry = ContainerEntry("02:00:00:00:00:01", ("10.32.0.1/12",), (("c.weave.local.", "10.32.0.1"),))
    mirror.reset([Pair("name/h2/c", entry.text), Pair("up/h2", "boot")])
    assert len(mirror.names_of("h2")) == 1
    mirror.apply("up/h2", None)
    now[0] = 59
    assert len(mirror.names_of("h2")) == 1
    now[0] = 60
    assert mirror.names_of("h2") == []
    assert len(mirror.containers_of("h2")) == 1
    mirror.fresh.clear()
    mirror.apply("up/h2", "boot")
    assert len(mirror.names_of("h2")) == 1
    assert mirror.fresh == {"h2"}
    mirror.apply("name/h2/d", "nonsense")
    assert mirror.strange == {"name/h2/d"}
