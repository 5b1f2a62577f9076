from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from weavemw.attaching.attachment import Attachment
from weavemw.attaching.decision import Attach, Lease
from weavemw.attaching.locks import Busy
from weavemw.context import DECISION, LEASE, NAMES
from weavemw.errors import DockerUnreachable, NetworkError, RouterError
from weavemw.middleware.attach import Attacher
from weavemw.middleware.ipam import IpamClient
from weavemw.network.addresses import parse
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork

A = ip_interface("10.32.0.1/24")


def named(container):
    return (f"web.{container.name}", *container.aliases)


class World:
    """A daemon that starts containers, behind an Attacher (``app``) and an IpamClient around it (``both``)."""

    def __init__(self, run_dir):
        self.docker, self.router, self.network = FakeDocker(), FakeRouter(), RecordingNetwork()
        self.attachment = Attachment(docker=self.docker, router=self.router, network=self.network, run_dir=run_dir)
        self.app = Attacher(self.daemon, attachment=self.attachment)
        self.both = IpamClient(self.app, attachment=self.attachment)
        self.then = lambda container_id: None

    def daemon(self, environ, start_response):
        *_, name, verb = environ["PATH_INFO"].split("/")
        container = self.docker.inspect(name)
        if verb == "start" and container.running:
            start_response("304 Not Modified", [("Server", "Docker")])
            return []
        if container.running:
            self.docker.die(container.id)
        self.docker.start(container.id)
        self.then(container.id)
        start_response("204 No Content", [("Server", "Docker")])
        return []

    def request(self, app, container, path="start", **more):
        environ = EnvironBuilder(method="POST", path=f"/v1.41/containers/{container.name}/{path}").get_environ()
        environ.update({DECISION: Attach(parse(""), container=container), NAMES: named, **more})
        body, status, headers = run_wsgi_app(app, environ)
        return status, dict(headers), b"".join(body)

    def start(self, container, path="start"):
        return self.request(self.app, container, path, **{LEASE: Lease((A,), fresh=(A,))})

    def is_attached(self, container):
        return self.attachment.is_attached(self.docker.containers[container.id])


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize("path", ["start", "restart"])
def test_answer_comes_when_the_network_is_there(world, path):
    """The daemon's own answer goes out, and by then the container is attached and found by its name."""
    container = world.docker.create()
    assert world.start(container, path) == ("204 No Content", {"Server": "Docker"}, b"")
    assert world.is_attached(container)
    assert world.router.records == {(container.id, A, f"web.{container.name}")}


@pytest.mark.parametrize("status", ["301 Moved Permanently", "200 OK", "404 Not Found"])
def test_only_a_start_is_attached(world, status):
    """An answer other than 204 and 304 goes out as it is: nothing was started."""
    def answer(environ, start_response):
        start_response(status, [])
        return []

    container = world.docker.create()
    world.app.app = answer
    assert world.start(container)[0] == status
    assert world.network.steps == []


def test_restart_is_attached_anew(world):
    """After a restart the new process has the network, with the same address."""
    container = world.docker.create()
    world.start(container)
    world.start(world.docker.containers[container.id], "restart")
    assert world.is_attached(container)
    assert world.network.steps.count("commit") == 2


def test_already_started_is_made_sure_of(world):
    """A start of what runs already is no new attach; but if it still waits for its network, it gets it."""
    waits, fine = world.docker.run(), world.docker.create()
    world.start(fine)
    assert world.start(world.docker.containers[fine.id])[0] == world.start(waits)[0] == "304 Not Modified"
    assert world.is_attached(waits)
    assert world.network.steps.count("commit") == 2


@pytest.mark.parametrize(("where", "method"), [("network", "prepare"), ("network", "commit"), ("router", "register")])
@pytest.mark.parametrize("auto_remove", [False, True])
@pytest.mark.parametrize("path", ["start", "restart"])
def test_failed_attach_fails_the_start(world, where, method, auto_remove, path):
    """The reason goes out, the container is killed before its command ran, and nothing of it is left."""
    getattr(world, where).failures[method] = NetworkError("the reason") if where == "network" else RouterError("reason")
    container = world.docker.create(auto_remove=auto_remove)
    with pytest.raises((NetworkError, RouterError), match="reason"):
        world.request(world.both, container, path)
    assert world.docker.called("kill")[0] == (container.id,)
    assert (container.id not in world.docker.containers) is auto_remove
    assert (world.network.outside, world.router.records, world.router.owners) == ({}, set(), {})
    assert "commit" not in world.network.steps or method == "commit"


def test_what_ran_before_is_not_killed(world):
    """If a start of what runs already can't be attached, that is an error, but no reason to end it."""
    container = world.docker.run()
    world.network.failures["prepare"] = NetworkError("no")
    with pytest.raises(NetworkError):
        world.start(container)
    assert world.docker.containers[container.id].running


def test_container_that_ended_meanwhile_was_started(world):
    """One that somebody killed before it was attached was started all the same: the daemon's answer stands."""
    world.then = world.docker.die
    container = world.docker.create()
    assert world.start(container)[0] == "204 No Content"
    assert world.network.outside == {}


def test_container_that_is_gone_meanwhile_was_started(world):
    """So does one with AutoRemove, which is gone by then."""
    world.then = world.docker.die
    container = world.docker.create(auto_remove=True)
    assert world.start(container)[0] == "204 No Content"
    assert world.docker.called("kill") == []


def test_names_are_those_of_the_container_that_is_attached(world):
    """An alias or a name that it was given since the decision counts: no event will tell of it after the start."""
    container = world.docker.create()

    def meanwhile(container_id):
        world.docker.connect(container_id, "shop.weave.local")
        world.docker.rename(container_id, "new")

    world.then = meanwhile
    world.start(container)
    assert {name for _, _, name in world.router.records} == {"web.new", "shop.weave.local"}


def test_what_failed_keeps_its_addresses_if_it_can_not_be_killed(world):
    """They are in use as long as it has a process, and as long as nobody knows."""
    world.network.failures["prepare"] = NetworkError("no")
    world.docker.failures["kill"] = DockerUnreachable("gone")
    container = world.docker.create()
    with pytest.raises(NetworkError):
        world.request(world.both, container)
    assert world.router.owners == {container.id: (A,)}


def test_refusal_that_fails_is_logged(world, caplog):
    """If the container can't even be killed, the log says so, and the client hears the first reason."""
    world.network.failures["prepare"] = NetworkError("first")
    world.docker.failures["kill"] = DockerUnreachable("second")
    with pytest.raises(NetworkError, match="first"):
        world.start(world.docker.create())
    assert "still waits: second" in caplog.text


def test_nobody_attaches_what_is_being_started_or_refused(world):
    """From before the daemon is asked until the end, the container's lock is held."""
    container = world.docker.create()
    seen = []

    def try_lock(container_id):
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: world.attachment.lock(container_id, 0).__enter__()).exception())

    kill = world.docker.kill
    world.then = try_lock
    world.docker.kill = lambda container_id: (try_lock(container_id), kill(container_id))
    world.network.failures["prepare"] = NetworkError("no")
    with pytest.raises(NetworkError):
        world.start(container)
    assert [type(error) for error in seen] == [Busy, Busy]
    try_lock(container.id)
    assert seen[-1] is None


def test_what_the_daemon_refuses_is_not_attached(world):
    """The daemon's refusal goes out as it is."""
    def refuses(environ, start_response):
        start_response("500 Internal Server Error", [])
        return [b"no"]

    world.app.app = refuses
    assert world.start(world.docker.create()) == ("500 Internal Server Error", {}, b"no")
    assert world.network.calls == []


@pytest.mark.parametrize("more", [{DECISION: None}, {LEASE: None}, {DECISION: None, LEASE: None}])
def test_without_decision_or_lease_it_passes_untouched(world, more):
    """What nobody decided to attach, or has no address for, gets exactly the inner app's answer."""
    answer = [b"itself"]
    attacher = Attacher(lambda environ, start_response: answer, attachment=world.attachment)
    environ = EnvironBuilder(method="POST", path="/containers/web/start").get_environ()
    full = {DECISION: Attach(()), LEASE: Lease((A,))}
    assert attacher({**environ, **full, **more}, None) is answer
    assert world.docker.calls == []
