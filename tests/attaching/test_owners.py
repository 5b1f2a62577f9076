from __future__ import annotations

import pytest

from weavemw.attaching.owners import clarify, with_names
from weavemw.errors import AddressTaken, DockerUnreachable, RouterError, RouterUnreachable
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


@pytest.mark.parametrize(("error", "advice"), [
    (AddressTaken("10.2.1.1/24", WEB), "Unable to claim: address 10.2.1.1/24 is already owned by web (a1a1a1a1a1a1); "
                                       "stop that container, or choose another address"),
    (RouterError("range 10.9.0.0/24 out of bounds: 10.32.0.0/12"),
     "range 10.9.0.0/24 out of bounds: 10.32.0.0/12; choose a subnet of that range"),
    (RouterError("no free addresses in 10.32.9.0/30 (2 in use)"),
     "no free addresses in 10.32.9.0/30 (2 in use); remove containers that you don't need, or choose another subnet"),
    (RouterUnreachable("the weave router did not answer"),
     "the weave router did not answer; `weave status` says more"),
    (RouterError("odd", hint="own"), "odd; own"),
    (RouterError("odd"), "odd"),
])
def test_a_refusal_names_containers_and_says_what_would_help(error, advice):
    """Whichever router said it; a hint that is there stays."""
    docker = FakeDocker()
    docker.create(WEB, name="web")
    clarify(error, docker)
    assert error.advice == advice
