"""One container's life on the weave network: attached, detached, and what is left over removed.

Every verb may be called again, by any process: the request that starts a
container, the watcher, the command line. What must not happen at the same time
for one container happens under its lock; different containers never wait for
each other.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from pathlib import Path

from weavemw.attaching import allocation
from weavemw.attaching.added_names import Added, AddedNames
from weavemw.attaching.decision import Lease, NamesFor
from weavemw.attaching.detached import Detached
from weavemw.attaching.hostnames import Naming, folded, is_derived
from weavemw.attaching.locks import Busy, Locks
from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container
from weavemw.errors import Conflict, DockerError, DockerUnreachable, NetworkError, RouterBusy, RouterError, WeaveError
from weavemw.network import hostname, hosts, resolv
from weavemw.network.addresses import Interface, Wanted
from weavemw.network.condition import Fault, faults, is_broken
from weavemw.network.plan import WEAVE_DNS, HostInterface, Namespace, Network, Plan, ProcessEnded, orphans
from weavemw.ops.tally import ALLOCATE, ALLOCATE_FAILURES, ATTACH, ATTACH_FAILURES, Tally
from weavemw.router.client import Router

__all__ = ["Attachment", "NotRunning", "Swept", "is_container_id"]

_log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
_INCARNATIONS = 3


class NotRunning(Conflict):
    """The container (its name or id) has no process that could be attached."""

    code = "container_not_running"

    def __init__(self, container: str, message: str = "") -> None:
        super().__init__(message or f"container {container} is not running")
        self.container = container


@dataclass(frozen=True, slots=True)
class Swept:
    """How many orphans were removed."""

    interfaces: int = 0
    names: int = 0
    addresses: int = 0


class Attachment:
    """Attaches containers of one daemon to one network, with a router's addresses and names.

    ``run_dir`` is for locks, ``state_dir`` (by default the same) for names given by hand; they are the same for all
    processes of a host. ``tally`` counts. ``naming`` is how hostnames come from names. ``with_dns`` is as for
    :class:`~weavemw.middleware.dns.DnsInjector`.
    """

    def __init__(self, *, docker: Docker, router: Router, network: Network, run_dir: Path,
                 rewrite_hosts: bool = True, multicast_route: bool = True, tally: Tally | None = None,
                 state_dir: Path | None = None, naming: Naming | None = None,
                 with_dns: bool | None = None) -> None:
        self.docker = docker
        self.router = router
        self.network = network
        self.rewrite_hosts = rewrite_hosts
        self.multicast_route = multicast_route
        self.tally = tally or Tally()
        self.naming = naming or Naming()
        self.with_dns = with_dns
        self.added = AddedNames(Path(state_dir or run_dir) / "names")
        self.detached = Detached(Path(state_dir or run_dir) / "detached")
        self._locks = Locks(Path(run_dir) / "locks")
        self._swept_names: set[str] = set()

    def lock(self, container_id: str, timeout: float = 30.0) -> AbstractContextManager[None]:
        """The container's lock, by its full id; again within the same thread is fine.

        Raises :class:`~weavemw.attaching.locks.Busy` after ``timeout`` seconds.
        """
        return self._locks.hold(container_id, timeout)

    def allocate(self, container: Container, wanted: Iterable[Wanted], *, timeout: float = 30.0,
                 client_gone: Callable[[], bool] = allocation.still_there) -> Lease:
        """Addresses for the container; see :func:`weavemw.attaching.allocation.allocate`."""
        with self.tally.failing(ALLOCATE_FAILURES, WeaveError), self.tally.timing(ALLOCATE):
            return allocation.allocate(self.router, container, wanted, timeout=timeout, client_gone=client_gone,
                                       never_ran=self.never_ran, take_over=self.take_over)

    def take_over(self, owner: str, address: Interface) -> bool:
        """Take an address from a container that doesn't run, for another that claims it; whether that was possible.

        While somebody starts or ends the owner it raises :class:`~weavemw.errors.RouterBusy`.
        """
        if not is_container_id(owner):
            return False
        try:
            with self.lock(owner, timeout=0):
                return self._take_from_ended(owner, address)
        except Busy as error:
            busy = f"address {address.ip} is held by {owner}, which is being started or stopped"
            raise RouterBusy(busy) from error

    def give_back(self, container_id: str, addresses: Iterable[Interface]) -> None:
        """Give back addresses of a start that failed."""
        allocation.give_back(self.router, container_id, addresses)

    def attach(self, container_id: str, addresses: Sequence[Interface], names: Iterable[str] = ()) -> bool:
        """Let the running container have ``ethwe`` with exactly these addresses, and these names resolve to them.

        If any of it fails, none of it stays. A container that is attached already
        keeps its interface; then the answer is ``False``. Raises
        :class:`NotRunning` and other :class:`~weavemw.errors.WeaveError`.
        """
        known = tuple(names)
        with self.lock(container_id):
            return self.attach_held(container_id, addresses, lambda _: known)

    def attach_held(self, container_id: str, addresses: Sequence[Interface], names_for: NamesFor,
                    seen: Container | None = None) -> bool:
        """:meth:`attach` for who holds the container's lock, with the names of the container that is attached.

        ``seen`` is how it was a moment ago: if it still is, that need not be asked.
        """
        with self.tally.failing(ATTACH_FAILURES, WeaveError, NotRunning), \
                self._namespace(container_id, seen) as (container, namespace):
            resolver = self._resolver(container)
            names, plan = tuple(names_for(container)), self._plan(container, addresses, resolver)
            found = namespace.condition(container.id)
            wrong = faults(found, plan)
            if found.ethwe is None or is_broken(wrong):
                self._attach(container, namespace, plan, names, resolver)
                return True
            if set(found.ethwe.addresses) != set(addresses):
                self.network.guard(container.id, addresses)
                namespace.readdress(addresses)
            if wrong:
                namespace.complete(plan)
            self._route_answers(container, namespace)
            self._name(container, addresses, names, resolver, running=True)
            return False

    def faults(self, container: Container, addresses: Sequence[Interface] = ()) -> tuple[Fault, ...]:
        """What is wrong with a container's interface, which is to have at least these addresses; none if nothing is.

        So it is if there is nothing to look into.
        """
        try:
            with self.network.namespace(container.pid, container.sandbox_key) as namespace:
                return faults(namespace.condition(container.id), self._plan_now(container, addresses))
        except NetworkError as error:
            return (Fault(error.message, True),)

    def complete(self, container: Container, addresses: Sequence[Interface]) -> None:
        """Give a container's interface what it lacks, and leave what it has. May raise NetworkError."""
        with self.lock(container.id), self.network.namespace(container.pid, container.sandbox_key) as namespace:
            namespace.complete(self._plan_now(container, addresses))

    def reclaim(self, container: Container) -> tuple[Interface, ...]:
        """What the container holds at the router; if that has lost it all, what it has on its interface, held again.

        Raises :class:`~weavemw.errors.RouterError` if another has got it meanwhile.
        """
        if held := self.router.addresses(container.id):
            return held
        for address in self._inside(container):
            self.router.claim(container.id, address)
            _log.info("container %s (%s) holds %s again, which the router had lost", container.short_id,
                      container.name, address)
        return self.router.addresses(container.id)

    def _inside(self, container: Container) -> tuple[Interface, ...]:
        with contextlib.suppress(NetworkError), \
                self.network.namespace(container.pid, container.sandbox_key) as namespace:
            found = namespace.condition(container.id)
            return found.ethwe.addresses if found.ethwe and found.outside else ()
        return ()

    def never_ran(self, container: Container) -> bool:
        """Whether it has never run, by now; one that Docker can't be asked about may have."""
        if allocation.has_run(container):
            return False
        try:
            now = self._existing(container.id)
        except (DockerError, DockerUnreachable):
            return False
        return now is None or not allocation.has_run(now)

    def may_run(self, container_id: str) -> bool:
        """Whether it has a process; one that Docker can't be asked about may have."""
        try:
            return self._is_alive(container_id)
        except (DockerError, DockerUnreachable):
            return True

    def is_attached(self, container: Container) -> bool:
        """Whether its interface is there, up and on the bridge; not so if there is nothing to look into."""
        return not is_broken(self.faults(container))

    def rename(self, container_id: str, addresses: Iterable[Interface], names: Iterable[str]) -> None:
        """Let the addresses have these names, those given by hand, and no others; what stays is never away."""
        with self.lock(container_id), self._namespace(container_id, None) as (container, namespace):
            self._route_answers(container, namespace)
            wanted = self._name(container, tuple(addresses), names, self._resolver(container), running=True)
            for address, fqdn in self.registered(container_id) - {(one.ip, folded(name)) for one, name in wanted}:
                self.router.deregister(container_id, ip_interface(address), fqdn)

    def mend_resolver(self, container: Container) -> None:
        """Let a running container's resolv.conf name our server, if somebody in it left none there."""
        if resolver := self._resolver(container):
            resolv.rewrite(container, resolver, running=True)

    def registered(self, container_id: str) -> set[tuple[Address, str]]:
        """What the container resolves by now: addresses, and names without their final dot, in small letters."""
        return {(ip_address(str(row["Addr"])), folded(str(row["Hostname"]))) for row in self.router.names()
                if row["ContainerID"] == container_id and not row.get("Tombstone")}

    def keep_names(self, container_id: str, names: Sequence[Added]) -> None:
        """From the next start on, register these names as well, as long as the container exists. May raise OSError."""
        with self.lock(container_id):
            self.added.add(container_id, names)

    def keep_names_no_more(self, container_id: str, fqdn: str = "", address: Interface | None = None) -> None:
        """Forget those that match. May raise OSError."""
        with self.lock(container_id):
            self.added.remove(container_id, fqdn, address)

    def names_by_hand(self, container_id: str) -> tuple[str, ...]:
        """The names that were given to the container by hand."""
        return tuple(one.fqdn for one in self._added(container_id))

    def restore_names(self, container_id: str) -> None:
        """Register what was given by hand to a running container that is not attached."""
        for one in self._added(container_id):
            self._register(container_id, [(address, one.fqdn) for address in one.at(())])

    def detach(self, container_id: str) -> bool:
        """Take the container off the network: first its interface, then its names; the addresses stay its own.

        ``False`` if it had no interface.
        """
        with self.lock(container_id):
            if removed := self.network.detach(container_id):
                self._leave_no_trace(container_id)
            self.router.deregister(container_id)
        return removed

    def release(self, container_id: str) -> None:
        """Detach a container that is gone, and give back its addresses: nothing answers to them any more."""
        with self.lock(container_id):
            self.detach(container_id)
            self.router.release(container_id)
            self.added.forget(container_id)
            self.detached.forget(container_id)

    def keep_away(self, container: Container) -> None:
        """Release a container, and let it stay detached until it is started or attached again. May raise OSError."""
        with self.lock(container.id):
            self.release(container.id)
            self.detached.add(container)

    def sweep(self) -> Swept:
        """Remove interfaces and names of containers that don't run, and addresses of those that are gone.

        What doesn't belong to a container ("weave:expose") is never touched.
        """
        self._locks.tidy()
        self.guard_again()
        swept = Swept(names=self._sweep_names(), interfaces=self._sweep_interfaces(), addresses=self._sweep_addresses())
        if swept != Swept():
            _log.info("swept orphans: %d interfaces, %d names, addresses of %d containers", swept.interfaces,
                      swept.names, swept.addresses)
        return swept

    def guard_again(self) -> None:
        """Guard the interfaces that nothing guards any more (`nft flush ruleset`), or never did."""
        for interface in self.network.unguarded():
            if interface.container_id:  # else it is being attached, which guards it
                with self.lock(interface.container_id):
                    self.network.guard(interface.container_id, self.router.addresses(interface.container_id))

    # Attaching

    def _take_from_ended(self, owner: str, address: Interface) -> bool:
        container = self._existing(owner)
        if container and container.running:  # as it is between two runs of a restart policy
            return False
        self.router.deregister(owner, address)
        self.router.release(owner, address)
        name = container.name if container else "which is gone"
        _log.info("address %s is taken from container %s (%s), which does not run", address.ip, owner[:12], name)
        return True

    @contextlib.contextmanager
    def _namespace(self, container_id: str, seen: Container | None) -> Iterator[tuple[Container, Namespace]]:
        """The namespace of the container's process, which still is that after it was opened (pids are used again)."""
        for _ in range(_INCARNATIONS):
            container, seen = seen if seen and seen.is_alive else self._running(container_id), None
            with contextlib.ExitStack() as stack:
                namespace = self._open(container, stack)
                if namespace and self._is_still(container):
                    yield container, namespace
                    return
        raise NetworkError(f"container {container_id[:12]} is being restarted over and over")

    def _open(self, container: Container, stack: contextlib.ExitStack) -> Namespace | None:
        try:
            return stack.enter_context(self.network.namespace(container.pid, container.sandbox_key))
        except ProcessEnded as error:  # and the daemon has yet to notice
            if self._is_still(container):
                raise NotRunning(container.short_id) from error
            return None
        except NetworkError:
            if self._is_still(container):
                raise
            return None

    def _running(self, container_id: str) -> Container:
        container = self._existing(container_id)
        if container is None or not container.is_alive:
            raise NotRunning(container_id[:12])
        return container

    def _is_still(self, container: Container) -> bool:
        now = self._existing(container.id)
        return now is not None and (now.pid, now.started_at) == (container.pid, container.started_at)

    def _plan(self, container: Container, addresses: Sequence[Interface], resolver: resolv.Resolver | None) -> Plan:
        route = str(WEAVE_DNS.ip) in container.dns or bool(resolver and resolver.forwards)
        return Plan(container.id, tuple(addresses), self.multicast_route, route)

    def _plan_now(self, container: Container, addresses: Sequence[Interface]) -> Plan:
        """The same; where the router can't be asked for its DNS, without a way there."""
        with contextlib.suppress(RouterError):
            return self._plan(container, addresses, self._resolver(container))
        return self._plan(container, addresses, None)

    def _resolver(self, container: Container) -> resolv.Resolver | None:
        """The server that it is to ask, if that is for us to say, and there is one."""
        if self.with_dns is False or not container.is_ours:
            return None
        address = self.router.dns_address("weave")
        return resolv.Resolver(address, folded(self.router.domain())) if address else None

    def _attach(self, container: Container, namespace: Namespace, plan: Plan, names: Iterable[str],
                resolver: resolv.Resolver | None) -> None:
        with self.tally.timing(ATTACH):
            namespace.prepare(plan)
            try:
                self._route_answers(container, namespace)
                self._name(container, plan.addresses, names, resolver)
                self.detached.forget(container.id)
                namespace.commit()
            except BaseException:
                self._undo(container, namespace)
                raise
        addresses = " ".join(map(str, plan.addresses))
        _log.info("attached container %s (%s): %s", container.short_id, container.name, addresses)

    def _route_answers(self, container: Container, namespace: Namespace) -> None:
        what = f"container {container.short_id} answers by the weave network who asks it from there by Docker's"
        with _logged(what, NetworkError):
            namespace.route_answers()

    def _leave_no_trace(self, container_id: str) -> None:
        """In one that still runs, let routes and names be Docker's alone again."""
        what = f"something of the weave network stays in container {container_id[:12]}"
        with _logged(what, WeaveError), contextlib.suppress(NotRunning), \
                self._namespace(container_id, None) as (container, namespace):
            hosts.rewrite(container, (), ())
            resolv.restore(container)
            namespace.route_answers_no_more()

    def _undo(self, container: Container, namespace: Namespace) -> None:
        with _logged(f"the interface of container {container.short_id} stays", NetworkError):
            namespace.undo()
            namespace.route_answers_no_more()
        with _logged(f"names of container {container.short_id} stay", RouterError):
            self.router.deregister(container.id)

    def _name(self, container: Container, addresses: Sequence[Interface],
              names: Iterable[str], resolver: resolv.Resolver | None,
              *, running: bool = False) -> list[tuple[Interface, str]]:
        known = tuple(names)
        if resolver:
            container = self._with_hostname(container, resolver.domain)
            resolv.rewrite(container, resolver, running=running)
        if self.rewrite_hosts:
            hosts.rewrite(container, addresses, known)
        own = (Added(name) for name in known)
        wanted = [(address, one.fqdn) for one in (*own, *self._added(container.id)) for address in one.at(addresses)]
        self._register(container.id, wanted)
        return wanted

    def _with_hostname(self, container: Container, domain: str) -> Container:
        """The container with the hostname that it has from now on; Docker gave it another one."""
        if not is_derived(container, domain):
            return container
        name = self.naming.hostname_now(container, domain)
        with _logged(f"container {container.short_id} keeps its hostname", NetworkError):
            self.network.set_hostname(container.pid, name)
            hostname.rewrite(container, name)
        return replace(container, hostname=name)

    def _added(self, container_id: str) -> tuple[Added, ...]:
        """Names given by hand; where they can't be read, the container has its network all the same."""
        try:
            return self.added.of(container_id)
        except OSError as error:
            _log.warning("names that were given to container %s can't be read: %s", container_id[:12], error)
            return ()

    def _register(self, container_id: str, wanted: Iterable[tuple[Interface, str]]) -> None:
        for address, name in wanted:
            self.router.register(container_id, address, name)

    # Sweeping: what may be an orphan is listed first, who runs is asked after that,
    # and again under the lock, so that nothing made meanwhile is taken for an orphan.

    def _sweep_interfaces(self) -> int:
        found = self.network.interfaces()
        return sum(map(self._remove_interface, orphans(found, self.docker.container_ids())))

    def _remove_interface(self, orphan: HostInterface) -> bool:
        if not orphan.container_id:
            return self.network.delete(orphan.name)
        with self._orphaned(orphan.container_id) as orphaned:
            return orphaned and self.network.delete(orphan.name)

    def _sweep_names(self) -> int:
        named = {str(row["ContainerID"]) for row in self.router.names() if not row.get("Tombstone")}
        gone = {one for one in named if is_container_id(one)}.difference(self.docker.container_ids())
        foreign = gone & self._swept_names  # still there: names of another host's containers
        removed = set(filter(self._remove_names, gone - foreign))
        self._swept_names = foreign | removed
        return len(removed)

    def _remove_names(self, container_id: str) -> bool:
        with self._orphaned(container_id) as orphaned:
            if orphaned:
                self.router.deregister(container_id)
            return orphaned

    def _sweep_addresses(self) -> int:
        owners = {one for one in (*self.router.owned(), *self.added.owners()) if is_container_id(one)}
        gone = owners.difference(self.docker.container_ids(everything=True))
        return sum(map(self._release_what_is_gone, gone))

    def _release_what_is_gone(self, container_id: str) -> bool:
        try:
            with self.lock(container_id, timeout=0):
                self.release(container_id)
        except Busy:
            return False
        return True

    @contextlib.contextmanager
    def _orphaned(self, container_id: str) -> Iterator[bool]:
        """Under the container's lock: whether it really does not run. ``False`` if somebody is busy with it."""
        try:
            with self.lock(container_id, timeout=0):
                yield not self._is_alive(container_id)
        except Busy:
            yield False

    def _is_alive(self, container_id: str) -> bool:
        container = self._existing(container_id)
        return container is not None and container.is_alive

    def _existing(self, container_id: str) -> Container | None:
        try:
            return self.docker.inspect(container_id)
        except DockerError as error:
            if error.status != 404:
                raise
            return None


def is_container_id(owner: str) -> bool:
    """Whether an owner at the router is a container, and not one of the router's own ("weave:expose")."""
    return len(owner) == 64 and all(letter in "0123456789abcdef" for letter in owner)


@contextlib.contextmanager
def _logged(what: str, error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error as said:
        _log.warning("%s: %s", what, said)
