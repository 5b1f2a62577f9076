"""Where the wait program is mounted, and what is taken for a mount of it."""

from __future__ import annotations

from typing import Any

import pytest

from weavemw.dockerapi.wait_mount import (
    FORMER,
    PATHS,
    PLACES,
    bind_of,
    free_place,
    is_named,
    path_in,
    program_of,
    starts_with_it,
    with_name,
    with_program,
    without_program,
)
from weavemw.errors import BadRequest

DIRECTORY = "/var/lib/weavemw/wait/0123456789ab"


@pytest.mark.parametrize("path", PATHS)
def test_a_bind_is_known_again(path: str) -> None:
    """At each path that the program has, or had."""
    assert program_of(bind_of(DIRECTORY, path)) == path


@pytest.mark.parametrize(("bind", "path"), [
    ("/var/lib/weavemw/wait/0123456789ab:/w:ro", FORMER), ("/wait/0123456789ab/w:/dev/w:ro", "/dev/w"),
    (f"{DIRECTORY}/w:/dev/w", ""), (f"{DIRECTORY}/w:/dev/w:rw", ""), (f"{DIRECTORY}/w:/dev/w:ro,z", ""),
    (f"{DIRECTORY}/w:/dev/x:ro", ""), (f"{DIRECTORY}:/dev/w:ro", ""), (f"{DIRECTORY}/w:/w:ro", ""),
    ("/var/lib/weavemw/wait/0123456789ab/../x/w:/dev/w:ro", ""), ("/x/w:/dev/w:ro", ""), ("w:/dev/w:ro", ""),
    ("wait/0123456789ab/w:/dev/w:ro", ""), ("/notwait/0123456789ab/w:/dev/w:ro", ""), ("/dev/w", ""), ("", ""),
])
def test_only_a_read_only_mount_from_our_directory_counts(bind: str, path: str) -> None:
    """Whichever state directory it is in."""
    assert program_of(bind) == path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("binds", [None, [], ["/a:/b"], ["/a:/b:ro", "/x/w:/dev/w:ro"]])
def test_a_users_binds_can_be_told_from_ours(binds: list[str] | None, path: str) -> None:
    """Null and an empty list are two things; without the program nothing changes."""
    assert without_program(with_program(binds, DIRECTORY, path)) == binds
    assert without_program(binds) == binds


@pytest.mark.parametrize("place", PLACES)
def test_that_there_is_a_name_is_kept(place: str) -> None:
    """It is told from the spelling of our bind alone, which stays one of ours."""
    binds = ["/x/./w:/dev/w:ro", "/a/wait/0123456789ab/./w:/other:ro"]
    plain = with_program(binds, DIRECTORY, place)
    named = with_name(plain)
    assert (is_named(plain), is_named(named), is_named(binds)) == (False, True, False)
    assert with_name(named) == named
    assert without_program(named) == binds
    assert with_name(binds) == binds


@pytest.mark.parametrize(("word", "path"), [
    ("/dev/w", "/dev/w"), ("/dev/./w", "/dev/w"), ("/.dockerenv", "/.dockerenv"), ("/./.dockerenv", "/.dockerenv"),
    ("/w/w", "/w/w"), ("/dev/www", ""), ("w", ""), ("", ""),
])
def test_a_word_that_means_the_program(word: str, path: str) -> None:
    """In each of its spellings."""
    assert path_in(word) == path


@pytest.mark.parametrize(("targets", "place"), [
    ([], "/dev/w"), (["/w", "/dev/www", "/devices", "/", ""], "/dev/w"), (["/dev/shm", "/dev/fuse"], "/dev/w"),
    (["/dev"], "/.dockerenv"), (["/dev/"], "/.dockerenv"), (["//dev//w/x"], "/.dockerenv"), (["dev"], "/.dockerenv"),
    (["/.dockerenv"], "/dev/w"),
])
def test_the_place_is_one_that_nobody_takes(targets: list[str], place: str) -> None:
    """Neither the place itself, nor what it is in, nor something within it."""
    assert free_place(targets) == place


def test_there_may_be_no_place() -> None:
    """Which is the user's doing, and is said."""
    with pytest.raises(BadRequest, match="both taken"):
        free_place(["/dev", "/.dockerenv"])


_MOUNT = {"Source": f"{DIRECTORY}/w", "Destination": "/dev/w", "Mode": "ro"}


@pytest.mark.parametrize(("row", "is_so"), [
    ({"Command": "/dev/w sleep 9", "Mounts": [{"Source": "/a", "Destination": "/b", "Mode": ""}, _MOUNT]}, True),
    ({"Command": "/dev/./w sh", "Mounts": [_MOUNT | {"Mode": "ro,rprivate"}]}, True),
    ({"Command": "/w/w sh", "Mounts": [{"Source": DIRECTORY, "Destination": "/w", "Mode": "ro"}]}, True),
    ({"Command": "sleep 9", "Mounts": [_MOUNT]}, False), ({"Command": "/.dockerenv sh", "Mounts": [_MOUNT]}, False),
    ({"Command": "/dev/w sh", "Mounts": []}, False), ({"Command": "/dev/w sh", "Mounts": None}, False),
    ({"Command": "", "Mounts": [{}]}, False), ({}, False),
])
def test_a_row_of_the_list_tells_it_too(row: dict[str, Any], is_so: bool) -> None:
    """By command and mount together."""
    assert starts_with_it(row) is is_so
