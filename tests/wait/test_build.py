"""Rebuilding the programs, and the package that carries them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata, util
from pathlib import Path

import pytest

from weavemw.wait import MACHINES, PROGRAMS, program
from weavemw.wait.build import ZIGLANG, build, command, main

ROOT = Path(__file__).parents[2]


def _installed(distribution: str) -> str | None:
    return metadata.version(distribution) if util.find_spec(distribution) else None


@pytest.mark.skipif(_installed("ziglang") != ZIGLANG, reason=f"needs ziglang {ZIGLANG} (pip install 'weavemw[build]')")
def test_the_programs_are_what_their_sources_say(tmp_path):
    """Built anew, anywhere, each program is byte for byte the one in the package."""
    built = build(tmp_path)
    assert len(built) == len(MACHINES) * len(PROGRAMS)
    for path in built:
        assert path.read_bytes() == program(path.name, path.parent.name), path


@pytest.mark.skipif(_installed("ziglang") is not None, reason="ziglang is installed")
def test_without_a_compiler_it_says_what_to_install():
    """Who lacks the compiler gets one line that says how to have it."""
    with pytest.raises(SystemExit, match=r"pip install 'weavemw\[build\]'"):
        main([])


def test_the_command_line_names_no_place_of_the_builder(tmp_path):
    """Sources are named relative to themselves, so that no path can get into the result."""
    line = command("arm", "w", tmp_path / "w", tmp_path)
    assert line[-1] == "wait.c"
    assert line[line.index("-target") + 1] == "arm-linux-musleabi"


def test_the_build_extra_asks_for_the_very_compiler():
    """Another version of the compiler may give other bytes."""
    assert f'build = ["ziglang=={ZIGLANG}"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(_installed("hatchling") is None, reason="needs hatchling, which builds wheels")
def test_a_wheel_carries_the_programs(tmp_path):
    """Installing needs no compiler: the programs are in the wheel, and in the archive of sources."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
                   cwd=ROOT, check=True, capture_output=True)
    wheel, = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for machine in MACHINES:
            for name in PROGRAMS:
                assert archive.read(f"weavemw/wait/bin/{machine}/{name}") == program(name, machine)
