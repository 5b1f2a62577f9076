"""The demonstration, as `make demo` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from host import TestHost

pytestmark = pytest.mark.engine

DEMO = Path(__file__).parents[2] / "examples" / "demo.sh"


def footprint(host: TestHost) -> dict[str, set[str]]:
    """What a demonstration could leave behind on a host."""
    return {
        "containers": set(host.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()),
        "images": set(host.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()),
        "volumes": set(host.docker("volume", "ls", "--quiet").stdout.split()),
        "links": set(host.links()),
        "rules": {*host.run("iptables", "-S").stdout.splitlines(), *host.run("ip6tables", "-S").stdout.splitlines()},
        "state": {path.name for place in (host.state_dir, host.run_dir) for path in place.iterdir()},
    }


def test_the_demo_shows_containers_that_find_each_other_by_name(fresh_host: TestHost) -> None:
    """On a running engine, the demo pings by name, and leaves everything as it found it, the user's own `web` too."""
    fresh_host.docker("run", "--detach", "--name", "web", "busybox", "sleep", "1000")
    before = footprint(fresh_host)
    shown = fresh_host.run(DEMO, timeout=100).stdout
    assert "3 packets transmitted, 3 packets received" in shown
    assert "weave proxy is running" in shown
    assert footprint(fresh_host) == before


def test_a_demo_that_fails_takes_down_what_it_started(fresh_host: TestHost) -> None:
    """A demo that can't go on says why, fails, and leaves nothing."""
    before = footprint(fresh_host)
    done = fresh_host.run(DEMO, check=False, timeout=100, env={"WEAVEMW_MTU": "nonsense"})
    assert done.returncode != 0
    assert "nonsense" in done.stderr
    assert footprint(fresh_host) == before
