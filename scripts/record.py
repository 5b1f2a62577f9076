"""Make the pictures of the README again: a terminal at which the commands of docs/sessions.toml are typed.

``python scripts/record.py [DIRECTORY]``, as root, starts a Docker Engine in namespaces of its own, with a fresh /run
and /var/lib, types each session at a terminal of 80 columns, and writes NAME.svg of each, by default into docs/. A
command that fails ends it. ``make recordings`` is the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pexpect

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/engine"))

import host  # noqa: E402  # what tests have for engines

SESSIONS = ROOT / "docs/sessions.toml"
COLUMNS = 80
_PROMPT = "host1$ "
_MARK = "\x1b]weave\x07"  # what ends a command's output: a sequence that no program writes
_FRESH = ("/run", "/var/lib")  # an engine's sockets and data; of this machine's none is touched

_CHARACTER, _LINE, _MARGIN = 8.4, 18, 14  # pixels, at 14 pixels of font
_ESCAPE = re.compile(r"\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07]*\x07")

#: What can be told of a piece of text (ECMA-48's SGR), and what becomes of it.
_STYLES = {"1": "font-weight: bold", "2": "opacity: .6", "31": "fill: #ff7b72", "32": "fill: #7ee787",
           "33": "fill: #e3b341", "34": "fill: #79c0ff", "35": "fill: #d2a8ff", "36": "fill: #76e3ea",
           "90": "fill: #8b949e"}

#: No font is loaded: GitHub would not do so. A line is a line, so that git shows what changed.
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" xml:space="preserve">
<title>{title}</title>
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #e6edf3 }}
{styles}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
{rows}
</svg>
"""

def main(directory: Path) -> None:
    """Record every session into the directory, in namespaces of their own."""
    name = f"wh{os.getpid()}-0"  # as test hosts are named, so that what a killed run leaves is swept away with theirs
    inside = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
              sys.executable, __file__, "--inside", name, directory.absolute()]
    try:
        subprocess.run(inside, check=True)
    finally:
        host.destroy(name)


def record_all(name: str, directory: Path) -> None:
    """Record every session, within the namespaces."""
    with engine(name), terminal() as shell:
        for session in sessions():
            for line in session.get("before", ()):
                typed(shell, line)
            shown = [(line, typed(shell, line)) for line in session["commands"]]
            (directory / f"{session['name']}.svg").write_text(picture(shown))


def sessions() -> list[dict[str, Any]]:
    """What is recorded: the name of each session, what is typed, and what is typed before, unseen."""
    return list(tomllib.loads(SESSIONS.read_text())["session"])


@contextmanager
def engine(name: str) -> Iterator[None]:
    """A Docker Engine at its usual place, in the namespaces that this process is in."""
    for place in _FRESH:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    Path("/run/resolv.conf").write_text("nameserver 192.0.2.53\n")
    run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
    run("hostname", "host1")
    run("ip", "link", "set", "lo", "up")
    with Path("/run/engine.log").open("wb") as log:
        daemon = subprocess.Popen(["dockerd", f"--cgroup-parent=/{name}", "--exec-opt=native.cgroupdriver=cgroupfs"],
                                  env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"},
                                  stdout=log, stderr=log)
    try:
        host._wait_until(partial(host._pings, Path("/run/docker.sock")), daemon, Path("/run/engine.log").read_text)
        run("docker", "import", "--change", 'CMD ["sh"]', "-", "busybox:latest", input=host.busybox_root())
        yield
        for container in run("docker", "ps", "-aq").decode().split():
            run("docker", "rm", "-f", container)
    finally:
        daemon.terminate()
        daemon.wait(30)


@contextmanager
def terminal() -> Iterator[pexpect.spawn[str]]:
    """A shell at a terminal, with this checkout's weave."""
    programs = Path("/run/bin")
    programs.mkdir()
    (programs / "weave").write_text(f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} -m weavemw.cli "$@"\n')
    (programs / "weave").chmod(0o755)
    environ = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/run", "TERM": "xterm-256color",
               "PS1": _MARK, "LANG": "C.UTF-8"}
    shell = pexpect.spawn("bash", ["--norc", "--noprofile", "--noediting"], env=environ, encoding="utf-8", echo=False,
                          timeout=60, dimensions=(50, COLUMNS))
    shell.expect_exact(_MARK)
    yield shell
    shell.close(force=True)


def typed(shell: pexpect.spawn[str], line: str) -> str:
    """Type a line; gives what it shows. Raises ``SystemExit`` if its status is not 0."""
    shown = _answer(shell, line)
    if (status := _answer(shell, "echo $?").strip()) != "0":
        sys.exit(f"{line}: status {status}\n{shown}")
    return shown


def _answer(shell: pexpect.spawn[str], line: str) -> str:
    shell.sendline(line)
    shell.expect_exact(_MARK)
    return str(shell.before)


def picture(shown: list[tuple[str, str]]) -> str:
    """An SVG of commands and of what they showed."""
    lines = [line for command, answer in shown
             for line in (f"\x1b[1;32m{_PROMPT}\x1b[0;1m{command}\x1b[m", *answer.replace("\r\n", "\n").splitlines())]
    rows = [row for line in lines for row in folded(pieces(line))]
    return _SVG.format(width=COLUMNS * _CHARACTER + 2 * _MARGIN, height=len(rows) * _LINE + 2 * _MARGIN,
                       title=escape("; ".join(command for command, _ in shown)),
                       styles="\n".join(f".s{code} {{ {style} }}" for code, style in _STYLES.items()),
                       rows="\n".join(_row(number, row) for number, row in enumerate(rows) if row))


def pieces(line: str) -> list[tuple[str, str]]:
    """A terminal's line as pieces of text, each with its classes; what a carriage return went back over is gone."""
    found, codes, at = [], set[str](), 0
    line = line.rpartition("\r")[2]
    for sequence in _ESCAPE.finditer(line):
        found.append((line[at:sequence.start()], _classes(codes)))
        at = sequence.end()
        if sequence[2] == "m":
            for code in (sequence[1] or "0").split(";"):
                codes = codes | {code} if code not in ("", "0") else set()
    return [each for each in (*found, (line[at:], _classes(codes))) if each[0]]


def folded(row: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """As a terminal does it: what is too long goes on in the next line."""
    cells = [(character, classes) for text, classes in row for character in text]
    return [[("".join(character for character, _ in run), classes)
             for classes, run in groupby(cells[at:at + COLUMNS], key=itemgetter(1))]
            for at in range(0, max(len(cells), 1), COLUMNS)]


def _classes(codes: set[str]) -> str:
    return " ".join(f"s{code}" for code in sorted(codes & _STYLES.keys()))


def _row(number: int, row: list[tuple[str, str]]) -> str:
    length = sum(len(text) for text, _ in row) * _CHARACTER
    text = "".join(f'<tspan class="{classes}">{escape(text, quote=False)}</tspan>' if classes
                   else escape(text, quote=False) for text, classes in row)
    return f'<text x="{_MARGIN}" y="{_MARGIN + _LINE * number + 13}" textLength="{length:.1f}">{text}</text>'


def run(*argv: str, input: bytes | None = None) -> bytes:  # noqa: A002
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, input=input).stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        record_all(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(*sys.argv[1:2] or [ROOT / "docs"]))
