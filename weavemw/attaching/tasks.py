"""What the watcher has to do: values that are equal if they are the same task. As text: as a log names it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Compare", "Death", "Inside", "Look", "Networks", "Ping", "Settle", "Sweep", "Task"]


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


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare what is with what should be, as far as that is seen of all containers at once."""

    def __str__(self) -> str:
        return "comparing interfaces, addresses and names with what they should be"


@dataclass(frozen=True, slots=True)
class Inside:
    """Compare the container whose network namespace has this number here."""

    namespace: int

    def __str__(self) -> str:
        return f"looking into network namespace {self.namespace}"


@dataclass(frozen=True, slots=True)
class Ping:
    """Hear whether the daemon still answers: its stream of events would be silent, too."""

    def __str__(self) -> str:
        return "asking Docker whether it answers"


Task = Settle | Death | Look | Networks | Sweep | Compare | Inside | Ping
