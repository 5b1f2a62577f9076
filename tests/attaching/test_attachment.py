from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from pathlib import Path

import pytest

from weavemw.attaching.added_names import Added
from weavemw.attaching.attachment import Attachment, NotRunning, Swept
from weavemw.attaching.locks import Busy
from weavemw.errors import DockerUnreachable, NetworkError, RouterBusy, RouterError, RouterUnreachable
from weavemw.network.addresses import parse
from weavemw.network.plan import Ethwe, HostInterface, ProcessEnded, host_names, mac_for
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork

A, B = ip_interface("10.32.0.1/24"), ip_interface("10.32.0.2/24")


class World:
    def __init__(self, run_dir):
        self.docker, self.router, self.network = FakeDocker(), FakeRouter(), RecordingNetwork()
        self.attachment = Attachment(docker=self.docker, router=self.router, network=self.network, run_dir=run_dir)

    @property
    def nothing_left(self):
        return (self.network.inside, self.network.outside, self.router.records) == ({}, {}, set())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_attached_means_interface_and_names(world):
    """An attached container has its interface, and its names resolve to each of its addresses."""
    container = world.docker.run()
    assert world.attachment.attach(container.id, (A, B), ("web.weave.local",))
    assert world.network.inside == {container.pid: Ethwe(mac_for(container.id), True, (A, B))}
    assert world.router.records == {(container.id, A, "web.weave.local"), (container.id, B, "web.weave.local")}
    assert world.attachment.is_attached(container)


@pytest.mark.parametrize(("dns", "route"), [((), False), (("172.17.0.1", "1.1.1.1"), False),
                                            (("169.254.53.1", "1.1.1.1"), True)])
def test_who_was_given_the_server_on_the_bridge_reaches_it(world, dns, route):
    """A container whose resolver is weaveDNS on the weave bridge gets a route there, and no other one does."""
    container = world.docker.run(dns=dns)
    plans = []
    world.network.before_commit = plans.append
    world.attachment.attach(container.id, (A,))
    assert [plan.dns_route for plan in plans] == [route]


NOT_OURS = {"entrypoint": (), "binds": ()}
OURS = {"entrypoint": ("/dev/w",), "binds": ("/wait/0123456789ab/./w:/dev/w:ro",)}


def files(tmp_path, container_id):
    """A container's files as Docker writes them, as fields of the container."""
    directory = tmp_path / "containers" / container_id
    directory.mkdir(parents=True)
    for name, text in (("resolv.conf", "nameserver 192.0.2.1\n"), ("hostname", "dddddddddddd\n"), ("hosts", "")):
        (directory / name).write_text(text)
    return {"resolv_conf_path": str(directory / "resolv.conf"), "hostname_path": str(directory / "hostname"),
            "hosts_path": str(directory / "hosts")}


@pytest.mark.parametrize(("server", "route"), [("169.254.53.1", True), ("172.17.0.1", False)])
def test_resolver_and_hostname_are_there_before_the_command_begins(world, tmp_path, server, route):
    """Whatever server there is, it is the first, and is reached; the name is the hostname."""
    container = world.docker.run("d" * 64, name="web", hostname="d" * 12, **OURS, **files(tmp_path, "d" * 64))
    world.router.dns_address_on["weave"] = server
    seen = []
    world.network.before_commit = lambda plan: seen.append((
        plan.dns_route, Path(container.resolv_conf_path).read_text(), Path(container.hostname_path).read_text()))
    world.attachment.attach(container.id, (A,), ("web.weave.local",))
    ((routed, resolv_conf, hostname),) = seen
    assert (routed, hostname) == (route, "web\n")
    assert resolv_conf.splitlines()[1] == f"nameserver {server}"
    assert world.network.called("set_hostname") == [(container.pid, "web")]
    assert Path(container.hosts_path).read_text() == "10.32.0.1\tweb.weave.local web\t# weave\n"


def test_what_runs_gets_the_way_to_the_server(world, tmp_path):
    """One that an earlier version attached has no route to it yet."""
    container = world.docker.run("d" * 64, name="web", **OURS, **files(tmp_path, "d" * 64))
    world.attachment.attach(container.id, (A,))
    world.router.dns_address_on["weave"] = "169.254.53.1"
    Path(container.resolv_conf_path).write_text("")
    assert not world.attachment.attach(container.id, (A,))
    assert [plan.dns_route for _, plan in world.network.called("complete")] == [True]
    assert "nameserver 169.254.53.1" in Path(container.resolv_conf_path).read_text()


def test_a_file_without_a_server_is_put_right(world, tmp_path):
    """Whoever in the container emptied it."""
    container = world.docker.run("d" * 64, name="web", **OURS, **files(tmp_path, "d" * 64))
    world.attachment.attach(container.id, (A,))
    before = Path(container.resolv_conf_path).read_text()
    Path(container.resolv_conf_path).write_text("")
    world.attachment.mend_resolver(container)
    assert Path(container.resolv_conf_path).read_text().splitlines()[:2] == before.splitlines()[:2]


@pytest.mark.parametrize("off", ["router", "proxy", "not ours"])
def test_without_dns_the_files_are_dockers(world, tmp_path, off):
    """Where there is no weaveDNS, it is turned off, or the container is not ours."""
    world.attachment.with_dns = False if off == "proxy" else None
    world.router._dns_address = None if off == "router" else world.router._dns_address
    container = world.docker.run("d" * 64, name="web", hostname="d" * 12, **(OURS if off != "not ours" else NOT_OURS),
                                 **files(tmp_path, "d" * 64))
    world.attachment.attach(container.id, (A,), ("web.weave.local",))
    assert Path(container.resolv_conf_path).read_text() == "nameserver 192.0.2.1\n"
    assert Path(container.hostname_path).read_text() == "dddddddddddd\n"
    assert not world.network.called("set_hostname")


def test_the_commit_comes_last(world, tmp_path):
    """When the command is let go, /etc/hosts is written and the names are registered."""
    path = tmp_path / "containers" / ("d" * 64) / "hosts"
    path.parent.mkdir(parents=True)
    path.write_text("127.0.0.1\tlocalhost\n")
    container = world.docker.run("d" * 64, hosts_path=str(path))
    seen = []
    world.network.before_commit = lambda plan: seen.append((path.read_text(), len(world.router.records)))
    world.attachment.attach(container.id, (A,), ("web.weave.local",))
    assert seen == [("10.32.0.1\tweb.weave.local web\t# weave\n127.0.0.1\tlocalhost\n", 1)]


def test_the_log_says_what_was_attached(world, caplog):
    """One line with id, name and addresses, whoever asked for it; nothing when it was attached already."""
    caplog.set_level("INFO")
    container = world.docker.run()
    for _ in range(2):
        world.attachment.attach(container.id, (A, B))
    assert [record.getMessage() for record in caplog.records] == [
        f"attached container {container.short_id} ({container.name}): 10.32.0.1/24 10.32.0.2/24"]


def test_attached_already_changes_nothing(world):
    """Again is no error and no new interface; lost names come back."""
    container = world.docker.run()
    world.attachment.attach(container.id, (A,), ("web",))
    world.router.records.clear()
    assert not world.attachment.attach(container.id, (A,), ("web",))
    assert world.network.steps.count("prepare") == 1
    assert world.router.records == {(container.id, A, "web")}


def test_other_addresses_are_changed_in_place(world):
    """An attached container that is to have other addresses gets them, without losing its interface."""
    container = world.docker.run()
    world.attachment.attach(container.id, (A,))
    world.attachment.attach(container.id, (A, B))
    assert world.network.inside[container.pid].addresses == (A, B)
    assert world.network.steps.count("prepare") == 1


@pytest.mark.parametrize(("where", "method", "error"), [
    ("network", "namespace", NetworkError("no")),
    ("network", "prepare", NetworkError("no")),
    ("router", "register", RouterError("no")),
    ("network", "commit", NetworkError("no")),
    ("network", "commit", KeyboardInterrupt()),
    ("docker", "inspect", DockerUnreachable("no")),
])
def test_what_fails_leaves_nothing(world, where, method, error):
    """Whatever fails, no interface and no name stays, and the lock is free."""
    container = world.docker.run()
    getattr(world, where).failures[method] = error
    with pytest.raises(type(error)):
        world.attachment.attach(container.id, (A,), ("web",))
    assert world.nothing_left
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: world.attachment.lock(container.id, 0).__enter__()).exception() is None


def test_failure_while_undoing_hides_nothing(world, caplog):
    """If the names can't be removed either, the first reason is what is raised, the second is logged."""
    container = world.docker.run()
    world.router.failures["register"] = RouterError("first")
    world.router.failures["deregister"] = RouterUnreachable("second")
    with pytest.raises(RouterError, match="first"):
        world.attachment.attach(container.id, (A,), ("web",))
    assert "second" in caplog.text
    assert world.network.outside == {}


def test_failure_of_the_undoing_itself_hides_nothing(world, caplog):
    """If the interface can't be removed either, the first reason is what is raised, and the names go all the same."""
    container = world.docker.run()
    world.network.failures.update(commit=NetworkError("first"), undo=NetworkError("second"))
    with pytest.raises(NetworkError, match="first"):
        world.attachment.attach(container.id, (A,), ("web",))
    assert "stays: second" in caplog.text
    assert world.router.records == set()


def test_names_that_can_not_be_read_hinder_no_attach(world, caplog):
    """The container has its network, and its own name."""
    container = world.docker.run()
    (world.attachment.added.directory / container.id).mkdir(parents=True)
    world.attachment.attach(container.id, (A,), ("web",))
    assert world.router.records == {(container.id, A, "web")}
    assert "can't be read" in caplog.text


def test_container_that_is_gone_is_not_running(world):
    """One that was removed before it could be attached is no error of Docker's."""
    container = world.docker.run()
    world.docker.containers.clear()
    with pytest.raises(NotRunning, match="is not running"):
        world.attachment.attach(container.id, (A,))


def test_container_whose_end_the_daemon_has_not_noticed_is_not_running(world):
    """A process that is gone is no failure of the network: its end will be told."""
    container = world.docker.run()
    world.network.failures["namespace"] = ProcessEnded("process 1001 has ended")
    with pytest.raises(NotRunning, match="is not running"):
        world.attachment.attach(container.id, (A,))


@pytest.mark.parametrize("fields", [{"running": False, "pid": 0}, {"running": True, "restarting": True, "pid": 0}])
def test_container_without_process_is_not_running(world, fields):
    """A container that has ended, or waits for its next restart, can't be attached."""
    container = world.docker.create()
    world.docker.containers[container.id] = dataclasses.replace(container, **fields)
    with pytest.raises(NotRunning, match="is not running"):
        world.attachment.attach(container.id, (A,))


def test_pid_that_is_used_again_is_noticed(world):
    """A container that was restarted between the look and the opening is attached as what it is now."""
    container = world.docker.run()
    original = world.network.namespace

    def restarting(pid, sandbox):
        if pid == container.pid:
            world.docker.die(container.id)
            world.docker.start(container.id)
        return original(pid)

    world.network.namespace = restarting
    world.attachment.attach(container.id, (A,))
    assert list(world.network.inside) == [world.docker.containers[container.id].pid] != [container.pid]


def test_what_was_seen_a_moment_ago_is_not_asked_again(world):
    """But the guard is; and one that was restarted since is attached as what it is now."""
    seen = world.docker.run()
    world.docker.calls.clear()
    assert world.attachment.attach_held(seen.id, (A,), lambda _: (), seen)
    assert len(world.docker.called("inspect")) == 1
    world.docker.die(seen.id)
    world.docker.start(seen.id)
    assert world.attachment.attach_held(seen.id, (A,), lambda _: (), seen)
    assert world.network.inside[world.docker.containers[seen.id].pid].attached


def test_container_that_ends_meanwhile_is_not_running(world):
    """A container whose process is gone when its namespace is opened is not running; that is no network error."""
    container = world.docker.run()

    def gone(pid, sandbox):
        world.docker.die(container.id)
        raise NetworkError("No such process")

    world.network.namespace = gone
    with pytest.raises(NotRunning):
        world.attachment.attach(container.id, (A,))


def test_container_that_is_restarted_over_and_over_is_given_up(world):
    """Looking again has an end."""
    container = world.docker.run()
    original = world.network.namespace

    def restarting(pid, sandbox):
        world.docker.die(container.id)
        world.docker.start(container.id)
        return original(pid)

    world.network.namespace = restarting
    with pytest.raises(NetworkError, match="over and over"):
        world.attachment.attach(container.id, (A,))
    assert world.nothing_left


def test_one_container_at_a_time(world):
    """What somebody else does with a container is waited for, and other containers are not concerned."""
    first, second = world.docker.run(), world.docker.run()
    with world.attachment.lock(first.id), ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(lambda: world.attachment.lock(first.id, 0).__enter__()).exception(), Busy)
        assert pool.submit(world.attachment.attach, second.id, (A,)).result(5)


def test_detached_is_without_interface_first_then_without_names(world):
    """The interface goes first, so that nothing answers under a name that still resolves; the address stays."""
    container = world.docker.run()
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,), ("web",))
    world.router.failures["deregister"] = RouterUnreachable("gone")
    with pytest.raises(RouterUnreachable):
        world.attachment.detach(container.id)
    assert world.network.outside == {}
    world.router.failures.clear()
    assert not world.attachment.detach(container.id)
    assert world.router.records == set()
    assert world.router.owners == {container.id: (A,)}


@pytest.mark.parametrize(("runs", "steps"), [(True, ["route_answers", "route_answers_no_more"]),
                                             (False, ["route_answers"])])
def test_detached_by_hand_leaves_no_rules_in_what_still_runs(world, runs, steps):
    """They are there before the command begins; where they can't be, the network is there all the same."""
    container = world.docker.run()
    world.attachment.attach(container.id, (A,))
    if not runs:
        world.docker.die(container.id)
    world.attachment.detach(container.id)
    assert [step for step in world.network.steps if step.startswith("route_answers")] == steps
    assert world.network.steps.index("route_answers") < world.network.steps.index("commit")


def test_a_kernel_without_rules_is_no_reason_to_refuse(world, caplog):
    """It is said, and the container is attached."""
    world.network.failures["route_answers"] = NetworkError("can't list the rules of routing")
    container = world.docker.run()
    assert world.attachment.attach(container.id, (A,))
    assert "answers by the weave network who asks it" in caplog.text


def test_routes_follow_dockers_networks(world):
    """When one was connected, for which the container is named anew, or when it is found attached."""
    container = world.docker.run()
    world.attachment.attach(container.id, (A,), ("web",))
    world.attachment.attach(container.id, (A,), ("web",))
    world.attachment.rename(container.id, (A,), ("web",))
    assert world.network.steps.count("route_answers") == 3


def test_released_is_without_anything(world):
    """A container that is gone has no interface, no name and no address."""
    container = world.docker.run()
    world.router.claim(container.id, A)
    world.attachment.attach(container.id, (A,), ("web",))
    world.attachment.release(container.id)
    assert (world.network.outside, world.router.records, world.router.owners) == ({}, set(), {})


def test_renamed_has_only_the_new_names(world):
    """After a rename the old name is gone and the new one there."""
    container = world.docker.run()
    world.attachment.attach(container.id, (A,), ("old",))
    world.attachment.rename(container.id, (A,), ("new",))
    assert world.router.records == {(container.id, A, "new")}


def test_a_hostname_of_ours_follows_the_name(world):
    """It is set before the command begins, and at a rename; the user's own is never touched."""
    bind = "/var/lib/weave/wait/0123456789ab/w:/dev/w:ro"
    for fields, expected in (({"domainname": "weave.local", "dns": ("172.17.0.1",)}, ["set_hostname"] * 2), ({}, [])):
        container = world.docker.run(name="new", hostname="old", entrypoint=("/dev/w",), binds=(bind,), **fields)
        world.network.calls.clear()
        world.attachment.attach(container.id, (A,), ("new",))
        world.attachment.rename(container.id, (A,), ("new",))
        steps = [call for call in world.network.calls if call[0] in ("set_hostname", "commit")]
        assert [name for name, *_ in steps if name != "commit"] == expected
        assert not expected or steps[0] == ("set_hostname", container.pid, "new")


def test_a_rename_never_takes_away_what_stays(world):
    """A name that the container keeps is never gone, not even for a moment."""
    container = world.docker.run()
    world.attachment.attach(container.id, (A,), ("old", "alias"))
    world.attachment.rename(container.id, (A,), ("new", "alias"))
    assert world.router.called("deregister") == [(container.id, ip_interface("10.32.0.1"), "old")]
    assert world.router.records == {(container.id, A, "new"), (container.id, A, "alias")}


def test_names_given_by_hand_come_with_each_start(world):
    """What dns-add gave is registered with the container's own names, until it is removed or the container is gone."""
    container = world.docker.run()
    world.attachment.keep_names(container.id, [Added("shop"), Added("till", B)])
    for _ in range(2):
        world.attachment.attach(container.id, (A,), ("web",))
        assert world.router.records == {(container.id, A, "web"), (container.id, A, "shop"), (container.id, B, "till")}
        world.attachment.detach(container.id)
        assert world.router.records == set()
    world.attachment.keep_names_no_more(container.id, "shop")
    world.attachment.attach(container.id, (A,), ("web",))
    assert world.router.records == {(container.id, A, "web"), (container.id, B, "till")}
    world.attachment.rename(container.id, (A,), ("www",))
    assert world.router.records == {(container.id, A, "www"), (container.id, B, "till")}
    world.docker.destroy(container.id)
    world.attachment.sweep()
    assert world.attachment.added.owners() == set()


@pytest.fixture
def swept(world):
    """One that runs, one that has ended, one that is gone; and the router's own."""
    runs, ended, gone = world.docker.run("1" * 64), world.docker.run("2" * 64), world.docker.run("3" * 64)
    for container in (runs, ended, gone):
        world.router.allocate(container.id)
        world.attachment.attach(container.id, world.router.owners[container.id], (f"name-{container.id[0]}",))
    world.router.claim("weave:expose", ip_interface("10.32.0.200/24"))
    world.router.register("weave:extern", ip_interface("10.32.0.201/24"), "printer")
    world.docker.die(ended.id)
    world.docker.die(gone.id)
    world.docker.destroy(gone.id)
    return world


def test_sweep_removes_what_belongs_to_nobody(swept):
    """Interfaces and names of what doesn't run go, addresses only of what is gone; the rest is not touched."""
    assert swept.attachment.sweep() == Swept(interfaces=2, names=2, addresses=1)
    assert list(swept.network.outside) == [host_names("1" * 64)[0]]
    assert {row[0] for row in swept.router.records} == {"1" * 64, "weave:extern"}
    assert set(swept.router.owners) == {"1" * 64, "2" * 64, "weave:expose"}
    assert swept.attachment.sweep() == Swept()


def test_sweep_removes_what_was_never_committed(world):
    """What a process that died left half made goes, unless its container runs: that may be being made just now."""
    running = world.docker.run("1" * 64)
    for container_id in (running.id, "9" * 64):
        name = host_names(container_id)[0]
        world.network.outside[name] = HostInterface(name)
    assert world.attachment.sweep() == Swept(interfaces=1)
    assert list(world.network.outside) == [host_names(running.id)[0]]


def test_sweep_leaves_what_somebody_is_busy_with(swept):
    """What somebody holds the lock of is left for the next time."""
    with ThreadPoolExecutor(1) as pool, swept.attachment.lock("2" * 64):
        assert pool.submit(swept.attachment.sweep).result(5) == Swept(interfaces=1, names=1, addresses=1)
    assert swept.attachment.sweep() == Swept(interfaces=1, names=1)


def test_sweep_does_not_wait_for_who_is_busy_with_what_is_gone(swept):
    """Its addresses go with the next sweep; those of others at once."""
    swept.router.claim("8" * 64, ip_interface("10.32.0.8/24"))
    with ThreadPoolExecutor(1) as pool, swept.attachment.lock("3" * 64):
        assert pool.submit(swept.attachment.sweep).result(5).addresses == 1
    assert swept.attachment.sweep().addresses == 1


def test_sweep_leaves_what_started_meanwhile(swept):
    """A container that has started since the list of running ones was made is looked at again, and left."""
    lists = swept.docker.container_ids

    def late(*, everything=False):
        found = lists(everything=everything)
        if not swept.docker.containers["2" * 64].running:
            swept.docker.start("2" * 64)
        return found

    swept.docker.container_ids = late
    assert swept.attachment.sweep() == Swept(interfaces=1, names=1, addresses=1)


def test_sweep_leaves_names_of_other_hosts(world):
    """Names that are still there after they were removed are another host's: they are not counted for ever."""
    foreign = ("f" * 64, A, "elsewhere")
    world.router.records.add(foreign)
    world.router.deregister = lambda container_id: None
    assert [world.attachment.sweep().names for _ in range(3)] == [1, 0, 0]


def claimed(world, container, timeout=1.0):
    return world.attachment.allocate(container, parse("10.32.0.1/24"), timeout=timeout).addresses


@pytest.mark.parametrize("end", ["die", "destroy"])
def test_a_claim_takes_the_address_of_one_that_ended(world, end):
    """The living wins, with its name; the other has it back when that one has ended in turn."""
    first, second = world.docker.run(), world.docker.create()
    world.attachment.attach(first.id, claimed(world, first), ("first",))
    getattr(world.docker, end)(first.id)
    assert claimed(world, second) == (A,)
    assert world.router.owners == {second.id: (A,)}
    assert world.router.records == set()
    if end == "die":
        assert claimed(world, first) == (A,)
        assert world.router.owners == {first.id: (A,)}


@pytest.mark.parametrize("owner", ["running", "between two runs", "weave:expose"])
def test_a_claim_takes_nothing_from_who_needs_it(world, owner):
    """One that runs, or is about to run again by its restart policy, and what is no container, keep their address."""
    holder = owner if owner == "weave:expose" else world.docker.run().id
    if owner == "between two runs":
        world.docker.containers[holder] = dataclasses.replace(world.docker.containers[holder], pid=0, restarting=True)
    world.router.claim(holder, A)
    with pytest.raises(RouterError, match="already owned"):
        claimed(world, world.docker.create())
    assert world.router.owners == {holder: (A,)}


def test_a_claim_takes_nothing_from_one_that_is_being_started(world):
    """Whoever starts the owner holds its lock: exactly one of both gets the address."""
    first, second = world.docker.create(), world.docker.create()
    with ThreadPoolExecutor(1) as pool:
        with world.attachment.lock(first.id):
            claimed(world, first)
            with pytest.raises(RouterBusy, match=f"held by {first.id}, which is being started"):
                pool.submit(claimed, world, second, 0).result()
            waits = pool.submit(claimed, world, second, 20)
            world.docker.start(first.id)
        with pytest.raises(RouterError, match="already owned"):
            waits.result()
    assert world.router.owners == {first.id: (A,)}


def test_an_automatic_address_stays_with_one_that_ended(world):
    """As long as nobody claims it, others are given others."""
    first, second = world.docker.run(), world.docker.create()
    kept = world.attachment.allocate(first, parse(""), timeout=1).addresses
    world.docker.die(first.id)
    assert world.attachment.allocate(second, parse(""), timeout=1).addresses != kept
    assert world.attachment.allocate(first, parse(""), timeout=1).addresses == kept
