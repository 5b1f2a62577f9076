from __future__ import annotations

import dataclasses
import fcntl
import threading
import time
from ipaddress import ip_interface

import pytest

from weavemw.attaching import watcher as module
from weavemw.attaching.added_names import Added
from weavemw.attaching.attachment import Attachment
from weavemw.attaching.watcher import Watcher
from weavemw.dockerapi.wait_mount import PLACES
from weavemw.errors import DockerUnreachable, NetworkError, RouterError, RouterUnreachable
from weavemw.network.plan import Change, HostInterface, host_names
from weavemw.ops import watcher_state
from weavemw.ops.watcher_state import LOCK_FILE, STATE_FILE, Pending, State, read_state
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork, await_true

A = ip_interface("10.32.0.1/24")


class World:
    def __init__(self, run_dir):
        self.docker, self.router, self.network = FakeDocker(), FakeRouter(), RecordingNetwork()
        self.run_dir = run_dir
        self.attachment = Attachment(docker=self.docker, router=self.router, network=self.network, run_dir=run_dir)
        self.watchers = []

    def watch(self, names=lambda container: (f"{container.name}.weave.local",), **options):
        watcher = Watcher(docker=self.docker, attachment=self.attachment, run_dir=self.run_dir, workers=2,
                          names_for=names, **options)
        self.watchers.append(watcher)
        watcher.start()
        return watcher

    def watching(self, **options):
        watcher = self.watch(**options)
        self.docker.await_listeners()
        await_true(lambda: not len(watcher._schedule))
        return watcher

    def attached(self, container_id):
        container = self.docker.containers[container_id]
        ethwe = self.network.inside.get(container.pid)
        return ethwe is not None and ethwe.attached

    def names(self):
        return {name for _, _, name in self.router.records}

    def close(self):
        for watcher in self.watchers:
            watcher.stop()
        self.docker.disconnect()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher_state, "_FIRST_RETRY", 0.02)
    monkeypatch.setattr(module, "_BUSY_AGAIN", 0.01)
    made = World(tmp_path)
    yield made
    made.close()


def test_networks_in_the_way_are_named_while_they_are(world, caplog):
    """One that was there before, and one made later; the log says it once, also after a new connection to Docker."""
    world.docker.create_network("early", "10.32.0.0/26")
    watcher = world.watching()
    world.docker.create_network("late", "10.0.0.0/8")
    world.docker.create_network("fine", "10.99.0.0/16")
    await_true(lambda: [each.split()[2] for each in watcher.state.in_the_way] == ["early", "late"])
    world.docker.remove_network("early")
    await_true(lambda: [each.split()[2] for each in watcher.state.in_the_way] == ["late"])
    world.docker.disconnect()
    await_true(lambda: watcher.state.counters["connections"] == 2)
    await_true(lambda: not len(watcher._schedule))
    assert (caplog.text.count("network early"), caplog.text.count("network late")) == (1, 1)


def test_what_the_daemon_starts_is_attached(world):
    """A container that a restart policy starts is attached, with its names, and again after the next restart."""
    watcher = world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: world.attached(container.id))
    assert world.names() == {"web.weave.local"}
    world.docker.die(container.id)
    await_true(lambda: not world.names() and not world.network.outside)
    world.docker.start(container.id)
    await_true(lambda: world.attached(container.id) and world.names() == {"web.weave.local"})
    assert world.router.owners == {container.id: (A,)}
    await_true(lambda: watcher.state.counters["attached"] == 2 and watcher.state.counters["detached"] == 1)


def test_what_runs_already_is_attached_and_what_is_gone_is_cleaned_up(world):
    """A watcher begins with a look at everything: it attaches what waits and removes what is left over."""
    waits = world.docker.run(name="waits")
    world.network.outside["vethwe999999999"] = HostInterface("vethwe999999999", "9" * 64)
    world.router.claim("9" * 64, ip_interface("10.32.0.9/24"))
    world.router.register("9" * 64, ip_interface("10.32.0.9/24"), "ghost")
    watcher = world.watching()
    await_true(lambda: world.attached(waits.id) and world.names() == {"waits.weave.local"})
    await_true(lambda: watcher.state.counters["swept_interfaces"] == 1)
    assert set(world.network.outside) == {host_names(waits.id)[0]}
    assert set(world.router.owners) == {waits.id}


def test_a_look_at_many_containers_shows_how_far_it_is(world, caplog, monkeypatch):
    """In the log, so many at a time, and in the state."""
    monkeypatch.setattr(module, "_MANY", 2)
    caplog.set_level("INFO")
    for _ in range(5):
        world.docker.run()
    watcher = world.watching()
    def said():
        return sorted(record.args for record in caplog.records if record.msg.startswith("looked at"))

    await_true(lambda: said() == [(2, 5), (4, 5), (5, 5)])
    assert (watcher.state.looked, watcher.state.found) == (5, 5)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pending":null}', '{"counters":{"attached":"x"}}'])
def test_a_damaged_state_ends_no_watcher(world, text):
    """The file is logged, and begun anew."""
    (world.run_dir / STATE_FILE).parent.mkdir()
    (world.run_dir / STATE_FILE).write_text(text)
    watcher = world.watching()
    container = world.docker.run()
    await_true(lambda: world.attached(container.id) and watcher.state.counters["attached"] == 1)
    await_true(lambda: (read_state(world.run_dir) or State()).counters["attached"] == 1)


@pytest.mark.parametrize("error", [ZeroDivisionError("surprise"), SystemExit("surprise")])
def test_a_thread_that_dies_begins_again(world, caplog, monkeypatch, error):
    """Whatever it is that a watcher dies of: it is logged, and the host has a watcher again."""
    monkeypatch.setattr(module, "_AFTER_FAILURE", 0.01)
    begin, failures = module.StateFile.begin, iter([error])

    def fail_once(file):
        for failure in failures:
            raise failure
        begin(file)

    monkeypatch.setattr(module.StateFile, "begin", fail_once)
    world.watching()
    container = world.docker.run()
    await_true(lambda: world.attached(container.id))
    assert "weave-watcher failed, and begins again" in caplog.text
    assert "surprise" in caplog.text


def test_an_event_that_makes_no_sense_is_passed_over(world, caplog):
    """It is logged; those after it are heard, in the same stream."""
    watcher = world.watching()
    world.docker._tell({"Type": "network", "Action": "connect", "Actor": "nonsense"})
    container = world.docker.run()
    await_true(lambda: world.attached(container.id))
    assert watcher.state.counters["connections"] == 1
    assert "was not understood" in caplog.text


def test_addresses_go_with_the_container(world):
    """An address is kept while the container exists, and free when it is gone; so are interface and name."""
    world.watching()
    container = world.docker.run()
    await_true(lambda: world.attached(container.id))
    world.docker.die(container.id)
    await_true(lambda: not world.network.outside)
    assert world.router.owners == {container.id: (A,)}
    world.docker.destroy(container.id)
    await_true(lambda: not world.router.owners)


def test_container_that_is_gone_at_once_leaves_nothing(world):
    """Start, end and removal in one moment leave nothing behind."""
    watcher = world.watching()
    for _ in range(20):
        world.docker.die(world.docker.run(auto_remove=True).id)
    await_true(lambda: not len(watcher._schedule))
    assert (world.router.owners, world.router.records, world.network.outside) == ({}, set(), {})


def test_rename_moves_the_name(world):
    """After a rename the container resolves by its new name only, and keeps its interface."""
    world.watching()
    container = world.docker.run(name="old")
    await_true(lambda: world.names() == {"old.weave.local"})
    world.docker.rename(container.id, "new")
    await_true(lambda: world.names() == {"new.weave.local"})
    assert world.network.steps.count("prepare") == 1


def test_what_is_being_restarted_does_not_resolve(world):
    """The name of a container that died is gone while somebody holds its lock and Docker starts it again."""
    world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: world.names() == {"web.weave.local"})
    with world.attachment.lock(container.id, timeout=5):
        world.docker.die(container.id)
        await_true(lambda: world.names() == set())
        world.docker.start(container.id)
        world.attachment.attach(container.id, world.router.owners[container.id], ("web.weave.local",))
    await_true(lambda: world.names() == {"web.weave.local"})


def test_what_docker_does_not_answer_for_does_not_resolve(world, monkeypatch):
    """While a look at a container waits for Docker, which is restarting it, its names go all the same."""
    watcher = world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: world.names() == {"web.weave.local"} and not len(watcher._schedule))
    answers, inspect = threading.Event(), world.docker.inspect
    monkeypatch.setattr(world.docker, "inspect", lambda one: answers.wait(10) and inspect(one))
    world.docker.emit("rename", container.id)
    world.docker.die(container.id)
    await_true(lambda: world.names() == set())
    answers.set()


def test_a_death_that_is_heard_of_late(world):
    """Names that were registered after a restart, and removed for the death before it, are registered again."""
    watcher = world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: world.names() == {"web.weave.local"})
    await_true(lambda: not len(watcher._schedule))
    world.router.calls.clear()
    world.docker.emit("die", container.id)
    await_true(lambda: world.router.called("register") and world.names() == {"web.weave.local"})
    assert world.router.called("deregister")


def test_a_death_that_is_heard_of_late_by_one_attached_by_hand(world):
    """The same for a container that is not ours."""
    watcher = world.watching()
    container = world.docker.run(entrypoint=("sh",), name="theirs")
    await_true(lambda: container.id in watcher.state.left_alone)
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,), ("theirs.weave.local",))
    world.docker.emit("die", container.id)
    await_true(lambda: world.router.called("deregister") and world.names() == {"theirs.weave.local"})


def test_what_died_unseen_does_not_resolve_long(world):
    """The first look takes away names of containers that ended while no watcher ran, also of those that are busy."""
    container = world.docker.run(name="web")
    world.attachment.attach(container.id, (world.router.allocate(container.id),), ("web.weave.local",))
    world.docker.die(container.id)
    with world.attachment.lock(container.id, timeout=5):
        world.watch()
        await_true(lambda: world.router.called("names"))
    await_true(lambda: world.names() == set())


def test_when_it_goes_again_it_goes_for_all(world, monkeypatch):
    """One container for which what failed works again is reason enough to try for the others."""
    monkeypatch.setattr(module.Pending, "delay", property(lambda pending: 0.05 if pending.name == "one" else 60.0))
    watcher = world.watching()
    world.router.failures["allocate"] = RouterUnreachable("gone")
    others = [world.docker.run(name=name) for name in ("two", "one")]
    await_true(lambda: len(watcher.state.pending) == 2)
    world.router.failures.clear()
    await_true(lambda: all(world.attached(each.id) for each in others))


def test_an_alias_added_while_it_runs_is_registered(world):
    """`docker network connect --alias` gives a running container a further name, and takes none away."""
    watcher = world.watching(names=lambda container: (f"{container.name}.weave.local", *container.aliases))
    container = world.docker.run(name="web")
    await_true(lambda: world.names() == {"web.weave.local"})
    world.docker.connect(container.id, "shop.weave.local")
    await_true(lambda: world.names() == {"web.weave.local", "shop.weave.local"})
    await_true(lambda: not len(watcher._schedule))
    assert world.router.called("deregister") == []
    assert world.network.steps.count("prepare") == 1


@pytest.mark.parametrize("runs_before", [False, True])
def test_what_does_not_run_is_not_looked_at_for_its_networks(world, runs_before):
    """Docker connects before each start and disconnects after each end; start and end bring a look of their own."""
    watcher = world.watching()
    container = world.docker.create()
    if runs_before:
        world.docker.start(container.id)
        await_true(lambda: world.attached(container.id) and not len(watcher._schedule))
        world.docker.die(container.id)
    await_true(lambda: not world.names() and not len(watcher._schedule))
    looked = len(world.docker.called("inspect"))
    world.docker.connect(container.id)
    time.sleep(0.3)
    assert len(world.docker.called("inspect")) == looked
    world.docker.start(container.id)
    await_true(lambda: world.attached(container.id))


def test_what_ends_and_goes_is_looked_at_once(world):
    """An end, and that it is gone, are told one after the other."""
    watcher = world.watching()
    container = world.docker.run(auto_remove=True)
    await_true(lambda: world.attached(container.id) and not len(watcher._schedule))
    world.docker.die(container.id)
    await_true(lambda: not world.router.owners and not len(watcher._schedule))
    assert world.router.called("release") == [(container.id, None)]


class Held:
    """Something that the first who does it is held up in, until :meth:`go`."""

    def __init__(self, action, *, before=False):
        self._action, self._before = action, before
        self.entered, self._go = threading.Event(), threading.Event()

    def __call__(self, *arguments, **more):
        if self.entered.is_set():
            return self._action(*arguments, **more)
        found = None if self._before else self._action(*arguments, **more)
        self.entered.set()
        self._go.wait(5)
        return self._action(*arguments, **more) if self._before else found

    def go(self):
        self._go.set()


def named(container):
    return (f"{container.name}.weave.local", *container.aliases)


@pytest.mark.parametrize("heard", ["connect", "rename"])
def test_what_is_heard_while_a_container_is_worked_on_is_not_forgotten(world, heard):
    """An alias or a name given while names are registered is registered next, by what the container is then."""
    names = Held(named)
    watcher = world.watch(names=names)
    container = world.docker.run(name="web")
    assert names.entered.wait(5)
    world.docker.connect(container.id, "shop.weave.local") if heard == "connect" else world.docker.rename(
        container.id, "shop")
    await_true(lambda: len(watcher._schedule) == 2)
    names.go()
    await_true(lambda: "shop.weave.local" in world.names() and not len(watcher._schedule))


def test_a_death_heard_while_names_are_registered_is_not_forgotten(world, monkeypatch):
    """Names that go after a look has registered them, since a death was heard of late, come back by the next look."""
    watcher = world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: world.names() == {"web.weave.local"} and not len(watcher._schedule))
    take = Held(world.router.deregister, before=True)
    monkeypatch.setattr(world.router, "deregister", take)
    world.docker.emit("die", container.id)
    assert take.entered.wait(5)
    looks = len(world.docker.called("inspect"))
    world.docker.emit("rename", container.id)
    await_true(lambda: len(world.docker.called("inspect")) > looks and len(watcher._schedule) == 1)
    take.go()
    await_true(lambda: not len(watcher._schedule))
    assert world.names() == {"web.weave.local"}


def test_an_old_name_goes_though_the_first_attempt_failed(world, monkeypatch):
    """What the first look found to be registered counts until it was acted upon."""
    container = world.docker.run(name="old")
    world.attachment.attach(container.id, (A,), ("old.weave.local",))
    world.router.claim(container.id, A)
    world.docker.rename(container.id, "new")
    world.router.failures["register"] = RouterError("no")
    watcher = world.watch()
    await_true(lambda: container.id in watcher.state.pending)
    world.router.failures.clear()
    await_true(lambda: world.names() == {"new.weave.local"})


def test_a_look_knows_what_is_registered_before_any_container_is_worked_on(world, monkeypatch):
    """A router that is slow to say it lets no old name stay."""
    container = world.docker.run(name="old")
    world.attachment.attach(container.id, (A,), ("old.weave.local",))
    world.router.claim(container.id, A)
    world.docker.rename(container.id, "new")
    names = Held(world.router.names)
    monkeypatch.setattr(world.router, "names", names)
    watcher = world.watch()
    assert names.entered.wait(5)
    time.sleep(0.05)
    names.go()
    await_true(lambda: world.names() == {"new.weave.local"})
    await_true(lambda: not len(watcher._schedule))
    assert world.names() == {"new.weave.local"}


def test_without_a_router_each_container_shows_why_it_waits(world, caplog):
    """And the look at all of them is shown as what it is, not as a container."""
    world.router.failures.update({name: RouterUnreachable("the router is gone") for name in ("names", "allocate")})
    container = world.docker.run(name="web")
    watcher = world.watch()
    await_true(lambda: set(watcher.state.pending) == {container.id})
    await_true(lambda: set(watcher.state.failing) == {"looking at all containers"})
    await_true(lambda: "looking at all containers: the router is gone; next attempt" in caplog.text)
    await_true(lambda: f"container {container.short_id} (web): no address for" in caplog.text)
    world.router.failures.clear()
    await_true(lambda: world.attached(container.id) and not watcher.state.pending and not watcher.state.failing)


@pytest.mark.parametrize(("where", "method", "shown"), [
    ("network", "interfaces", "removing orphans"), ("router", "names", "looking at all containers")])
def test_what_concerns_no_container_is_not_shown_as_one(world, caplog, where, method, shown):
    """In the state and in the log."""
    getattr(world, where).failures[method] = ZeroDivisionError("surprise")
    watcher = world.watch()
    await_true(lambda: shown in watcher.state.failing)
    assert watcher.state.pending == {}
    await_true(lambda: f"{shown}: this should not happen" in caplog.text)
    assert "all containe:" not in caplog.text
    getattr(world, where).failures.clear()
    await_true(lambda: watcher.state.failing == {})


def test_what_vanished_while_docker_was_down_goes(world):
    """It is shown no more, whether it was left alone or waited, when Docker is back."""
    world.router.failures["allocate"] = RouterError("full")
    watcher = world.watching()
    theirs, ours = world.docker.run(entrypoint=("sh",)), world.docker.run()
    await_true(lambda: theirs.id in watcher.state.left_alone and ours.id in watcher.state.pending)
    world.docker.failures["container_ids"] = DockerUnreachable("gone")
    world.docker.disconnect()
    await_true(lambda: not watcher.state.connected)
    world.docker.containers.clear()
    world.docker.failures.clear()
    await_true(lambda: not watcher.state.left_alone and not watcher.state.pending, timeout=10)


def test_what_vanished_unheard_goes_at_a_sweep(world):
    """Also if no event was ever lost, as far as we know; and without a router."""
    watcher = world.watching(sweep_every=0.01)
    theirs = world.docker.run(entrypoint=("sh",))
    await_true(lambda: theirs.id in watcher.state.left_alone)
    world.router.failures.update(dict.fromkeys(("deregister", "names", "owned"), RouterUnreachable("gone")))
    world.docker.containers.clear()
    await_true(lambda: not watcher.state.left_alone)


@pytest.mark.parametrize("entrypoint", [("sh",), PLACES[:1]])
@pytest.mark.parametrize("when", ["launched", "while it watches"])
def test_what_was_attached_while_dns_was_off_has_its_name_once_it_is_on(world, entrypoint, when):
    """By hand or through the proxy, and whether the watcher began before or after DNS."""
    world.router._dns_address = None
    container = world.docker.run(name="web", entrypoint=entrypoint)
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,), ())

    def names(one):
        return (f"{one.name}.weave.local",) if world.router.dns_address() else ()

    if when == "launched":
        world.router._dns_address = "172.17.0.1"
    watcher = world.watching(names=names, sweep_every=0.05)
    if when != "launched":
        time.sleep(0.1)
        assert world.names() == set()
        world.router._dns_address = "172.17.0.1"
    await_true(lambda: world.names() == {"web.weave.local"})
    assert watcher.state.left_alone == {}
    assert world.network.steps.count("prepare") == 1


def test_what_was_attached_by_hand_keeps_other_names(world):
    """A look gives a name to what has none, and not a further one to what has."""
    container = world.docker.run(name="web", entrypoint=("sh",))
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,), ("other.weave.local",))
    watcher = world.watching(sweep_every=0.01)
    await_true(lambda: not len(watcher._schedule) and watcher.state.looked == 1)
    assert world.names() == {"other.weave.local"}


def test_names_given_by_hand_survive_a_look(world):
    """A watcher that begins anew takes away the names that a rename left, not those that dns-add gave."""
    container = world.docker.run(name="web")
    world.router.claim(container.id, A)
    world.attachment.keep_names(container.id, [Added("shop.weave.local")])
    world.attachment.attach(container.id, (A,), ("old.weave.local",))
    world.watching()
    await_true(lambda: world.names() == {"web.weave.local", "shop.weave.local"})


def test_names_given_by_hand_to_others_come_back(world):
    """A container that is not attached has its names again when it is started again."""
    watcher = world.watching()
    container = world.docker.run(entrypoint=("sh",), name="theirs")
    await_true(lambda: container.id in watcher.state.left_alone)
    world.attachment.keep_names(container.id, [Added("shop.weave.local", A)])
    world.docker.die(container.id)
    world.docker.start(container.id)
    await_true(lambda: world.names() == {"shop.weave.local"})


def test_rename_that_nobody_saw_moves_the_name(world):
    """A rename while no watcher ran is found by the first look."""
    container = world.docker.run(name="old")
    world.attachment.attach(container.id, (A,), ("old.weave.local",))
    world.router.claim(container.id, A)
    world.docker.rename(container.id, "new")
    world.watching()
    await_true(lambda: world.names() == {"new.weave.local"})


def test_lost_names_come_back_without_a_gap(world):
    """Names that a router lost are registered anew by the first look; those that it has are never removed for that."""
    lost, kept = world.docker.run(name="lost"), world.docker.run(name="kept")
    for container in (lost, kept):
        address = world.router.allocate(container.id)
        world.attachment.attach(container.id, (address,), (f"{container.name}.weave.local",))
    world.router.deregister(lost.id)
    world.router.calls.clear()
    world.watching()
    await_true(lambda: world.names() == {"lost.weave.local", "kept.weave.local"})
    assert world.router.called("deregister") == []


@pytest.mark.parametrize("action", ["unpause", "pause", "exec_create: sh", "exec_start: sh", "health_status: healthy",
                                    "oom", "resize", "attach", "update", "top"])
def test_other_events_change_nothing(world, action):
    """Events that don't begin or end anything cost not even a question."""
    watcher = world.watching()
    container = world.docker.run()
    await_true(lambda: world.attached(container.id) and not len(watcher._schedule))
    world.docker.calls.clear()
    world.docker.emit(action, container.id)
    later = world.docker.run()
    await_true(lambda: world.attached(later.id))
    assert world.attached(container.id)
    assert (container.id,) not in world.docker.called("inspect")


@pytest.mark.parametrize("event", [
    {"status": "start", "id": "1" * 64, "time": 5},
    {"Type": "container", "Action": "start", "Actor": {"ID": "1" * 64}, "timeNano": 5},
])
def test_events_of_old_and_new_daemons(world, event):
    """Events are understood with the fields of old API versions (status, id) and with those of new ones alone."""
    watcher = world.watching()
    container = world.docker.create("1" * 64)
    watcher._heard(event)
    await_true(lambda: not len(watcher._schedule))
    assert (container.id,) in world.docker.called("inspect")


@pytest.mark.parametrize("event", [{}, {"Action": "start"}, {"Action": None, "Actor": None},
                                   {"Action": "start", "id": ""}])
def test_events_that_say_nothing_are_ignored(world, event):
    """An event without action or container is no reason to look at anything."""
    watcher = Watcher(docker=world.docker, attachment=world.attachment, run_dir=world.run_dir, names_for=lambda c: ())
    watcher._heard(event)
    assert len(watcher._schedule) == 0


def test_failed_attach_is_tried_again_and_shown(world):
    """What can't be attached is never killed: it is tried again and again, and the state tells what hinders it."""
    world.router.failures["allocate"] = RouterError("no free addresses in 10.32.0.0/24 (254 in use)")
    watcher = world.watch()
    container = world.docker.run(name="web")
    await_true(lambda: watcher.state.pending.get(container.id, Pending("", "", 0)).attempts > 2)
    pending = watcher.state.pending[container.id]
    assert (pending.name, pending.error) == ("web", "no free addresses in 10.32.0.0/24 (254 in use)")
    await_true(lambda: container.id in (read_state(world.run_dir) or State()).pending)
    world.router.failures.clear()
    await_true(lambda: world.attached(container.id) and container.id not in watcher.state.pending)
    assert world.docker.called("kill") == []


def test_container_that_ends_is_no_longer_pending(world):
    """Who waits no more is not shown as waiting."""
    world.network.failures["prepare"] = NetworkError("no")
    watcher = world.watching()
    container = world.docker.run()
    await_true(lambda: container.id in watcher.state.pending)
    world.docker.die(container.id)
    await_true(lambda: container.id not in watcher.state.pending)
    assert world.docker.containers[container.id].started_at.startswith("started")


def test_one_that_cannot_be_attached_hinders_no_other(world):
    """While one container waits for an address, others are attached."""
    world.router.ready.clear()
    watcher = world.watching()
    waits = world.docker.run()
    await_true(lambda: waits.id in watcher.state.pending)
    world.router.ready.set()
    world.router.owners["x" * 64] = tuple(ip_interface(f"10.40.0.{n}/24") for n in range(1, 255))
    full = world.docker.run(env=("WEAVE_CIDR=net:10.40.0.0/24",))
    fine = world.docker.run()
    await_true(lambda: world.attached(waits.id) and world.attached(fine.id) and full.id in watcher.state.pending)


def test_container_that_somebody_starts_is_left_to_them(world):
    """While a client's start holds the lock the watcher keeps off; afterwards it finds nothing to do."""
    watcher = world.watching()
    with world.attachment.lock("1" * 64):
        container = world.docker.run("1" * 64)
        other = world.docker.run("2" * 64)
        await_true(lambda: world.attached(other.id))
        assert not world.attached(container.id)
        world.attachment.attach(container.id, (A,), ("web",))
    await_true(lambda: not len(watcher._schedule))
    assert world.network.steps.count("prepare") == 2
    assert world.router.called("register")[-1][-1] != f"{container.name}.weave.local"


@pytest.mark.parametrize(("fields", "reason", "logged"), [
    ({}, "it was not created through the proxy", 1),
    ({"env": ("WEAVE_CIDR=none",)}, "WEAVE_CIDR is none", 0),
    ({"env": ("WEAVE_CIDR=x",)}, 'invalid WEAVE_CIDR "x": expected', 0),
    ({"network_mode": "host"}, "it has the host's network", 0),
    ({"network_mode": "container:db"}, "it has the network of another container (db)", 0),
    ({"network_mode": "swarm"}, 'its network "swarm" has the driver "overlay"', 0),
])
def test_others_containers_are_left_alone_and_shown(world, caplog, fields, reason, logged):
    """A container that is not ours is not touched; why is shown while it exists, and said if create didn't say it."""
    caplog.set_level("INFO")
    world.docker.networks["swarm"] = "overlay"
    watcher = world.watching()
    container = world.docker.run(entrypoint=("sh",), name="theirs", **fields)
    await_true(lambda: container.id in watcher.state.left_alone)
    assert watcher.state.left_alone[container.id]["name"] == "theirs"
    assert reason in watcher.state.left_alone[container.id]["reason"]
    world.docker.die(container.id)
    world.docker.start(container.id)
    await_true(lambda: not len(watcher._schedule))
    assert caplog.text.count("leaving container") == logged
    assert "prepare" not in world.network.steps
    world.docker.die(container.id)
    world.docker.destroy(container.id)
    await_true(lambda: container.id not in watcher.state.left_alone)


def test_why_without_default_ipalloc(world):
    """With --no-default-ipalloc that is the reason of one that says nothing."""
    watcher = world.watching(default_ipalloc=False)
    container = world.docker.run(entrypoint=("sh",))
    await_true(lambda: container.id in watcher.state.left_alone)
    assert "--no-default-ipalloc" in watcher.state.left_alone[container.id]["reason"]


def test_what_was_attached_by_hand_is_attached_again(world):
    """A container that is not ours, but was given addresses by hand, has them again after each restart."""
    watcher = world.watching()
    container = world.docker.run(entrypoint=("sh",), name="theirs")
    await_true(lambda: container.id in watcher.state.left_alone)
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,), ("other.weave.local",))
    world.docker.die(container.id)
    await_true(lambda: not world.network.outside)
    world.docker.start(container.id)
    await_true(lambda: world.attached(container.id))
    assert world.names() == {"theirs.weave.local"}
    assert watcher.state.left_alone == {}


def test_by_hand_and_the_router_was_away(world):
    """If the router can't say whether it was attached by hand, the sweep sees to it when the router is back."""
    watcher = world.watching(sweep_every=0.3)
    world.router.failures["addresses"] = RouterUnreachable("gone")
    container = world.docker.run(entrypoint=("sh",))
    world.router.claim(container.id, A)
    await_true(lambda: container.id in watcher.state.left_alone)
    assert watcher.state.pending == {}
    world.router.failures.clear()
    await_true(lambda: world.attached(container.id))


@pytest.mark.parametrize("mode", ["host", "container:db"])
def test_a_shared_network_is_nobodys_to_attach(world, mode):
    """A container in somebody else's network is left alone, whatever it holds."""
    watcher = world.watching()
    container = world.docker.create(entrypoint=("sh",), network_mode=mode)
    world.router.claim(container.id, A)
    world.docker.start(container.id)
    await_true(lambda: container.id in watcher.state.left_alone)
    assert "prepare" not in world.network.steps


def test_without_a_router_others_containers_are_no_problem(world):
    """With the router away the end of a container that was left alone is not a thing to be tried again."""
    watcher = world.watching()
    container = world.docker.run(entrypoint=("sh",))
    await_true(lambda: container.id in watcher.state.left_alone)
    world.router.failures["deregister"] = RouterUnreachable("gone")
    world.docker.die(container.id)
    world.docker.destroy(container.id)
    await_true(lambda: container.id not in watcher.state.left_alone)
    assert watcher.state.pending == {}


def test_wrapped_container_is_attached_whatever_the_settings_are_now(world):
    """It was created to be attached and waits for that."""
    world.watching()
    container = world.docker.run(env=("WEAVE_CIDR=none",))
    await_true(lambda: world.attached(container.id))


def test_daemon_that_goes_away_is_come_back_to(world):
    """When the daemon is back, everything is looked at, and events since the last one are heard."""
    watcher = world.watching()
    world.docker.failures["container_ids"] = DockerUnreachable("gone")
    world.docker.disconnect()
    await_true(lambda: not watcher.state.connected and watcher.state.error == "gone")
    container = world.docker.run()
    world.docker.failures.clear()
    await_true(lambda: world.attached(container.id), timeout=10)
    assert watcher.state.connected
    assert watcher.state.counters["connections"] == 2


def test_nothing_is_missed_between_two_streams(world):
    """Events of the moment between two streams are asked for: each stream begins where the last one ended."""
    world.watching()
    before = world.docker.run()
    await_true(lambda: world.attached(before.id))
    world.docker.disconnect()
    await_true(lambda: len(world.docker.called("events")) == 2)
    (first,), (second,) = world.docker.called("events")
    assert first <= second <= world.docker.history[-1]["timeNano"] / 1e9 + 0.001


def test_one_watcher_at_a_time_and_the_next_takes_over(world):
    """Of several watchers of a host one watches; when it ends the next one does, beginning with a look."""
    first = world.watching()
    second = world.watch()
    container = world.docker.run()
    await_true(lambda: world.attached(container.id))
    assert second.state.counters["connections"] == 0
    first.stop()
    world.docker.disconnect()
    await_true(lambda: second.state.connected)
    other = world.docker.run()
    await_true(lambda: world.attached(other.id))


def test_surprise_in_one_container_is_logged_and_tried_again(world, caplog):
    """An error that nobody thought of costs its container one attempt, and nobody else anything."""
    world.network.failures["prepare"] = ZeroDivisionError("surprise")
    watcher = world.watching()
    container = world.docker.run()
    await_true(lambda: container.id in watcher.state.pending)
    assert "surprise" in watcher.state.pending[container.id].error
    assert "this should not happen" in caplog.text
    world.network.failures.clear()
    await_true(lambda: world.attached(container.id))


def test_sweeps_now_and_then(world):
    """Orphans are found without any event, too."""
    world.watching(sweep_every=0.01)
    world.network.outside["vethwe999999999"] = HostInterface("vethwe999999999", "9" * 64)
    await_true(lambda: not world.network.outside)


def test_a_lock_that_others_can_open_keeps_no_watcher_away(world):
    """Nor does one that waits for another watcher's end go on waiting once it is to stop."""
    (world.run_dir / LOCK_FILE).touch(0o644)
    with (world.run_dir / LOCK_FILE).open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        first = world.watching()
        await_true(lambda: first.state.connected)
    second = world.watch()
    second.stop()
    await_true(lambda: [thread.name for thread in threading.enumerate()].count("weave-watcher") == 1)
    assert not second.state.connected


def broken(world, container_id, **changed):
    """Change the host's end of a container's pair."""
    name = host_names(container_id)[0]
    world.network.outside[name] = dataclasses.replace(world.network.outside[name], **changed)


def off_the_bridge(world, container):
    broken(world, container.id, is_port=False)
    world.network.happened.put(Change())


def bridge_gone(world, container):
    world.network.has_bridge = False
    off_the_bridge(world, container)


def address_gone(world, container):
    broken(world, container.id, namespace=7)
    world.network.inside[container.pid] = dataclasses.replace(world.network.inside[container.pid], addresses=())
    world.network.happened.put(Change(7))


def route_gone(world, container):
    world.network.ways[container.pid] = frozenset()
    world.network.happened.put(Change(is_gap=True))


@pytest.mark.parametrize("entrypoint", [(PLACES[0],), ("sh",)], ids=["ours", "by hand"])
@pytest.mark.parametrize("damage", [off_the_bridge, bridge_gone, address_gone, route_gone])
def test_what_is_broken_is_mended_when_the_kernel_tells(world, monkeypatch, damage, entrypoint):
    """Whoever attached it; and that is counted and logged."""
    monkeypatch.setattr(module, "_CHANGED_AGO", 0.01)
    watcher = world.watching()
    container = world.docker.run(name="web", entrypoint=entrypoint)
    if entrypoint == ("sh",):
        await_true(lambda: container.id in watcher.state.left_alone)
        world.router.claim(container.id, A)
        world.attachment.attach(container.id, (A,), ("web.weave.local",))
        world.network.happened.put(Change())
    await_true(lambda: container.id in watcher._settler._attached and not len(watcher._schedule))
    damage(world, container)
    await_true(lambda: watcher.state.counters["mended"] == 1)
    assert world.attachment.faults(container, (A,)) == ()
    assert world.names() == {"web.weave.local"}
    assert world.network.has_bridge


def test_what_is_mended_gets_nothing_new(world, monkeypatch):
    """An address that was taken from a container by hand, while it keeps another, stays taken."""
    monkeypatch.setattr(module, "_CHANGED_AGO", 0.01)
    watcher = world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: container.id in watcher._settler._attached and not len(watcher._schedule))
    kept = ip_interface("10.2.1.1/24")
    world.router.claim(container.id, kept)
    for address in world.router.addresses(container.id):
        if address != kept:
            world.router.release(container.id, address)
    world.attachment.attach(container.id, (kept,), ("web.weave.local",))
    off_the_bridge(world, container)
    await_true(lambda: watcher.state.counters["mended"] == 1)
    assert world.router.owners == {container.id: (kept,)}
    assert world.network.inside[container.pid].addresses == (kept,)


@pytest.mark.parametrize("entrypoint", [(PLACES[0],), ("sh",)], ids=["ours", "by hand"])
def test_a_router_that_lost_everything_gets_it_back(world, entrypoint):
    """The address that a container has is held again, and its name is registered."""
    container = world.docker.run(name="web", entrypoint=entrypoint)
    address = ip_interface("10.32.0.77/24")
    world.router.claim(container.id, address)
    world.attachment.attach(container.id, (address,), ("web.weave.local",))
    watcher = world.watching(compare_every=0.05)
    await_true(lambda: not len(watcher._schedule))
    world.router.owners.clear()
    world.router.records.clear()
    await_true(lambda: world.router.owners == {container.id: (address,)} and world.names() == {"web.weave.local"})


def test_names_that_are_all_gone_come_back(world):
    """Somebody wiped them: they are registered again."""
    watcher = world.watching(compare_every=0.05)
    container = world.docker.run(name="web")
    await_true(lambda: world.attached(container.id) and world.names() and watcher._settler._has_names)
    world.router.records.clear()
    await_true(lambda: world.names() == {"web.weave.local"})


def test_what_the_router_gave_to_another_is_said(world):
    """An address that another has by now can't be held again: the container's row says so."""
    container = world.docker.run(name="web")
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,))
    world.router.owners = {"f" * 64: (A,)}
    world.docker.create("f" * 64, name="other")
    watcher = world.watch()
    await_true(lambda: container.id in watcher.state.pending)
    assert "already owned by" in watcher.state.pending[container.id].error


def test_what_was_detached_by_hand_stays_so_until_it_starts(world):
    """Also for the next watcher, which looks at everything; `weave status` knows why."""
    watcher = world.watching()
    container = world.docker.run(name="web")
    await_true(lambda: world.attached(container.id))
    await_true(lambda: not len(watcher._schedule))
    world.attachment.keep_away(container)
    watcher._schedule.put(module.Look())
    await_true(lambda: container.id in watcher.state.left_alone)
    assert watcher.state.left_alone[container.id]["reason"] == "it was detached by hand"
    assert not world.network.outside
    world.docker.die(container.id)
    again = world.docker.start(container.id)
    await_true(lambda: world.attached(again.id) and container.id not in watcher.state.left_alone)


def test_a_daemon_that_hangs_is_noticed(world):
    """Its stream of events is as silent as that of one with nothing to tell."""
    watcher = world.watching(compare_every=0.02)
    world.docker.failures["ping"] = DockerUnreachable("Docker did not answer: no answer in time")
    await_true(lambda: "asking Docker whether it answers" in watcher.state.failing)
    world.docker.failures.clear()
    await_true(lambda: not watcher.state.failing)
