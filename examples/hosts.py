#!/usr/bin/env python3
"""Three hosts, one weave network: containers on any of them find each other by name. `make demo-hosts` runs it.

The hosts are network namespaces on this machine, each with a Docker Engine of its own, on one switch. An etcd with a
member on each keeps what they share. Everything is taken down at the end. It needs root, and etcd (Debian's
etcd-server), nft, and what `make demo` needs.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "tests" / "engine"))

from host import TestHost, sweep, why_not  # noqa: E402
from launched import Launched  # noqa: E402
from underlay import Underlay, start_etcd, why_no_etcd  # noqa: E402

_NAMES = ("web", "db", "client")


def main() -> int:
    """Show it. Status 1, and one line, where it can't be shown."""
    if reason := why_not() or why_no_etcd():
        print(f"demo-hosts: {reason}", file=sys.stderr)
        return 1
    sweep()
    with contextlib.ExitStack() as stack:
        print("Three hosts, each a network namespace with a Docker Engine of its own, and a member of etcd on each.")
        hosts = [stack.enter_context(TestHost()) for _ in _NAMES]
        store = start_etcd(stack.enter_context(Underlay(hosts)))
        weaves = [_launched(host, store) for host in hosts]
        for weave, name in zip(weaves, _NAMES, strict=True):
            _docker(weave, "run", "-d", "--name", name, "busybox", "sleep", "3600")
        for name in _NAMES[:2]:
            _docker(weaves[2], "exec", "client", "ping", "-c", "3", name)
        _say(weaves[0], "weave", "status", "peers")
        print(weaves[0].weave("status", "peers").stdout)
        for weave in weaves:
            weave.weave("reset")
    return 0


def _launched(host: TestHost, store: str) -> Launched:
    print(f"\n{host.name}$ weave launch --store {store}", flush=True)
    return Launched(host, "--store", store)


def _say(weave: Launched, *command: str) -> None:
    print(f"\n{weave.host.name}$ {shlex.join(command)}", flush=True)


def _docker(weave: Launched, *arguments: str) -> None:
    _say(weave, "docker", *arguments)
    print(weave.docker(*arguments).stdout, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
