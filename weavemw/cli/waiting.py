"""The containers whose commands wait for the network, while a proxy that was just launched attaches them."""

from __future__ import annotations

import time
from pathlib import Path

from weavemw.cli.facts import attached_ids, held_back
from weavemw.cli.progress import progress
from weavemw.dockerapi.client import DockerClient
from weavemw.errors import DockerUnreachable
from weavemw.network.plan import Network
from weavemw.ops import run_file
from weavemw.ops.watcher_state import read_state

__all__ = ["Waiting"]

_LOOK_EVERY = 0.2  # seconds
_STALLED = 30.0  # seconds without any that was attached or tried


class Waiting:
    """Those that wait now; ``refused`` are, after :meth:`show`, the ids of those that are not attached yet."""

    def __init__(self, docker: DockerClient, network: Network, run_dir: Path) -> None:
        self._docker = docker
        self._network = network
        self._run_dir = run_dir
        self.refused: set[str] = set()

    def show(self) -> None:
        """Show how many were attached, until each was or could not be, or nothing happens any more."""
        first = self._waiting()
        if not first:
            return
        with progress("attaching containers", "attached containers:", len(first)) as tell:
            left, since = first, time.monotonic()
            while left and time.monotonic() - since < _STALLED:
                time.sleep(_LOOK_EVERY)
                waiting = first & self._waiting()
                now = waiting - self._tried()
                since = time.monotonic() if now != left else since
                left = now
                tell(len(first) - len(waiting))
        self.refused = first & self._waiting()

    def _waiting(self) -> set[str]:
        try:
            running = self._docker.get("/containers/json")
        except DockerUnreachable:  # it went away meanwhile; the status says so
            return set()
        attached = attached_ids(self._network.interfaces(), [row["Id"] for row in running])
        return set(held_back(running, attached))

    def _tried(self) -> set[str]:
        proxy, state = run_file.running(self._run_dir / run_file.PROXY) or {}, read_state(self._run_dir)
        is_of_this_proxy = state is not None and state.since >= proxy.get("started", 0)
        return set(state.pending) if state and is_of_this_proxy else set()
