"""Errors as programs see them: by class, code and attributes, never by words."""

from __future__ import annotations

import errno
import inspect

import pytest

from weavemw import errors
from weavemw.errors import AddressTaken, NoAnswer, NoSuchContainer, SettingsError, WeaveError


def test_every_error_has_a_code_of_its_own() -> None:
    """And everything that can be raised is public."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, WeaveError)]
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.code.replace("_", "").isalpha() for kind in kinds)
    assert {kind.__name__ for kind in kinds} == set(errors.__all__)


@pytest.mark.parametrize(("error", "code", "fields"), [
    (AddressTaken("10.2.1.1/24", "abc"), "address_taken", {"address": "10.2.1.1/24", "owner": "abc"}),
    (NoSuchContainer("web", "no"), "no_such_container", {"container": "web"}),
    (NoAnswer("refused", timed_out=True), "no_answer", {"reason": "refused", "timed_out": True}),
])
def test_what_it_is_about_is_in_its_attributes(error: WeaveError, code: str, fields: dict[str, object]) -> None:
    assert error.code == code
    assert {name: getattr(error, name) for name in fields} == fields


def test_the_systems_error_behind_it_is_known() -> None:
    """Through everything that was made of it on its way."""
    error, between = WeaveError("x"), NoAnswer("y")
    assert error.errno == 0
    error.__cause__, between.__cause__ = between, ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert error.errno == errno.ECONNREFUSED


def test_a_hint_follows_the_message() -> None:
    assert SettingsError("a", hint="b").advice == "a; b"
    assert (SettingsError("a").advice, SettingsError("a", hint="b").message) == ("a", "a")
