"""Random life on a real engine: whatever is done to containers, and whoever is killed meanwhile, all ends as promised.

``python -m pytest tests/engine/test_state_machine.py --state-machine-minutes 30`` goes on for that long.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from host import TestHost
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

SLOTS = range(10)
COMMAND = ("sh", "-c", "ip link show ethwe | grep -q LOWER_UP || echo no network; exec sleep 99999")


@dataclass(frozen=True)
class Row:
    """What a container is created with, and what it is to have: addresses or subnets, with "#" for its own number."""

    options: tuple[str, ...]
    promised: tuple[str, ...]

    def fits(self, number: int, addresses: list[str]) -> bool:
        wanted = [each.replace("#", str(number + 1)) for each in self.promised]
        return len(addresses) == len(wanted) and all(
            any(have == want or ip_interface(have).network == ip_network(want, strict=False) for have in addresses)
            for want in wanted)


ROWS = {
    "default": Row((), ("10.32.0.0/12",)),
    "always": Row(("--restart=always",), ("10.32.0.0/12",)),
    "address": Row(("-e", "WEAVE_CIDR=10.40.0.#/24"), ("10.40.0.#/24",)),
    "outside": Row(("-e", "WEAVE_CIDR=192.0.2.#/24", "--restart=always"), ("192.0.2.#/24",)),
    "subnet": Row(("-e", "WEAVE_CIDR=net:10.33.0.0/24"), ("10.33.0.0/24",)),
    "several": Row(("-e", "WEAVE_CIDR=10.41.0.#/24 net:default", "--net=none"), ("10.41.0.#/24", "10.32.0.0/12")),
    "compose": Row(("--net=shop",), ("10.32.0.0/12",)),
    "none": Row(("-e", "WEAVE_CIDR=none", "--restart=always"), ()),
    "host": Row(("--net=host",), ()),
}


@dataclass
class Known:
    """What the test knows of a container that it made."""

    number: int
    row: Row
    addresses: list[str] = field(default_factory=list)  # those that it had when it was first seen running


class World:
    """The host, and what it is like now."""

    def __init__(self, host: TestHost, live_restore: bool) -> None:
        self.host, self.live_restore = host, live_restore
        self.weave = Launched(host, "--start-timeout", "20")
        host.docker("network", "create", "shop")
        self.before = self.weave.left()
        self.steps: list[str] = []

    def inspect(self) -> dict[str, dict[str, Any]]:
        """Every container but ours, by id."""
        ids = self.host.docker("ps", "-aq", "--no-trunc").stdout.split()
        shown = json.loads(self.host.docker("inspect", *ids).stdout) if ids else []
        return {each["Id"]: each for each in shown if each["Name"] not in ("/weave", "/weaveproxy")}

    def ethwe(self, pid: int) -> list[str]:
        """The addresses on a process's ethwe, if that is up and has carrier."""
        done = self.host.run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-json", "address", "show", "ethwe",
                             check=False)
        shown = json.loads(done.stdout or "[{}]")[0]
        assert not shown or shown["operstate"] == "UP"
        return [f"{one['local']}/{one['prefixlen']}" for one in shown.get("addr_info", ()) if one["scope"] == "global"]

    def pid(self, name: str) -> int:
        return int(self.host.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)

    def workers(self) -> list[int]:
        pid = self.pid("weaveproxy")
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    # Faults

    def kill_workers(self) -> None:
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)

    def kill_one_worker(self) -> None:
        os.kill(self.workers()[0], signal.SIGKILL)

    def kill_router(self) -> None:
        os.kill(self.pid("weave"), signal.SIGKILL)

    def kill_master(self) -> None:
        os.kill(self.pid("weaveproxy"), signal.SIGKILL)

    def kill_dockerd(self) -> None:
        self.host.kill_dockerd()
        self.host.start_dockerd()

    def stop_dockerd(self) -> None:
        self.host.restart_dockerd()

    # What must hold once things have settled

    def wrong(self, known: dict[str, Known]) -> str:
        """What is not as it should be; empty if all is well."""
        containers = self.inspect()
        attached = {container_id: self.ethwe(shown["State"]["Pid"]) for container_id, shown in containers.items()
                    if is_running(shown) and shown["HostConfig"]["NetworkMode"] != "host"}
        return (self._service() or self._networks(known, containers, attached)
                or self._router(known, containers, attached))

    def _service(self) -> str:
        done = self.weave.weave("healthcheck", check=False)
        return str(done.stderr)

    def _networks(self, known: dict[str, Known], containers: dict[str, Any], attached: dict[str, list[str]]) -> str:
        for container_id, addresses in attached.items():
            one = known[container_id]
            if not one.row.fits(one.number, addresses):
                return f"{container_id[:12]} has {addresses}, not {one.row.promised}"
            one.addresses = one.addresses or addresses
            if sorted(one.addresses) != sorted(addresses):
                return f"{container_id[:12]} had {one.addresses}, has {addresses}"
        veths = len(self.weave.veths())
        wanted = sum(map(bool, attached.values()))
        waiting = [container_id[:12] for container_id, shown in containers.items() if shown["State"]["Restarting"]]
        return f"{veths} veths for {wanted} containers" if veths != wanted else " ".join(waiting)

    def _router(self, known: dict[str, Known], containers: dict[str, Any], attached: dict[str, list[str]]) -> str:
        held = {owner: addresses for owner, addresses in self.weave.held().items() if len(owner) == 64}
        everything = [address.partition("/")[0] for addresses in held.values() for address in addresses]
        if len(everything) != len(set(everything)):
            return f"an address twice: {held}"
        if left := set(held) - {container_id for container_id in containers if known[container_id].row.promised}:
            return f"addresses are held for {left}"
        for container_id, addresses in attached.items():
            if sorted(held.get(container_id, [])) != sorted(addresses):
                return f"{container_id[:12]} holds {held.get(container_id)}, has {addresses}"
        return self._names(containers, attached)

    def _names(self, containers: dict[str, Any], attached: dict[str, list[str]]) -> str:
        fqdn = {container_id: f"{shown['Name'].lstrip('/')}.weave.local." for container_id, shown in containers.items()}
        wanted = {(fqdn[container_id], address.partition("/")[0])
                  for container_id, have in attached.items() for address in have}
        return "" if self.weave.names() == wanted else f"names are {self.weave.names()}, not {wanted}"


def is_running(shown: dict[str, Any]) -> bool:
    return bool(shown["State"]["Running"] and shown["State"]["Pid"])


FAULTS = ["kill_workers", "kill_one_worker", "kill_router", "kill_master", "kill_dockerd", "stop_dockerd"]
ACTS: dict[str, tuple[str, ...]] = {
    "start": ("start",), "stop": ("stop", "-t0"), "kill": ("kill",), "restart": ("restart", "-t0"),
    "rm": ("rm", "-f"), "pause": ("pause",), "unpause": ("unpause",)}
slots, acts, faults = st.sampled_from(SLOTS), st.sampled_from(sorted(ACTS)), st.sampled_from(FAULTS)
ways, names = st.sampled_from(["through us", "past us"]), st.sampled_from(sorted(ROWS))


class Life(RuleBasedStateMachine):
    """Ten containers, each in a slot of its own."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.ids: dict[int, str] = {}

    def settle(self, step: str) -> None:
        began = time.monotonic()
        found = ["it could not be seen"]

        def is_well() -> bool:
            found[0] = self.world.wrong(self.known)
            return not found[0]

        well = eventually(is_well, within=100)
        self.world.steps.append(f"{step} ({time.monotonic() - began:.1f} s)")
        print(self.world.steps[-1], flush=True)
        assert well, (found[0], self.world.steps[-40:])

    @initialize(several=st.dictionaries(slots, names, min_size=4))
    def begin(self, several: dict[int, str]) -> None:
        """Some containers are there from the beginning."""
        for slot, name in several.items():
            self._run(slot, name)
        self.settle(f"run {several}")

    @rule(slot=slots, name=names)
    def run(self, slot: int, name: str) -> None:
        """``docker run``, in place of what was there."""
        if slot in self.ids:
            self.world.host.docker("rm", "-f", self.ids.pop(slot))
            self.settle(f"rm {slot}")
        self._run(slot, name)
        self.settle(f"run {name} in {slot}")

    def _run(self, slot: int, name: str) -> None:
        row = ROWS[name]
        options = [option.replace("#", str(slot + 1)) for option in row.options]
        container_id = self.world.weave.docker("create", *options, "busybox", *COMMAND).stdout.strip()
        self.ids[slot], self.known[container_id] = container_id, Known(slot, row)
        self.world.weave.docker("start", container_id)
        shown = self.world.inspect()[container_id]
        assert name == "host" or row.fits(slot, self.world.ethwe(shown["State"]["Pid"])), "start returned too early"

    @rule(slot=slots, act=acts, way=ways)
    def act(self, slot: int, act: str, way: str) -> None:
        """One thing is done to one container, and works if it works in Docker."""
        if slot in self.ids:
            state = self.world.inspect()[self.ids[slot]]["State"]
            done = self._docker(way, act, self.ids[slot])
            must_work = act in ("start", "restart", "rm", "stop") and not state["Paused"]
            assert not (must_work and done.returncode), (act, done.stderr, self.world.steps[-20:])
            self._forget(slot, act)
            self.settle(f"{act} {slot} {way}: {done.stderr}")

    @rule(slot=slots)
    def die(self, slot: int) -> None:
        """A container's first process is killed by somebody."""
        if slot in self.ids and (pid := self.world.pid(self.ids[slot])):
            os.kill(pid, signal.SIGKILL)
            self.settle(f"die {slot}")

    @rule(slot=slots)
    def rename(self, slot: int) -> None:
        """It resolves by its new name, and nothing else changes."""
        if slot in self.ids:
            self.world.weave.docker("rename", self.ids[slot], f"new-{slot}-{time.monotonic_ns()}")
            self.settle(f"rename {slot}")

    @rule(fault=faults)
    def fault(self, fault: str) -> None:
        """One of the programs is killed."""
        getattr(self.world, fault)()
        self.settle(fault)

    @rule(several=st.lists(st.tuples(slots, acts, ways), min_size=1, max_size=4, unique_by=lambda one: one[0]),
          fault=faults, after=st.floats(0, 0.6))
    def amid(self, several: list[tuple[int, str, str]], fault: str, after: float) -> None:
        """Several things are done at once, and a program is killed meanwhile: they may fail, all else must hold."""
        these = [one for one in several if one[0] in self.ids]
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(self._docker, way, act, self.ids[slot]) for slot, act, way in these]
            time.sleep(after)
            getattr(self.world, fault)()
            done = [each.result() for each in running]
        self._forget_gone()
        self.settle(f"{fault} after {after:.3f} amid {these}: {[each.stderr for each in done]}")

    def _docker(self, way: str, act: str, container: str) -> Any:
        docker = self.world.weave.docker if way == "through us" else self.world.host.docker
        return docker(*ACTS[act], container, check=False, timeout=90)

    def _forget(self, slot: int, act: str) -> None:
        if act == "rm":
            del self.ids[slot]

    def _forget_gone(self) -> None:
        there = self.world.inspect()
        self.ids = {slot: container_id for slot, container_id in self.ids.items() if container_id in there}

    def teardown(self) -> None:
        """No command began before its network was there, and nothing is left."""
        for container_id in self.ids.values():
            attached = self.known[container_id].row.promised
            assert not attached or self.world.host.docker("logs", container_id).stdout == "", self.known[container_id]
        for container_id in self.world.inspect():
            self.world.host.docker("rm", "-f", container_id)
        assert eventually(lambda: self.world.weave.left() == self.world.before), self.world.weave.left()


@pytest.fixture
def minutes(pytestconfig: pytest.Config) -> float:
    return float(pytestconfig.getoption("state_machine_minutes"))


@pytest.fixture
def clock(minutes: float) -> Callable[[], bool]:
    """Whether the time is over."""
    until = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() >= until


@pytest.mark.timeout(0)
@pytest.mark.parametrize("live_restore", [False, True], ids=["", "live-restore"])
def test_life(make_host: Callable[..., TestHost], clock: Callable[[], bool], minutes: float,
              live_restore: bool) -> None:
    """No address twice, none leaked, no orphan, and each running container attached as its row says."""
    Life.world = World(make_host(live_restore=live_restore), live_restore)
    steps, examples = (40, 4) if minutes else (8, 2)
    settings = hypothesis.settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
                                   phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    while True:
        run_state_machine_as_test(Life, settings=settings)
        if clock():
            break
    print(len(Life.world.steps), "steps")
