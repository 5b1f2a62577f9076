from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from threading import BoundedSemaphore, Event

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from weavemw.attaching.attachment import Attachment
from weavemw.attaching.decision import Attach, Lease, LeaveAlone
from weavemw.attaching.locks import Busy
from weavemw.context import CLIENT_GONE, DECISION, LEASE
from weavemw.errors import ClientGone, DockerUnreachable, Overloaded, RouterBusy, RouterError, RouterUnreachable
from weavemw.middleware.ipam import IpamClient
from weavemw.network.addresses import parse
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork

A, B = ip_interface("10.32.0.1/24"), ip_interface("10.2.1.1/24")


class World:
    """A daemon that answers each start with ``status``, behind an IpamClient."""

    def __init__(self, run_dir):
        self.docker, self.router = FakeDocker(), FakeRouter()
        self.attachment = Attachment(docker=self.docker, router=self.router, network=RecordingNetwork(),
                                     run_dir=run_dir)
        self.status = "204 No Content"
        self.error = None
        self.environs = []
        self.app = IpamClient(self.daemon, attachment=self.attachment, start_timeout=0.3)

    def daemon(self, environ, start_response):
        self.environs.append(environ)
        if self.error:
            raise self.error
        start_response(self.status, [("Server", "Docker"), ("Content-Type", "application/json")])
        return [b'{"message":"daemon"}']

    def start(self, container, value="", path="start", **more):
        environ = EnvironBuilder(method="POST", path=f"/v1.41/containers/{container.name}/{path}").get_environ()
        environ.update({DECISION: Attach(parse(value), container=container), **more})
        body, status, headers = run_wsgi_app(self.app, environ)
        return status, dict(headers), b"".join(body)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_lease_is_there_before_the_daemon_is_asked(world):
    """The inner app finds the addresses in environ, held at the router; the daemon's answer goes out as it is."""
    container = world.docker.create()
    status, headers, body = world.start(container, "net:default 10.2.1.1/24")
    assert (status, body) == ("204 No Content", b'{"message":"daemon"}')
    assert headers["Server"] == "Docker"
    assert world.environs[0][LEASE] == Lease((A, B), fresh=(A, B))
    assert world.router.owners == {container.id: (A, B)}


@pytest.mark.parametrize("path", ["start", "restart"])
def test_again_it_has_the_same(world, path):
    """A container that has run has the addresses that it had."""
    container = world.docker.run()
    world.start(container)
    world.start(container, path=path)
    assert [environ[LEASE] for environ in world.environs] == [Lease((A,)), Lease((A,))]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_what_the_daemon_accepts_stays(world, status):
    """A start that worked, or that was none, keeps its addresses."""
    world.status = status
    container = world.docker.create()
    assert world.start(container)[0] == status
    assert world.router.owners == {container.id: (A,)}


@pytest.mark.parametrize("status", ["301 Moved Permanently", "404 Not Found", "409 Conflict",
                                    "500 Internal Server Error"])
def test_what_the_daemon_refuses_is_given_back(world, status):
    """If the daemon refuses the start, its answer goes out and the addresses back; those held before stay."""
    world.status = status
    new, old = world.docker.create(), world.docker.run()
    world.router.claim(old.id, B)
    assert world.start(new)[0] == world.start(old)[0] == status
    assert world.router.owners == {old.id: (B, A)}
    assert world.docker.called("remove") == []


def test_what_fails_inside_is_given_back(world):
    """If the attach fails, the error goes on and the addresses go back."""
    world.error = RouterError("no")
    with pytest.raises(RouterError, match=r"^no$"):
        world.start(world.docker.create())
    assert world.router.owners == {}


def test_giving_back_that_fails_is_only_logged(world, caplog):
    """The daemon's answer is worth more than an address that can't be given back."""
    world.status = "500 Internal Server Error"
    world.router.failures["release"] = RouterUnreachable("gone")
    assert world.start(world.docker.create())[0] == world.status
    assert "stay at the router" in caplog.text


def test_without_an_address_the_daemon_is_not_asked(world):
    """A router's refusal is the answer, in its words, and nothing was started."""
    world.router.failures["claim"] = RouterError("Unable to claim: address 10.2.1.1/24 is already owned by abc")
    with pytest.raises(RouterError, match="already owned by abc"):
        world.start(world.docker.create(), "net:default 10.2.1.1/24")
    assert world.environs == []
    assert world.router.owners == {}


@pytest.mark.parametrize(("fields", "has_run", "is_removed"), [
    ({"auto_remove": True}, False, True),
    ({"auto_remove": False}, False, False),
    ({"auto_remove": True}, True, False),
])
def test_auto_remove_is_ours_if_it_never_started(world, fields, has_run, is_removed):
    """docker run --rm waits until its container is gone; one that runs is not removed for want of an address."""
    container = (world.docker.run if has_run else world.docker.create)(**fields)
    world.router.failures["allocate"] = RouterError("full")
    with pytest.raises(RouterError, match="full"):
        world.start(container, path="restart" if has_run else "start")
    assert (container.id not in world.docker.containers) is is_removed


def test_what_others_started_meanwhile_keeps_what_it_has(world):
    """A start of a container that was new when that was decided, and runs by now, takes nothing from it if it fails."""
    container = world.docker.create(auto_remove=True)
    world.start(container)
    world.docker.start(container.id)
    world.status = "500 Internal Server Error"
    world.start(container)
    world.router.failures["allocate"] = RouterError("full")
    with pytest.raises(RouterError, match="full"):
        world.start(container)
    assert world.docker.containers[container.id].running
    assert world.router.owners == {container.id: (A,)}


def test_who_has_the_address_is_named(world):
    """By name and short id, in the router's sentence: nobody knows a container by 64 digits."""
    owner = world.docker.run(name="db")
    world.router.claim(owner.id, B)
    with pytest.raises(RouterError, match=rf"address 10.2.1.1/24 is already owned by db \({owner.short_id}\)$"):
        world.start(world.docker.create(), "10.2.1.1/24")


def test_who_waits_for_the_lock_is_named(world):
    """By its name, with what would help."""
    container = world.docker.create(name="web")
    with world.attachment.lock(container.id), ThreadPoolExecutor(1) as pool:
        error = pool.submit(world.start, container).exception()
    assert error.advice == "container web is being started, attached or detached by somebody else; try again"


def test_removal_that_fails_is_logged(world, caplog):
    """The reason for the refusal is what the client hears, whatever became of the container."""
    container = world.docker.create(auto_remove=True)
    world.router.failures["allocate"] = RouterError("full")
    world.docker.failures["remove"] = DockerUnreachable("gone")
    with pytest.raises(RouterError, match="full"):
        world.start(container)
    assert "is left" in caplog.text


def test_wait_is_bounded(world):
    """A router that can't make up its mind has the start's time, and then there is an error."""
    world.router.ready.clear()
    with pytest.raises(RouterBusy, match="no address for container"):
        world.start(world.docker.create())
    assert world.environs == []


def test_client_that_goes_away_ends_the_wait(world):
    """When the client closes its connection, nobody waits for an address any more, and none is held."""
    world.router.ready.clear()
    with pytest.raises(ClientGone):
        world.start(world.docker.create(), **{CLIENT_GONE: lambda: True})
    assert world.router.owners == {}


def test_two_starts_of_one_container_come_one_after_the_other(world):
    """While one start is under way another one of the same container waits, so that neither undoes the other's work."""
    container = world.docker.create()
    with world.attachment.lock(container.id), ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(world.start, container).exception(), Busy)


@pytest.mark.parametrize(("method", "path", "decision"), [
    ("POST", "/containers/web/start", LeaveAlone("why")),
    ("POST", "/containers/web/start", None),
    ("POST", "/containers/web/stop", Attach(())),
    ("GET", "/_ping", None),
])
def test_everything_else_passes_untouched(world, method, path, decision):
    """What is no start to be attached gets exactly the inner app's answer, and asks the router nothing."""
    environ = EnvironBuilder(method=method, path=path).get_environ() | ({DECISION: decision} if decision else {})
    answer = [b"itself"]
    assert IpamClient(lambda environ, start_response: answer, attachment=world.attachment)(environ, None) is answer
    assert world.router.calls == []


def test_only_so_many_wait_for_an_address(world):
    """One too many is told so at once; when the others are through, there is place again."""
    waiting, may_go = Event(), Event()
    allocate = world.router.allocate

    def slow(*arguments, **more):
        waiting.set()
        may_go.wait(10)
        return allocate(*arguments, **more)

    world.router.allocate = slow
    world.app = IpamClient(world.daemon, attachment=world.attachment, places=BoundedSemaphore(1))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.start, world.docker.create("a"))
        waiting.wait(10)
        with pytest.raises(Overloaded, match="too many containers wait"):
            world.start(world.docker.create("b"))
        may_go.set()
        assert first.result()[0] == "204 No Content"
    assert world.start(world.docker.create("c"))[0] == "204 No Content"
