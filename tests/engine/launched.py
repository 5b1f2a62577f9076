"""A test host on which weave was launched, for tests of what containers get from it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host import TestHost

_ROOT = Path(__file__).parents[2]

#: The weave command as another user, who may be unable to read what it consists of: that is imported before.
_AS_USER = """
import contextlib, encodings.idna, importlib.readers, os, pkgutil, sys
import concurrent.futures.thread, prometheus_client.mmap_dict
import weavemw
for module in pkgutil.walk_packages(weavemw.__path__, "weavemw."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from weavemw.cli import main
os.setgroups([])
os.setresgid(*[int(sys.argv[2])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
main(sys.argv[3:])
"""


class Launched:
    """``weave launch`` on a host; :meth:`docker` goes through the proxy."""

    def __init__(self, host: TestHost, *options: str) -> None:
        self.host = host
        self.socket = host.dir / "weave.sock"
        self.via = f"unix://{self.socket}"
        self.weave("launch", "-H", self.via, *options)

    def weave(self, *arguments: str | Path, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the weave command on the host."""
        return self.host.run("python", "-m", "weavemw.cli", *arguments, check=check,
                             env={"PYTHONPATH": str(_ROOT), **environ})

    def weave_as(self, user: int, group: int, *arguments: str | Path,
                 **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the weave command on the host as a user of one group."""
        return self.host.run("python", "-c", _AS_USER, str(user), str(group), *arguments, check=False,
                             env={"PYTHONPATH": str(_ROOT), "HOME": "/nonexistent", **environ})

    def status(self) -> dict[str, Any]:
        """What `weave status` says, as data."""
        return dict(json.loads(self.weave("status", "--json", check=False).stdout))

    def docker(self, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run the docker CLI through the proxy."""
        return self.host.docker(*args, host=self.via, **options)

    def ask(self, path: str, **options: Any) -> Any:
        """What the router answers to ``GET path`` as JSON."""
        done = self.host.run("curl", "-sf", "-H", "Accept: application/json", f"http://127.0.0.1:6784{path}", **options)
        return json.loads(done.stdout)

    def held(self) -> dict[str, list[str]]:
        """The addresses that are held, by full container id."""
        return {row["containerid"]: row["addrs"] for row in self.ask("/ip")["owned"]}

    def names(self) -> set[tuple[str, str]]:
        """What is registered, as pairs of name and address."""
        return {(record["Hostname"], record["Addr"]) for record in self.ask("/name") or ()}

    def veths(self) -> set[str]:
        """The host's ends of attachments."""
        return {name for name in self.host.links() if name.startswith("vethwe")}

    def left(self) -> tuple[Any, ...]:
        """Everything that containers can leave behind."""
        return self.held(), self.names(), self.veths()

    def ethwe(self, container: str) -> str:
        """The weave address that the container itself sees, empty if it has none."""
        shown = self.host.docker("exec", container, "ip", "-4", "-o", "address", "show", "dev", "ethwe", check=False)
        words = shown.stdout.split()
        return str(words[words.index("inet") + 1]) if "inet" in words else ""

    def log(self, container: str = "weaveproxy") -> str:
        """What the proxy or the router logged."""
        done = self.host.docker("logs", container)
        return str(done.stdout + done.stderr)


def eventually(condition: Callable[[], object], within: float = 30) -> bool:
    """Whether it comes true in time; errors count as not yet."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except (subprocess.CalledProcessError, AssertionError):
            pass
        time.sleep(0.1)
    return False
