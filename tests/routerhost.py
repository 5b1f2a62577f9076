"""A host with a router on it: a network namespace and a router's process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Host:
    """A network namespace with a router in it."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.processes: list[subprocess.Popen[str]] = []
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.ip("link set lo up")

    def run(self, *command: str) -> str:
        done = subprocess.run(self._inside(*command), capture_output=True, text=True, cwd=ROOT, timeout=30)
        return done.stdout + done.stderr

    def ip(self, arguments: str) -> str:
        return subprocess.run(self._inside("ip", *arguments.split()), check=True, capture_output=True, text=True).stdout

    def router(self, *options: str) -> None:
        command = self._router(*options)
        self.processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        stderr = self.processes[-1].stderr
        assert stderr
        assert any(re.search("the router serves", line) for line in stderr)

    def router_output(self, *options: str) -> str:
        return self.run(*self._router(*options)[2:])

    def _router(self, *options: str) -> list[str]:
        return self._inside(sys.executable, "-m", "weavemw.router", "--state-dir", str(self.state),
                            "--run-dir", str(self.state / "run"),
                            "--upstream", "127.0.0.1:9", *options)

    def http(self, path: str) -> str:
        return self.run("curl", "-s", f"http://127.0.0.1:6784{path}").strip()

    def dig(self, server: str, source: str, name: str) -> str:
        return self.run("dig", "+tries=1", "+timeout=2", "-b", source, f"@{server}", name)

    def stop(self) -> None:
        while self.processes:
            process = self.processes.pop()
            process.send_signal(signal.SIGTERM)
            process.communicate()

    def delete(self) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]
