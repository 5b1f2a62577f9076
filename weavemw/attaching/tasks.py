"""What the watcher has to do: values that are equal if they are the same task. As text: as a log names it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Death", "Look", "Networks", "Settle", "Sweep", "Task"]


@dataclass(frozen=True, slots=True)
class Settle:
    """Look at one container, and make everything of it as it should be."""

    container_id: str

    def __str__(self) -> str:
        return f"container {self.container_id[:12]}"


@dataclass(frozen=True, slots=True)
class Death:
    """Let a container that died not resolve; that may be done while a look at it waits for Docker."""

    container_id: str

    def __str__(self) -> str:
        return f"removing the names of container {self.container_id[:12]}"


@dataclass(frozen=True, slots=True)
class Look:
    """Find all containers that must be looked at."""

    def __str__(self) -> str:
        return "looking at all containers"


@dataclass(frozen=True, slots=True)
class Networks:
    """Find networks of Docker's that are in the way of ours."""

    def __str__(self) -> str:
        return "looking at Docker's networks"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Remove what belongs to no container."""

    def __str__(self) -> str:
        return "removing orphans"


Task = Settle | Death | Look | Networks | Sweep
