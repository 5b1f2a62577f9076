"""`weave reset` on a real engine: what goes, what stays, and what is said of it."""

from __future__ import annotations

import shutil
import signal

import pytest
from host import TestHost
from launched import Launched

pytestmark = [pytest.mark.root, pytest.mark.engine]


def _rules(host: TestHost) -> str:
    return "".join(host.run("iptables", "-t", table, "-S").stdout.replace(" -m comment", "")
                   for table in ("filter", "nat"))


def _everything(host: TestHost) -> tuple[object, ...]:
    """All that weave could leave behind."""
    files = [path.exists() for path in (host.state_dir, host.run_dir, host.dir / "weave.sock")]
    return set(host.links()), _rules(host), files, set(host.docker("images", "-q").stdout.split()), \
        host.docker("ps", "-aq").stdout


def test_nothing_is_left_of_it(fresh_host: TestHost) -> None:
    """Interfaces, bridge, rules, sockets, state, image: all as before the launch, whatever else has gone by then."""
    fresh_host.state_dir.rmdir()
    fresh_host.run_dir.rmdir()
    before = _everything(fresh_host)
    weave = Launched(fresh_host)
    weave.weave("expose")
    weave.weave("run", "--name", "web", "busybox", "sleep", "3600")
    weave.weave("detach", "web")
    weave.docker("run", "--rm", "busybox", "true")
    fresh_host.docker("rm", "-f", "web")
    assert weave.weave("reset").stdout == ""
    assert _everything(fresh_host) == before
    assert weave.weave("reset").stdout == ""  # again
    weave = Launched(fresh_host)  # half of it gone by other hands
    weave.docker("run", "--rm", "busybox", "true")
    fresh_host.docker("rm", "-f", "weave", "weaveproxy")
    fresh_host.ip("link", "delete", "weave")
    shutil.rmtree(fresh_host.state_dir)
    assert weave.socket.exists()
    assert weave.weave("reset").stdout == ""
    assert _everything(fresh_host) == before


def test_what_containers_need_stays_and_is_named(fresh_host: TestHost) -> None:
    """Containers keep running, can still be started, and get their network back after the next launch."""
    weave = Launched(fresh_host)
    weave.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600")
    weave.docker("create", "--name", "db", "busybox", "true")
    (fresh_host.state_dir / "notes").touch()
    done = weave.weave("reset")
    assert "at their next start these containers wait until weave is launched again: db web; " in done.stderr
    left = done.stdout.splitlines()
    assert "containers need it to start, and wait for the network: db web" in left[0]
    assert left[1:] == [f"left: {fresh_host.state_dir}, since it holds files of others: notes"]
    assert fresh_host.docker("inspect", "-f", "{{.State.Running}}", "web").stdout == "true\n"
    assert not weave.veths()
    assert "weave" not in fresh_host.links()
    weave.weave("launch", "-H", weave.via)
    assert weave.docker("start", "-a", "db").returncode == 0
    weave.docker("restart", "-t", "0", "web")
    assert weave.ethwe("web")


def test_released_containers_start_without_weave(fresh_host: TestHost) -> None:
    """At once, and those that are restarted; attached again once weave is there again. In the end nothing is left."""
    weave = Launched(fresh_host)
    weave.docker("run", "-d", "--name", "web", "--restart=always", "busybox", "sleep", "3600")
    weave.docker("create", "--name", "db", "busybox", "echo", "here")
    done = weave.weave("uninstall")
    assert "db web" in done.stdout
    assert not done.stderr
    assert fresh_host.docker("start", "-a", "db").stdout == "here\n"
    fresh_host.docker("restart", "-t", "0", "web")
    shown = fresh_host.docker("top", "web", "-o", "pid,args").stdout
    assert "sleep 3600" in shown
    assert "/dev/w" not in shown
    weave.weave("launch", "-H", weave.via)
    weave.docker("restart", "-t", "0", "web")
    assert weave.ethwe("web")
    weave.docker("rm", "-f", "web", "db")
    assert weave.weave("uninstall").stdout == ""
    assert not fresh_host.state_dir.exists()


def test_without_docker_the_rest_is_removed_by_force(fresh_host: TestHost) -> None:
    """Interfaces, bridge and state; the wait program stays, since nobody says who needs it."""
    weave = Launched(fresh_host)
    weave.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600")
    weave.weave("stop")
    fresh_host.kill_dockerd(signal.SIGTERM)
    refused = weave.weave("reset", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "weave" in fresh_host.links()
    left = weave.weave("reset", "--force").stdout
    assert "since Docker does not say which containers need it to start" in left
    assert "weave" not in fresh_host.links()
    assert not (fresh_host.state_dir / "router.db").exists()
    assert list((fresh_host.state_dir / "wait").iterdir())
    assert weave.weave("reset", "--force").stdout == left
