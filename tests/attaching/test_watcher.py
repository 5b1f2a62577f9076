from __future__ import annotations

import json
import threading
from ipaddress import ip_interface

import pytest

from weavemw.attaching import watcher as module
from weavemw.attaching.added_names import Added
from weavemw.attaching.attachment import Attachment
from weavemw.attaching.watcher import Watcher
from weavemw.errors import DockerUnreachable, NetworkError, RouterError, RouterUnreachable
from weavemw.network.plan import HostInterface, host_names
from weavemw.ops import watcher_state
from weavemw.ops.watcher_state import Pending, State, read_state
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


def test_sums_go_on_with_the_next_watcher(world):
    """They don't end with the process that counted; what another version wrote besides is passed over."""
    stored = {"counters": {"attached": 7}, "pending": {"1" * 64: {"name": "x", "error": "e", "new": 1}}, "new": 1}
    (world.run_dir / module.STATE_FILE).write_text(json.dumps(stored))
    assert read_state(world.run_dir).pending["1" * 64].error == "e"
    watcher = world.watching()
    world.docker.run()
    await_true(lambda: watcher.state.counters["attached"] == 8)
    assert watcher.state.counters["retries"] == 0


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


@pytest.mark.parametrize(("attempts", "delay"), [(1, 1.0), (2, 1.5), (3, 2.25), (11, 57.665), (12, 60.0),
                                                 (10**9, 60.0)])
def test_delays_grow_to_a_minute(attempts, delay):
    """Attempts come after 1 s, then half as much later each time, at most after a minute."""
    assert Pending("web", "no", attempts).delay == pytest.approx(delay, abs=0.001)


def test_state_is_a_file_that_is_always_whole(world):
    """Whoever reads the state finds all of it; without a watcher there is none."""
    assert read_state(world.run_dir) is None
    watcher = world.watching()
    done = threading.Event()
    errors = []

    def read():
        while not done.is_set():
            try:
                read_state(world.run_dir)
            except ValueError as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        watcher.state.pending["1" * 64] = Pending("web", "x" * 1000, number)
        watcher._changed = True
        watcher._write_state()
    done.set()
    reader.join()
    assert errors == []
    assert read_state(world.run_dir).pending["1" * 64] == watcher.state.pending["1" * 64]
    assert json.loads((world.run_dir / "watcher.json").read_text())["pid"] == watcher.state.pid
