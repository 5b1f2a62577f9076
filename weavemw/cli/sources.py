"""Where settings come from. In order of precedence: options, environment, file, defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from weavemw.errors import SettingsError
from weavemw.settings import PREFIX, nearest, sources_in

__all__ = ["CONFIG_VARIABLE", "Given", "blaming", "in_environment", "in_table", "read_file", "strange_variables"]

#: Names the file.
CONFIG_VARIABLE = f"{PREFIX}CONFIG"

#: The original's variables for further arguments of `docker run`: our containers are not made by it.
_WITHOUT_EFFECT = ("WEAVE_DOCKER_ARGS", "WEAVEPROXY_DOCKER_ARGS")
_TABLES = frozenset({"router"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Given:
    """A value and who gave it: an option ("--mtu"), a variable ("WEAVEMW_MTU") or a file (its path)."""

    value: Any
    source: str


def blaming(given: Mapping[str, Given], make: Callable[[Mapping[str, Any]], T]) -> T:
    """What ``make`` makes of the values.

    Raises its :class:`~weavemw.errors.SettingsError`, with the source in front if one value alone is to blame and it
    is no option: options are before everybody's eyes.
    """
    try:
        return make({name: each.value for name, each in given.items()})
    except SettingsError:
        for name, each in given.items():
            _blame(name, each, make)
        raise


def _blame(name: str, given: Given, make: Callable[[Mapping[str, Any]], object]) -> None:
    try:
        make({name: given.value})
    except SettingsError as error:
        if given.source.startswith("-"):
            raise
        raise SettingsError(f"{given.source}: {error.message}") from error


def read_file(path: Path) -> dict[str, Any]:
    """A configuration file. Raises ``FileNotFoundError``, and :class:`~weavemw.errors.SettingsError`."""
    try:
        found = _parsed(path.read_text())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"can't read {path}: {error}") from error
    for name in {name for name, value in found.items() if isinstance(value, dict)} - _TABLES:
        raise SettingsError(f"{path}: unknown table [{name}]: there is [router], and what stands before it")
    return found


def _parsed(text: str) -> dict[str, Any]:
    import tomllib  # most machines have no such file

    return tomllib.loads(text)


def in_table(table: Mapping[str, Any], path: Path) -> dict[str, Given]:
    """What a table of a file gives, by names with ``_``."""
    return {key.replace("-", "_"): Given(value, str(path)) for key, value in table.items()}


def in_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """The proxy's settings in the environment."""
    found = {name: Given(environ[variable], variable) for name, variable in sources_in(environ).items()}
    if environ.get("WEAVE_DEBUG"):
        found.setdefault("log_level", Given("debug", "WEAVE_DEBUG"))
    return found


def strange_variables(environ: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """What to say of variables that look like settings and are none."""
    variables = [CONFIG_VARIABLE, *(f"{PREFIX}{name.upper()}" for name in known)]
    ours = [name for name in environ if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_")]
    unknown = sorted(set(ours) - set(variables))
    return [f"{name} is no setting{_near(name, variables)}" for name in unknown] + \
        [f"{name} has no effect" for name in _WITHOUT_EFFECT if environ.get(name)]


def _near(name: str, variables: Iterable[str]) -> str:
    return nearest(name, variables).replace("-", "_")
