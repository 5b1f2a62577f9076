from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", _ROOT / "scripts/record.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


record = _load()


@pytest.mark.parametrize(("line", "pieces"), [
    pytest.param("plain", [("plain", "")], id="plain"),
    pytest.param("", [], id="empty"),
    pytest.param("\x1b[1;32mok\x1b[0m done", [("ok", "s1 s32"), (" done", "")], id="bold and green, and back"),
    pytest.param("\x1b[2mdim\x1b[m", [("dim", "s2")], id="reset without a number"),
    pytest.param(" 1/3\r 2/3\r\x1b[K 3/3", [(" 3/3", "")], id="a line that was written over"),
    pytest.param("\x1b[?25lhidden cursor\x1b]0;title\x07", [("hidden cursor", "")], id="what is not shown"),
])
def test_a_line_is_read_as_a_terminal_does(line: str, pieces: list[tuple[str, str]]) -> None:
    """Colours become classes; other sequences, and what was written over, are not there."""
    assert record.pieces(line) == pieces


def test_long_lines_go_on_in_the_next() -> None:
    """After 80 characters, wherever a colour begins or ends."""
    rows = record.folded([("a" * 79, ""), ("b" * 3, "s1")])
    assert rows == [[("a" * 79, ""), ("b", "s1")], [("bb", "s1")]]
    assert record.folded([]) == [[]]


@pytest.mark.parametrize("session", record.sessions(), ids=lambda session: str(session["name"]))
def test_a_picture_shows_what_its_session_types(session: dict[str, object]) -> None:
    """The command lines of docs/sessions.toml, each with its prompt; and the README shows it."""
    picture = ET.parse(_ROOT / f"docs/{session['name']}.svg").getroot()
    lines = ["".join(row.itertext()) for row in picture.iter("{http://www.w3.org/2000/svg}text")]
    typed = [line.removeprefix("host1$ ") for line in lines if line.startswith("host1$ ")]
    assert typed == session["commands"]
    assert (_ROOT / f"docs/{session['name']}.svg").stat().st_size < 30_000
    assert f"](docs/{session['name']}.svg)" in (_ROOT / "README.md").read_text()
