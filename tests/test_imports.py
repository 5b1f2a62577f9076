"""What is imported when: commands and single middlewares don't wait for libraries that they don't use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SERVERS = {"aiohttp", "asyncio", "cryptography", "dns", "gunicorn", "http.client", "prometheus_client", "requests",
           "requests_unixsocket", "sqlite3", "ssl", "urllib3", "werkzeug"}
SELDOM = {"difflib", "subprocess", "tarfile", "tomllib", "weavemw.app", "weavemw.attaching.watcher",
          "weavemw.serving.program"}
SOCKETS = {"click", "selectors", "socket", "weavemw.transport.http_client", "weavemw.settings"}

CLIENTS = {"weavemw.attaching.allocation", "weavemw.dockerapi.client", "weavemw.dockerapi.container",
           "weavemw.network.netlink", "weavemw.router.client"}
COMPILED = """
import re, sys
compiled, original = [], re._compiler.compile
re._compiler.compile = lambda pattern, flags: compiled.append(pattern) or original(pattern, flags)
import dataclasses, json, ipaddress, logging, posixpath, urllib.parse
compiled.clear()
import weavemw.middleware.cidr
print(*compiled, sep="\\n")
"""

IMPORTED = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
"""
WEAVE = f"{IMPORTED}from weavemw.__main__ import main; main()"


def modules_of(script: str, *words: str, **environ: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", script, *words], env={**os.environ, **environ}, capture_output=True,
                          text=True, check=False, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(("module", "heavy"), [
    ("weavemw", {*SERVERS, *SELDOM, *SOCKETS, "logging", "re", "dataclasses", "json"}),
    ("weavemw.middleware.cidr", {*SERVERS, *SELDOM, *SOCKETS, *CLIENTS, "email", "uuid"}),
    ("weavemw.dockerapi.client", {*SERVERS, *SELDOM, *SOCKETS}),
    ("weavemw.router.client", SERVERS | SELDOM),
    ("weavemw.serving.probe", SERVERS - {"http.client", "ssl"} | SELDOM | {"click"}),
    ("weavemw.app", SERVERS - {"asyncio", "ssl"}),
])
def test_a_module_imports_nothing_heavy(module: str, heavy: set[str]) -> None:
    assert modules_of(f"{IMPORTED}import {module}") & heavy == set()


def test_importing_a_middleware_compiles_no_pattern() -> None:
    """That takes longer than all the rest of ours, and who only reads decisions needs none."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("words", [["version"], ["--help"], ["env"], ["config"]])
def test_a_command_that_needs_little_imports_little(words: list[str], tmp_path: object) -> None:
    """Help of all commands wants all their texts, not what they work with."""
    heavy = SERVERS - {"asyncio", "ssl", "sqlite3"} if words == ["--help"] else SERVERS | SELDOM - {"difflib"}
    assert modules_of(WEAVE, *words, WEAVEMW_RUN_DIR=str(tmp_path), WEAVE_HTTP_ADDR="127.0.0.1:1") & heavy == set()


@pytest.mark.parametrize("words", ["weave la", "weave launch --ipalloc", "weave attach w", "weave dns-add --h"])
def test_completion_imports_nothing_heavy(words: str, tmp_path: object) -> None:
    """Whoever presses Tab waits for it; containers' names are asked of Docker, which does not answer here."""
    environ = {"_WEAVE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
               "WEAVEMW_RUN_DIR": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    assert modules_of(WEAVE, **environ) & SERVERS - {"sqlite3"} == set()
