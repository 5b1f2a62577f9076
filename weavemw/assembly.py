"""From settings to the parts that act on them: what proxy, watcher and command line have in common.

Making them touches neither Docker nor the network. What is large is imported when it is made: a command often wants
but a client.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weavemw.attaching import hostnames
from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.container import Container
from weavemw.dockerapi.hosts import Unix
from weavemw.ops.tally import DIRECTORY, SharedTally, Tally
from weavemw.router.client import Router, RouterClient
from weavemw.settings import Settings
from weavemw.transport.http_client import HttpClient

if TYPE_CHECKING:
    from weavemw.attaching.attachment import Attachment
    from weavemw.attaching.watcher import Watcher

__all__ = ["attachment", "docker", "names_for", "naming", "router", "tally", "watcher"]


def docker(settings: Settings) -> DockerClient:
    """The engine itself, never through the proxy."""
    return DockerClient(HttpClient(Unix(settings.docker_socket)))


def router(settings: Settings) -> RouterClient:
    """The router, ours or a real Weave Net router."""
    return RouterClient(settings.router_at)


@functools.cache
def tally(run_dir: Path) -> Tally:
    """Where this process counts, the same for all its parts; a file is only made when there is something to count."""
    return SharedTally(run_dir / DIRECTORY)


def attachment(settings: Settings, tally: Tally | None = None) -> Attachment:
    """What attaches and detaches containers on this host."""
    from weavemw.attaching.attachment import Attachment
    from weavemw.network.netlink import NetlinkNetwork

    return Attachment(docker=docker(settings), router=router(settings),
                      network=NetlinkNetwork(settings.bridge, settings.mtu, allow_spoofing=settings.allow_spoofing),
                      run_dir=settings.run_dir,
                      rewrite_hosts=settings.rewrite_hosts, multicast_route=settings.multicast_route,
                      tally=tally, state_dir=settings.state_dir, naming=naming(settings),
                      with_dns=settings.with_dns)


def watcher(settings: Settings, tally: Tally | None = None) -> Watcher:
    """What attaches containers that Docker starts by itself."""
    from weavemw.attaching.watcher import Watcher

    return Watcher(docker=docker(settings), attachment=attachment(settings, tally),
                   names_for=names_for(settings, router(settings)), run_dir=settings.run_dir,
                   default_ipalloc=settings.default_ipalloc)


def naming(settings: Settings) -> hostnames.Naming:
    """How hostnames come from names."""
    return hostnames.Naming(settings.hostname_from_label, settings.hostname_match, settings.hostname_replacement)


def names_for(settings: Settings, router: Router) -> Callable[[Container], tuple[str, ...]]:
    """The names under which a container is to be found, in the router's domain; none without DNS."""

    def names(container: Container) -> tuple[str, ...]:
        if settings.with_dns is False or not router.dns_address():
            return ()
        return hostnames.names_for(container, router.domain(), naming(settings))

    return names
