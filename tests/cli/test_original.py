"""Who types what the original had is told what there is instead."""

from __future__ import annotations

import pytest

from weavemw.cli import run
from weavemw.cli.command import GROUPS, weave
from weavemw.cli.original import ALIASES, instead_of_option, instead_of_verb


@pytest.mark.parametrize(("line", "words"), [
    ("launch --port 6783", "launch has no --port: hosts reach each other by VXLAN"),
    ("launch-router --metrics-addr x", "under /metrics"),
    ("launch --conn-limit=3", "no connections"),
    ("attach --add-host a:1.2.3.4 web", "docker run --add-host"),
    ("launch-dns", "there is no launch-dns: weaveDNS is a part of the router"),
    ("stop-dns", "`weave stop-router` stops both"),
])
def test_one_line_says_why_not_and_what_instead(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With status 2, as any mistake on a command line."""
    assert run(line.split(), {}) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("alias", "verb"), ALIASES.items())
def test_other_names_of_verbs_work(alias: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As the verb itself."""
    assert run([alias, "--help"], {}) == 0
    assert f"Usage: weave {verb} " in capsys.readouterr().out


def test_what_is_not_the_originals_has_no_words_here() -> None:
    """Then the nearest is guessed."""
    assert instead_of_option("launch", "--nonsense") == instead_of_verb("lanch") == ""


def test_help_shows_every_verb_once(capsys: pytest.CaptureFixture[str]) -> None:
    """In groups; one that is in none comes under "More"."""
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert run(["--help"], {}) == 0
    shown = capsys.readouterr().out
    for name in weave.list_commands(weave.make_context("weave", ["status"], resilient_parsing=True)):
        assert f"\n  {name} " in shown
