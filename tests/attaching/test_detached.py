from __future__ import annotations

import dataclasses

from weavemw.attaching.detached import Detached
from weavemw.dockerapi.container import Container

WEB = Container(id="a" * 64, started_at="at noon")


def test_it_lasts_as_long_as_the_run(tmp_path):
    """One that was started again since is not detached any more; nor is one that is forgotten."""
    detached = Detached(tmp_path / "detached")
    assert not detached.holds(WEB)
    detached.add(WEB)
    assert Detached(tmp_path / "detached").holds(WEB)
    assert not detached.holds(dataclasses.replace(WEB, started_at="at one"))
    detached.forget(WEB.id)
    detached.forget(WEB.id)
    assert not detached.holds(WEB)


def test_what_can_not_be_read_is_not_detached(tmp_path, caplog):
    """It is logged, and the container has its network."""
    (tmp_path / WEB.id).mkdir()
    assert not Detached(tmp_path).holds(WEB)
    assert "whether it was detached by hand is not known" in caplog.text
