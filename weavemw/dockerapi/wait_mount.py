"""Where the wait program stands in a container, and how one that was made with it is told from all others. Pure.

It is mounted as a single file below ``/dev``, which is a tmpfs of each container's own: so it leaves nothing in
``docker diff``, ``export`` or ``commit``, and is in no image's way. Where the user mounts something there (``-v
/dev:/dev`` would make an empty file in the host's ``/dev``), it takes the place of ``/.dockerenv``, an empty file
that Docker makes in every container.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weavemw.errors import BadRequest

__all__ = ["FORMER", "PATHS", "PLACES", "bind_of", "free_place", "is_named", "path_in", "program_of", "spelled",
           "starts_with_it", "with_name", "with_program", "without_program"]

#: The program's paths in a container, the first that is free being taken. No image can have a program of its own there.
PLACES = ("/dev/w", "/.dockerenv")

#: Its path in containers that earlier versions made, which mounted its directory.
FORMER = "/w/w"

#: All paths that it can have.
PATHS = (*PLACES, FORMER)

#: As :func:`weavemw.wait.install` names the directory. Which state directory it is in does not count: it may have been
#: another when the container was made, and whoever can mount the host's directories needs no trick to be root there.
_BIND = (r"/(?:.*/)?wait/[0-9a-f]{12}(?:(?P<named>/\.)?/w:(?P<place>/dev/w|/\.dockerenv)|:/w)"
         r":ro(?:,rprivate)?")

#: Modes that mean the same to Docker. The second one tells that ``Binds`` was an empty list, and not null.
_MODE, _MODE_FOR_EMPTY = "ro", "ro,rprivate"


def bind_of(directory: str, place: str, mode: str = _MODE) -> str:
    """The entry in a HostConfig's ``Binds`` that mounts the program from its directory on the host."""
    return f"{directory}:{posixpath.dirname(FORMER)}:{mode}" if place == FORMER else f"{directory}/w:{place}:{mode}"


def with_program(binds: Sequence[str] | None, directory: str, place: str) -> list[str]:
    """A HostConfig's ``Binds`` and the program, such that :func:`without_program` can tell what they were."""
    return [*(binds or ()), bind_of(directory, place, _MODE_FOR_EMPTY if binds == [] else _MODE)]


def without_program(binds: Sequence[str] | None) -> list[str] | None:
    """A HostConfig's ``Binds`` as they were asked for: clients copy them from inspect."""
    kept = [bind for bind in binds or () if not program_of(bind)]
    was_null = not binds or binds[-1].endswith(f":{_MODE}")
    return None if binds is None or (binds and not kept and was_null) else kept


def with_name(binds: Sequence[str]) -> list[str]:
    """The same ``Binds``, such that :func:`is_named` is true of them: Docker keeps how a path is spelled."""
    return [bind.replace("/w:", "/./w:", 1) if program_of(bind) in PLACES and not is_named([bind]) else bind
            for bind in binds]


def is_named(binds: Sequence[str]) -> bool:
    """Whether who created the container gave it a name, and no hostname."""
    return any(match and match["named"] for match in (re.fullmatch(_BIND, bind) for bind in binds))


def spelled(place: str, entrypoint: Sequence[str] | None) -> str:
    """The program's path as the word before an entrypoint: ``/dev/./w`` for an empty list, ``/dev/w`` for null."""
    return posixpath.join(posixpath.dirname(place), ".", posixpath.basename(place)) if entrypoint == [] else place


def path_in(word: str) -> str:
    """The path of :data:`PATHS` that is meant by a word of a command, empty if it is another one."""
    path = posixpath.normpath(word)
    return path if path in PATHS else ""


def program_of(bind: str) -> str:
    """The path in the container at which a bind mounts the wait program, of this or another version; empty if none.

    Only a read-only mount from a directory of ours counts. An image can't bring one along.
    """
    match = re.fullmatch(_BIND, bind)
    return (match["place"] or FORMER) if match else ""


def starts_with_it(row: Mapping[str, Any]) -> bool:
    """Whether a container was made with the wait program, seen from its row in ``GET /containers/json``."""
    program = path_in(str(row.get("Command") or "").partition(" ")[0])
    return any(program == program_of(f"{mount.get('Source')}:{mount.get('Destination')}:{mount.get('Mode')}")
               for mount in row.get("Mounts") or ()) if program else False


def free_place(targets: Iterable[str]) -> str:
    """The first of :data:`PLACES` that none of these mounts would hide or touch, given by their paths in the container.

    Raises :class:`~weavemw.errors.BadRequest` if there is none.
    """
    paths = {posixpath.normpath("/" + target.lstrip("/")) for target in targets} - {"/"}  # which the daemon refuses
    for place in PLACES:
        if not any(_is_within(place, path) or _is_within(path, place) for path in paths):
            return place
    raise BadRequest(f"nothing is left where the weave network's wait program could be mounted: {' and '.join(PLACES)} "
                     "are both taken. Mount elsewhere, or leave the container off the network by WEAVE_CIDR=none")


def _is_within(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory}/")
