"""Rebuild the wait program and its sibling for every machine: ``python -m weavemw.wait.build``.

The results are committed as package data, so that installing needs no compiler. They are reproducible: the same
sources and the same ziglang (``pip install 'weavemw[build]'``) give the same bytes on any machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path

from weavemw.errors import SettingsError
from weavemw.wait import MACHINES, PROGRAMS

__all__ = ["ZIGLANG", "build", "command", "main"]

#: The version of ziglang that the committed programs were built with; another one may order instructions otherwise.
ZIGLANG = "0.17.1"

SOURCES = Path(__file__).parent

#: Per machine: clang's target, the folder of its kernel headers, and what more the compiler must be told.
_TARGETS = {
    "x86_64": ("x86_64-linux-musl", "x86-linux-any", ()),
    "aarch64": ("aarch64-linux-musl", "aarch64-linux-any", ()),
    # The oldest ARM that Docker runs on: the first Raspberry Pi and the Zero.
    "arm": ("arm-linux-musleabi", "arm-linux-any", ("-mcpu=arm1176jz_s", "-marm")),
    "riscv64": ("riscv64-linux-musl", "riscv-linux-any", ()),
}

_FLAGS = (
    "-std=c11", "-Wall", "-Wextra", "-Werror",
    "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie",
    "-Os", "-fomit-frame-pointer", "-fno-stack-protector", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
    "-fno-sanitize=all",
    # 64 KiB is the largest page that a kernel for aarch64 has; loading fails where segments are aligned to less.
    "-Wl,--build-id=none,-z,norelro,-z,noexecstack,-z,max-page-size=65536", "-s",
)


def command(machine: str, program: str, output: Path, headers: Path) -> list[str]:
    """The compiler's command line for one program, relative to the sources' directory."""
    target, own_headers, more = _TARGETS[machine]
    return [sys.executable, "-m", "ziglang", "cc", "-target", target, *more, *_FLAGS,
            "-isystem", str(headers / own_headers), "-isystem", str(headers / "any-linux-any"),
            "-o", str(output), PROGRAMS[program]]


def build(directory: Path) -> list[Path]:
    """Build all programs into ``directory``/MACHINE/PROGRAM and return their paths.

    Raises SettingsError where ziglang is missing, of another version, or fails.
    """
    headers = _kernel_headers()
    built = []
    with tempfile.TemporaryDirectory() as cache:  # a fresh one: nothing older can get into the result
        for machine in MACHINES:
            for program in PROGRAMS:
                output = directory / machine / program
                output.parent.mkdir(parents=True, exist_ok=True)
                _compile(command(machine, program, output.absolute(), headers), cache)
                built.append(output)
    return built


def main(arguments: Sequence[str] | None = None) -> None:
    """Rebuild into the package's own directory, or the one that is named."""
    parser = argparse.ArgumentParser(prog="python -m weavemw.wait.build", description=main.__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=SOURCES / "bin")
    try:
        built = build(parser.parse_args(arguments).directory)
    except SettingsError as error:
        sys.exit(error.message)
    for path in built:
        sys.stdout.write(f"{path.stat().st_size:6} {path}\n")


def _kernel_headers() -> Path:
    spec = util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise SettingsError("ziglang is not installed: pip install 'weavemw[build]'")
    found = metadata.version("ziglang")
    if found != ZIGLANG:
        raise SettingsError(f"ziglang {found} is installed, the programs are built with {ZIGLANG}")
    return Path(spec.origin).parent / "lib" / "libc" / "include"


def _compile(arguments: list[str], cache: str) -> None:
    environment = os.environ | {"ZIG_LOCAL_CACHE_DIR": cache, "ZIG_GLOBAL_CACHE_DIR": cache}
    result = subprocess.run(arguments, cwd=SOURCES, env=environment, text=True, check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        raise SettingsError(f"{' '.join(arguments)}: {result.stdout.strip()}")


if __name__ == "__main__":
    main()
