"""Stand-ins for Docker, the router and the kernel, for tests of middlewares and of what is built with them.

They behave, they don't record expectations: a :class:`FakeDocker` starts and
stops containers and tells its listeners, a :class:`FakeRouter` hands out
addresses, a :class:`RecordingNetwork` attaches. To make one fail, put an error
into its ``failures`` under the name of the method::

    docker.failures["inspect"] = DockerUnreachable("gone")
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any

from weavemw.dockerapi.container import Container, DockerNetwork
from weavemw.dockerapi.wait_mount import PLACES, bind_of
from weavemw.errors import DockerError, NetworkError, RouterBusy, RouterError
from weavemw.network.addresses import Wanted
from weavemw.network.plan import WEAVE_DNS, Change, Condition, Ethwe, HostInterface, Plan, host_names
from weavemw.router.client import Interface

__all__ = ["FakeDocker", "FakeRouter", "RecordingNetwork", "await_true"]

_ZERO_TIME = "0001-01-01T00:00:00Z"


class _Fake:
    """``calls``: each call as (method, arguments…); ``failures``: errors to raise, by method."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failures: dict[str, Exception] = {}
        self._lock = threading.RLock()

    def _called(self, method: str, *arguments: Any) -> None:
        with self._lock:
            self.calls.append((method, *arguments))
            failure = self.failures.get(method)
        if failure is not None:
            raise failure

    def called(self, method: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of this method so far."""
        with self._lock:
            return [tuple(rest) for name, *rest in self.calls if name == method]


class FakeDocker(_Fake):
    """:class:`~weavemw.dockerapi.client.Docker` with containers in memory, which the test creates, starts and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.containers: dict[str, Container] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, str] = {"bridge": "bridge", "none": "null", "host": "host"}
        self.subnets: dict[str, tuple[str, ...]] = {"bridge": ("172.17.0.0/16",)}
        self.history: list[Mapping[str, Any]] = []
        self.exits: dict[str, list[int]] = {}
        self._listeners: list[queue.SimpleQueue[Mapping[str, Any] | None]] = []
        self._pids = itertools.count(1001)

    # What a test does to it

    def create(self, container_id: str = "", **fields: Any) -> Container:
        """A container of ours that has never run; ``fields`` are those of Container."""
        number = len(self.containers) + 1
        made = Container(id=container_id or f"{number:x}".rjust(4, "c").ljust(64, "0"), started_at=_ZERO_TIME)
        wrapped = {"entrypoint": (PLACES[0],), "binds": (bind_of("/var/lib/weavemw/wait/0123456789ab", PLACES[0]),)}
        made = dataclasses.replace(made, **{"name": f"container{number}", **wrapped, **fields})
        self.containers[made.id] = made
        self._emit("create", made)
        return made

    def start(self, container_id: str) -> Container:
        """It runs, as a new process."""
        pid = next(self._pids)
        return self._change("start", container_id, running=True, pid=pid, started_at=f"started as {pid}")

    def run(self, container_id: str = "", **fields: Any) -> Container:
        """Create and start."""
        return self.start(self.create(container_id, **fields).id)

    def die(self, container_id: str, status: int = 0) -> None:
        """It stops running, and goes if it has AutoRemove."""
        self.exits.setdefault(container_id, []).append(status)
        dead = self._change("die", container_id, running=False, paused=False, pid=0)
        if dead.auto_remove:
            self.destroy(container_id)

    def destroy(self, container_id: str) -> None:
        """It is gone."""
        self._emit("destroy", self.containers.pop(container_id))

    def rename(self, container_id: str, name: str) -> None:
        """It has another name."""
        self._change("rename", container_id, name=name)

    def connect(self, container_id: str, *aliases: str) -> None:
        """It is on a further network, with these aliases."""
        before = self.containers[container_id]
        self.containers[container_id] = dataclasses.replace(before, aliases=(*before.aliases, *aliases))
        self._tell({"Type": "network", "Action": "connect", "Actor": {"ID": "0" * 64, "Attributes": {
            "container": container_id, "name": "shop", "type": "bridge"}}})

    def emit(self, action: str, container_id: str) -> None:
        """Tell listeners of something that changes nothing here ("unpause", "exec_create: sh", …)."""
        self._emit(action, self.containers[container_id])

    def create_network(self, name: str, *subnets: str) -> None:
        """Make a network with the driver "bridge"; its name is its id."""
        self.networks[name], self.subnets[name] = "bridge", subnets
        self._tell({"Type": "network", "Action": "create", "Actor": {"ID": name, "Attributes": {"name": name}}})

    def remove_network(self, name: str) -> None:
        """Remove it."""
        del self.networks[name], self.subnets[name]
        self._tell({"Type": "network", "Action": "destroy", "Actor": {"ID": name, "Attributes": {"name": name}}})

    def disconnect(self) -> None:
        """The daemon goes away: every stream of events ends."""
        with self._lock:
            for listener in self._listeners:
                listener.put(None)

    def await_listeners(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until so many streams of events are open."""
        await_true(lambda: len(self._listeners) >= count, timeout)

    # What the code under test asks

    def inspect(self, container: str) -> Container:
        self._called("inspect", container)
        for one in list(self.containers.values()):
            if container in (one.id, one.name) or (len(container) >= 12 and one.id.startswith(container)):
                return one
        raise DockerError(404, f"No such container: {container}")

    def image_config(self, image: str) -> dict[str, Any]:
        self._called("image_config", image)
        if image not in self.images:
            raise DockerError(404, f"No such image: {image}")
        return dict(self.images[image])

    def network_driver(self, network: str) -> str:
        self._called("network_driver", network)
        if network not in self.networks:
            raise DockerError(404, f"network {network} not found")
        return self.networks[network]

    def bridge_subnets(self) -> tuple[str, ...]:
        self._called("bridge_subnets")
        return tuple(subnet for subnets in self.subnets.values() for subnet in subnets)

    def all_networks(self) -> tuple[DockerNetwork, ...]:
        self._called("all_networks")
        return tuple(DockerNetwork(name, name, self.subnets.get(name, ())) for name in list(self.networks))

    def container_ids(self, *, everything: bool = False) -> tuple[str, ...]:
        self._called("container_ids", everything)
        return tuple(one.id for one in list(self.containers.values()) if everything or one.running)

    def ping(self) -> None:
        self._called("ping")

    def kill(self, container: str) -> None:
        self._called("kill", container)
        if container in self.containers and self.containers[container].running:
            self.die(container)

    def stop(self, container: str, grace: int) -> None:
        self._called("stop", container, grace)
        if container in self.containers and self.containers[container].running:
            self.die(container, 143)

    def exit_statuses(self, container: str, since: float) -> tuple[int, ...]:
        self._called("exit_statuses", container, since)
        return tuple(self.exits.get(container, ()))

    def remove(self, container: str) -> None:
        self._called("remove", container)
        if container in self.containers:
            self.kill(container)
        if container in self.containers:
            self.destroy(container)

    def events(self, since: float | None = None) -> Iterator[Mapping[str, Any]]:
        self._called("events", since)
        listener: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            earlier = [event for event in self.history if since is not None and event["timeNano"] >= since * 1e9]
            self._listeners.append(listener)
        return self._stream(earlier, listener)

    def _stream(self, earlier: Iterable[Mapping[str, Any]],
                listener: queue.SimpleQueue[Mapping[str, Any] | None]) -> Iterator[Mapping[str, Any]]:
        try:
            yield from earlier
            yield from iter(listener.get, None)
        finally:
            self._listeners.remove(listener)

    def _change(self, action: str, container_id: str, **fields: Any) -> Container:
        with self._lock:
            changed = dataclasses.replace(self.containers[container_id], **fields)
            self.containers[container_id] = changed
        self._emit(action, changed)
        return changed

    def _emit(self, action: str, container: Container) -> None:
        self._tell({"Type": "container", "Action": action,
                    "Actor": {"ID": container.id, "Attributes": {"name": container.name}}})

    def _tell(self, event: dict[str, Any]) -> None:
        now = time.time_ns()
        event |= {"time": now // 10**9, "timeNano": now}
        with self._lock:
            self.history.append(event)
            for listener in self._listeners:
                listener.put(event)


class FakeRouter(_Fake):
    """:class:`~weavemw.router.client.Router` in memory: the lowest free address, as the real one gives it.

    While ``ready`` is cleared, an allocation is not answered in time: a router whose peers have not agreed.
    """

    def __init__(self, default_subnet: str = "10.32.0.0/24", *, subnet6: str = "", domain: str = "weave.local.",
                 dns_address: str | None = "172.17.0.1") -> None:
        super().__init__()
        self.subnet, self.subnet6 = default_subnet, subnet6
        self.owners: dict[str, tuple[Interface, ...]] = {}
        self.objections: dict[str, str] = {}
        self.records: set[tuple[str, Interface, str]] = set()
        self.ready = threading.Event()
        self.ready.set()
        self._domain, self._dns_address = domain, dns_address
        self.dns_address_on: dict[str, str] = {}

    def allocate(self, container_id: str, subnet: str = "") -> Interface:
        self._called("allocate", container_id, subnet)
        self._await_peers()
        with self._lock:
            network = ip_network(subnet or self.subnet)
            held = [one for one in self.addresses(container_id) if one.ip in network]
            return held[0] if held else self._hold(container_id, self._free(network))

    def claim(self, container_id: str, address: Interface) -> None:
        self._called("claim", container_id, address)
        self._await_peers()
        with self._lock:
            for owner, held in self.owners.items():
                if owner != container_id and address.ip in [one.ip for one in held]:
                    raise RouterError(f"Unable to claim: address {address} is already owned by {owner}")
            self._hold(container_id, address)

    def objection(self, wanted: Wanted) -> str:
        self._called("objection", wanted)
        return self.objections.get(str(wanted), "")

    def default_subnet(self) -> str:
        self._called("default_subnet")
        return self.subnet

    def default_subnet6(self) -> str:
        self._called("default_subnet6")
        return self.subnet6

    def addresses(self, container_id: str) -> tuple[Interface, ...]:
        self._called("addresses", container_id)
        return self.owners.get(container_id, ())

    def owned(self) -> Mapping[str, tuple[Interface, ...]]:
        self._called("owned")
        with self._lock:
            return dict(self.owners)

    def release(self, container_id: str, address: Interface | None = None) -> None:
        self._called("release", container_id, address)
        with self._lock:
            left = tuple(one for one in self.owners.pop(container_id, ()) if address is not None and one != address)
            self.owners.update({container_id: left} if left else {})

    def register(self, container_id: str, address: Interface, fqdn: str) -> None:
        self._called("register", container_id, address, fqdn)
        with self._lock:
            self.records.add((container_id, address, fqdn))

    def deregister(self, container_id: str, address: Interface | None = None, fqdn: str = "") -> None:
        self._called("deregister", container_id, *([address, fqdn] if address or fqdn else []))
        with self._lock:
            self.records = {record for record in self.records if record[0] != container_id
                            or (address and record[1].ip != address.ip) or fqdn not in ("", record[2])}

    def names(self) -> tuple[Mapping[str, object], ...]:
        self._called("names")
        with self._lock:
            return tuple({"ContainerID": owner, "Origin": "here", "Addr": str(address.ip), "Hostname": fqdn,
                          "Version": 0, "Tombstone": 0} for owner, address, fqdn in sorted(self.records))

    def domain(self) -> str:
        self._called("domain")
        return self._domain

    def dns_address(self, network: str = "") -> str | None:
        self._called("dns_address", *([network] if network else []))
        return self.dns_address_on.get(network, self._dns_address)

    def _await_peers(self) -> None:
        if not self.ready.wait(0.01):
            raise RouterBusy("the weave router at 127.0.0.1:6784 did not answer in time")

    def _free(self, network: IPv4Network | IPv6Network) -> Interface:
        taken = {one.ip for held in self.owners.values() for one in held}
        for host in network.hosts():
            if host not in taken:
                return ip_interface(f"{host}/{network.prefixlen}")
        raise RouterError(f"no free addresses in {network}")

    def _hold(self, container_id: str, address: Interface) -> Interface:
        held = self.owners.get(container_id, ())
        self.owners[container_id] = held if address in held else (*held, address)
        return address


class RecordingNetwork(_Fake):
    """:class:`~weavemw.network.plan.Network` in memory.

    ``inside`` is what each process's namespace has for an ``ethwe``, ``outside``
    the host interfaces; ``steps`` what was done, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside: dict[int, Ethwe] = {}
        self.outside: dict[str, HostInterface] = {}
        self.ways: dict[int, frozenset[IPv4Network | IPv6Network]] = {}
        self.has_bridge = True
        self.happened: queue.SimpleQueue[Change] = queue.SimpleQueue()
        self.before_commit: Callable[[Plan], None] = lambda plan: None

    @property
    def steps(self) -> list[str]:
        """Names of the calls so far."""
        return [name for name, *_ in self.calls]

    @contextlib.contextmanager
    def namespace(self, pid: int, sandbox: str = "") -> Iterator[RecordingNamespace]:
        self._called("namespace", pid, sandbox)
        if pid <= 0:
            raise NetworkError(f"can't open the network namespace of process {pid}: No such process")
        yield RecordingNamespace(self, pid)

    def set_hostname(self, pid: int, hostname: str) -> None:
        self._called("set_hostname", pid, hostname)

    def detach(self, container_id: str) -> bool:
        self._called("detach", container_id)
        return any([self._remove(name) for name in host_names(container_id)])  # noqa: C419  # all of them

    def interfaces(self) -> tuple[HostInterface, ...]:
        self._called("interfaces")
        with self._lock:
            return tuple(self.outside.values())

    def guard(self, container_id: str, addresses: Iterable[Interface]) -> None:
        self._called("guard", container_id, tuple(addresses))

    def unguarded(self) -> tuple[HostInterface, ...]:
        self._called("unguarded")
        return ()

    def delete(self, host_interface: str) -> bool:
        self._called("delete", host_interface)
        return self._remove(host_interface)

    def keep_bridge(self) -> bool:
        self._called("keep_bridge")
        made, self.has_bridge = not self.has_bridge, True
        return made

    @contextlib.contextmanager
    def changes(self) -> Iterator[Iterator[Change | None]]:
        yield self._changes()

    def _changes(self) -> Iterator[Change | None]:
        while True:
            try:
                yield self.happened.get(timeout=0.02)
            except queue.Empty:
                yield None

    def _remove(self, name: str) -> bool:
        with self._lock:
            return self.outside.pop(name, None) is not None


class RecordingNamespace:
    """:class:`~weavemw.network.plan.Namespace` of a :class:`RecordingNetwork`."""

    def __init__(self, network: RecordingNetwork, pid: int) -> None:
        self._network, self._pid = network, pid
        self._plan: Plan | None = None
        self._name = ""

    def ethwe(self) -> Ethwe | None:
        return self._network.inside.get(self._pid)

    def prepare(self, plan: Plan) -> str:
        self._network._called("prepare", self._pid, plan)
        self._plan, self._name = plan, host_names(plan.container_id)[0]
        self._network.outside[self._name] = HostInterface(self._name)
        self._network.inside[self._pid] = Ethwe(plan.mac, False, plan.addresses)
        return self._name

    def commit(self) -> None:
        if self._plan is None:
            raise NetworkError("nothing was prepared")
        self._network.before_commit(self._plan)
        self._network._called("commit", self._pid)
        self._network.outside[self._name] = HostInterface(self._name, self._plan.container_id)
        self._network.inside[self._pid] = Ethwe(self._plan.mac, True, self._plan.addresses)
        self._network.ways[self._pid] = _ways(self._plan)

    def condition(self, container_id: str) -> Condition:
        ends = (self._network.outside.get(name) for name in host_names(container_id))
        outside = next((end for end in ends if end and end.container_id == container_id), None)
        return Condition(self.ethwe(), self._network.ways.get(self._pid, frozenset()), outside)

    def complete(self, plan: Plan) -> None:
        self._network._called("complete", self._pid, plan)
        before = self._network.inside[self._pid]
        addresses = tuple(dict.fromkeys((*before.addresses, *plan.addresses)))
        self._network.inside[self._pid] = dataclasses.replace(before, addresses=addresses)
        self._network.ways[self._pid] = _ways(plan)

    def readdress(self, addresses: Iterable[Interface]) -> None:
        wanted = tuple(addresses)
        self._network._called("readdress", self._pid, wanted)
        self._network.inside[self._pid] = dataclasses.replace(self._network.inside[self._pid], addresses=wanted)

    def route_answers(self) -> None:
        self._network._called("route_answers", self._pid)

    def route_answers_no_more(self) -> None:
        self._network._called("route_answers_no_more", self._pid)

    def undo(self) -> None:
        self._network._called("undo", self._pid)
        self._network._remove(self._name)
        self._network.inside.pop(self._pid, None)


def _ways(plan: Plan) -> frozenset[IPv4Network | IPv6Network]:
    ways = ((plan.multicast_route, ip_network("224.0.0.0/4")), (plan.dns_route, WEAVE_DNS.network))
    return frozenset(network for on, network in ways if on)


def await_true(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Wait until a condition holds; raises :class:`TimeoutError` if it doesn't in ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not come true")
        time.sleep(0.005)
