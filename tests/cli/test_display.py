from __future__ import annotations

import sys

import pytest

from weavemw.cli.display import Screen, block, screen, since, table

_PIPE, _NARROW, _COLOUR = Screen(), Screen(40), Screen(40, colour=True)


@pytest.mark.parametrize(("to", "shown"), [
    pytest.param(_PIPE, "            Key: a value that is longer than the screen", id="a pipe: as long as it is"),
    pytest.param(_NARROW, "            Key: a value that is longer\n                 than the screen", id="a terminal"),
    pytest.param(Screen(25), "            Key: a value that is longer than the screen", id="too narrow for that"),
])
def test_a_block_has_its_keys_right_aligned(to: Screen, shown: str) -> None:
    """As a Weave Net router's status; on a terminal long values go on in the next line."""
    assert block([("Key", "a value that is longer than the screen")], to) == shown


def test_a_table_has_columns_as_wide_as_their_values() -> None:
    """The last one goes on in its own column."""
    rows = [("web", "10.32.0.1/12"), ("database", "a long reason with many words in it")]
    assert table(("NAME", "WHAT"), rows, _NARROW).splitlines() == [
        "NAME      WHAT", "web       10.32.0.1/12", "database  a long reason with many words", "          in it"]
    assert table(("NAME", "WHAT"), rows, _PIPE).splitlines()[-1] == "database  a long reason with many words in it"


def test_colours_take_no_room() -> None:
    """Columns are aligned by what is seen; without colours there is no escape."""
    text = table(("A", "B"), [(_COLOUR.paint("xyz", fg="red"), "1"), ("xy", "2")], _COLOUR)
    assert text.splitlines()[1:] == ["\x1b[31mxyz\x1b[0m  1", "xy   2"]
    assert _NARROW.paint("xyz", fg="red") == "xyz"


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0s"), (-5, "0s"), (59.9, "59s"), (60, "1m00s"), (3725, "1h02m"), (90000, "1d01h"), (8640000, "100d00h"),
])
def test_durations_have_two_units(seconds: float, text: str) -> None:
    """The largest and the one below it."""
    assert since(seconds) == text


@pytest.mark.parametrize(("terminal", "environ", "expected"), [
    pytest.param(False, {"COLUMNS": "80", "TERM": "xterm"}, Screen(), id="a pipe"),
    pytest.param(True, {"COLUMNS": "70", "TERM": "xterm"}, Screen(70, colour=True), id="a terminal"),
    pytest.param(True, {"COLUMNS": "70", "TERM": "xterm", "NO_COLOR": "1"}, Screen(70), id="NO_COLOR"),
    pytest.param(True, {"COLUMNS": "70", "TERM": "xterm", "NO_COLOR": ""}, Screen(70, colour=True), id="an empty one"),
    pytest.param(True, {"COLUMNS": "70", "TERM": "dumb"}, Screen(70), id="a terminal without colours"),
])
def test_colours_and_width_are_for_terminals(monkeypatch: pytest.MonkeyPatch, terminal: bool, environ: dict[str, str],
                                             expected: Screen) -> None:
    """In a pipe text is plain; NO_COLOR counts if it is not empty (no-color.org)."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert screen(environ) == expected
