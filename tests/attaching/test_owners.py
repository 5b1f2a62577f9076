from __future__ import annotations

import pytest

from weavemw.attaching.owners import with_names
from weavemw.errors import DockerUnreachable
from weavemw.testing import FakeDocker

WEB, GONE = "a1" * 32, "b2" * 32


@pytest.mark.parametrize(("text", "named"), [
    ("", ""),
    ("no free addresses in 10.32.0.0/24", "no free addresses in 10.32.0.0/24"),
    (f"already owned by {WEB}", "already owned by web (a1a1a1a1a1a1)"),
    (f"{WEB} and {GONE}.", "web (a1a1a1a1a1a1) and b2b2b2b2b2b2."),
    (f"sha256 {WEB}0", f"sha256 {WEB}0"),
    ("weave:expose", "weave:expose"),
])
def test_ids_become_names(text, named):
    """Where there is such a container; else they become short."""
    docker = FakeDocker()
    docker.create(WEB, name="web")
    assert with_names(text, docker) == named


def test_without_docker_ids_become_short():
    """What names them is not worth an error of its own."""
    docker = FakeDocker()
    docker.failures["inspect"] = DockerUnreachable("gone")
    assert with_names(f"owned by {WEB}", docker) == "owned by a1a1a1a1a1a1"
