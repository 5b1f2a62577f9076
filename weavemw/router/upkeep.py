"""What the router keeps as it should be on its host, whatever others do to it: bridge, firewall, a watcher."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from weavemw.errors import NetworkError, WeaveError
from weavemw.network import bridge
from weavemw.network.addresses import Interface
from weavemw.network.messages import IFF_UP
from weavemw.network.netlink import NetlinkNetwork, NetlinkSocket
from weavemw.ops import health, run_file
from weavemw.router.host_dns import HostDns
from weavemw.router.service import DnsFacts
from weavemw.router.settings import RouterSettings
from weavemw.settings import Settings

__all__ = ["Exposed", "keep_watcher", "of_dns", "problems", "watcher_environ"]

log = logging.getLogger(__name__)

_LOOK_AGAIN = 1.0  # seconds between two looks whether a proxy runs
_AFTER_DEATH = 5.0  # seconds until a watcher that ended is started again


class Exposed:
    """The host's own addresses on the network: those that the bridge had once, it has until they are given back."""

    def __init__(self, settings: RouterSettings) -> None:
        self._name = settings.bridge
        self._network = NetlinkNetwork(settings.bridge, settings.mtu)
        self._seen: set[Interface] = set()

    def keep(self, held: Iterable[Interface]) -> None:
        """Make the bridge if it is gone, let it be up, and have what was on it. What fails is logged."""
        try:
            if self._network.keep_bridge():
                log.warning("the bridge %s was gone, or down: it is there again", self._name)
            found = bridge.look(self._name)
            there = set(found.addresses if found else ())
            self._seen = {one for one in held if one in self._seen or one in there}
            for address in self._seen - there:
                bridge.add_address(self._name, address)
                log.warning("the bridge %s has its address %s again", self._name, address)
        except NetworkError as error:
            log.warning("%s", error)


def problems(settings: RouterSettings, dns: HostDns) -> list[str]:
    """What is wrong with the router's host: its state directory, the bridge, DNS. Reads, and tries to write."""
    found = [health.of_directory(settings.state_dir)]
    if settings.bridge:
        found.append(_of_bridge(settings.bridge))
    if settings.dns:
        found += of_dns(dns.facts(), settings.resolv_conf)
    return [problem for problem in found if problem]


def of_dns(facts: DnsFacts, resolv_conf: Path) -> list[str]:
    """What is wrong with weaveDNS. Pure."""
    nowhere = ["weaveDNS listens nowhere: there is neither Docker's bridge nor ours, or their port is taken"]
    nobody = [f"weaveDNS has no resolver to ask: {resolv_conf} names none but weaveDNS; --upstream names one"]
    return [*(nowhere if not facts.listening else ()), *(nobody if not facts.upstream else ())]


def _of_bridge(name: str) -> str:
    try:
        with NetlinkSocket() as host:
            link = host.link(name)
    except NetworkError as error:
        return error.message
    if link is None or link.kind != "bridge":
        return f"the bridge {name} is gone"
    return "" if link.flags & IFF_UP else f"the bridge {name} is down"


async def keep_watcher(settings: RouterSettings) -> None:
    """Let a process watch the containers while no proxy runs, whose own watcher does. Until it is cancelled."""
    child: asyncio.subprocess.Process | None = None
    missed = 0
    try:
        while True:
            missed = 0 if _proxy_runs(settings.run_dir) else missed + 1
            if child and child.returncode is not None:
                child = None
                await asyncio.sleep(_AFTER_DEATH)
            elif child and not missed:
                await _end(child)
                child = None
            elif child is None and missed > 1:  # else a proxy is being started anew
                child = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", "weavemw.watch",
                                                             env=watcher_environ(settings, dict(os.environ)))
            await asyncio.sleep(_LOOK_AGAIN)
    except OSError as error:
        log.error("nobody watches containers while no proxy runs: %s", error)
    finally:
        if child:
            await _end(child)


def watcher_environ(settings: RouterSettings, environ: dict[str, str]) -> dict[str, str]:
    """The environment of the watcher's process: the settings that it shares with the router."""
    shared = Settings(docker_host=settings.docker_host, router_address=settings.http_address,
                      state_dir=settings.state_dir, run_dir=settings.run_dir, bridge=settings.bridge,
                      docker_bridge=settings.docker_bridge, mtu=settings.mtu, log_level=settings.log_level)
    return environ | shared.to_environ()


def _proxy_runs(run_dir: Path) -> bool:
    try:
        return run_file.running(run_dir / run_file.PROXY) is not None
    except WeaveError as error:
        log.warning("%s", error)
        return False


async def _end(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    await child.wait()
