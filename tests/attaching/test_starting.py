from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

import pytest

from weavemw.attaching.attachment import Attachment
from weavemw.attaching.decision import Lease
from weavemw.attaching.locks import Busy
from weavemw.attaching.starting import Start
from weavemw.errors import DockerUnreachable, NetworkError, RouterError
from weavemw.network.addresses import parse
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork

A = ip_interface("10.32.0.1/24")


class World:
    def __init__(self, run_dir):
        self.docker, self.router, self.network = FakeDocker(), FakeRouter(), RecordingNetwork()
        self.attachment = Attachment(docker=self.docker, router=self.router, network=self.network, run_dir=run_dir)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize(("code", "runs", "asked", "kept"), [
    (204, True, True, True),
    (304, True, True, True),
    (404, False, True, False),
    (301, False, True, False),
    (0, False, True, False),
    (500, True, True, True),
    (500, False, False, True),
])
def test_addresses_go_back_if_they_are_new_and_no_process_has_them(world, code, runs, asked, kept):
    """By the daemon's answer, and by what is known of the container then; if nothing is, they stay."""
    container = world.docker.create()
    start = Start(world.attachment, container)
    with start.reserved(parse(""), timeout=1.0) as lease:
        assert lease == Lease((A,), fresh=(A,))
        if runs:
            world.docker.start(container.id)
        if not asked:
            world.docker.failures["inspect"] = DockerUnreachable("gone")
        start.answered(code)
    assert world.router.owners == ({container.id: (A,)} if kept else {})


def test_whatever_fails_in_between_gives_back(world):
    """The error goes on."""
    start = Start(world.attachment, world.docker.create())
    with pytest.raises(KeyError), start.reserved(parse(""), timeout=1.0):
        raise KeyError
    assert world.router.owners == {}


@pytest.mark.parametrize(("code", "killed"), [(204, True), (304, False), (500, False)])
def test_only_what_it_started_is_refused(world, code, killed):
    """What was running before is never killed, and what was not started isn't attached at all."""
    container = world.docker.run()
    world.network.failures["prepare"] = NetworkError("no")
    start = Start(world.attachment, container, Lease((A,)))
    start.answered(code)
    if code == 500:
        start.attach(lambda _: ())
    else:
        with pytest.raises(NetworkError):
            start.attach(lambda _: ())
    assert world.docker.called("kill") == ([(container.id,)] if killed else [])


def test_the_lock_is_taken_once(world):
    """From the outermost block to its end; inside it is held already."""
    container = world.docker.create()
    start = Start(world.attachment, container)

    def is_free():
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(lambda: Start(world.attachment, container).locked(0).__enter__()).exception()
        return not isinstance(error, Busy)

    with start.locked():
        with start.locked():
            assert not is_free()
        assert not is_free()
    assert is_free()


def test_what_never_started_is_removed_if_docker_would(world):
    """For want of an address; one that others have started meanwhile is not."""
    world.router.failures["allocate"] = RouterError("full")
    for started in (False, True):
        container = world.docker.create(auto_remove=True)
        if started:
            world.docker.start(container.id)
        with pytest.raises(RouterError, match="full"), Start(world.attachment, container).reserved(
                parse(""), timeout=0.1):
            pass
        assert (container.id in world.docker.containers) is started
