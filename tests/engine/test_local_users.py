"""What users of the host who are not root can do to weave: nobody, and a member of the group of Docker's socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

_NOBODY = 65534

#: Locks a file for reading by an open file description, which has no pid: F_GETLK gives -1 for it (fcntl(2)).
_OFD_LOCK = """
import fcntl, os, struct, sys, time
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 0, 0))
time.sleep(60)
"""

#: In a process namespace of its own, since what is tried once signalled every process there is.
_STOP_LOCKED = r"""
proxy() {
    weave launch-proxy --foreground -H unix://$1 &
    for _ in 1 2 3 4 5 6 7 8 9 10; do weave status proxy | grep -q "weave proxy is running" && break; sleep 0.5; done
}
sleep 120 & bystander=$!
proxy $1; first=$!; weave stop-proxy; wait $first
setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 -c "$2" $WEAVEMW_RUN_DIR/proxy.json & locker=$!
sleep 1
kill -0 $locker || echo "it is not locked"
proxy $1; second=$!; weave stop-proxy; echo "stopped: $?"; wait $second
kill -0 $bystander && kill -0 $locker && echo "the others live"
kill $bystander $locker
true
"""


@pytest.fixture(scope="module")
def weave(engine_host: TestHost) -> Iterator[Launched]:
    """Weave, with one container on its network and one left alone."""
    launched = Launched(engine_host)
    launched.docker("run", "-d", "--name", "web", "busybox", "sleep", "999")
    yield launched
    launched.host.docker("rm", "-f", "web", check=False)
    launched.weave("stop")


def _docker_group(weave: Launched) -> int:
    return weave.host.socket.stat().st_gid


def _openable(weave: Launched, group: int) -> set[str]:
    """Of what is in the state and run directories, the files that a user of a group can open."""
    places = (weave.host.run_dir, weave.host.state_dir)
    found = [path for place in places for path in place.rglob("*") if path.is_file()]
    done = weave.host.run("setpriv", f"--reuid={_NOBODY}", f"--regid={group}", "--clear-groups", "sh", "-c",
                          'for file; do ( : < "$file" ) 2>/dev/null && echo "$file"; done; true', "sh", *found)
    return {str(Path(line).relative_to(weave.host.dir)) for line in done.stdout.splitlines()}


def test_nobody_can_open_what_is_locked_or_trusted(weave: Launched) -> None:
    """Though the state directory is open to all: neither the databases, nor locks, nor what containers are called."""
    assert weave.host.state_dir.stat().st_mode & 0o005 == 0o005
    assert (weave.host.state_dir / "router.db-shm").exists()
    opened = {name for name in _openable(weave, _NOBODY) if not name.startswith("weave-state/wait/")}
    assert opened == {"weave-run/proxy.json"}


def test_members_of_dockers_group_can_read_what_is_for_them(weave: Launched) -> None:
    """And nothing else; none of it is locked by anybody."""
    assert eventually(lambda: (weave.host.run_dir / "status/watcher.json").exists())
    opened = {name for name in _openable(weave, _docker_group(weave)) if not name.startswith("weave-state/wait/")}
    assert {"weave-run/proxy.json", "weave-run/status/watcher.json"} <= opened
    assert all(name.startswith("weave-run/status/") for name in opened - {"weave-run/proxy.json"})
    inodes = {(weave.host.dir / name).stat().st_ino for name in opened}
    locked = {int(line.split()[5].split(":")[2]) for line in Path("/proc/locks").read_text().splitlines()
              if "->" not in line}
    assert not inodes & locked


def test_the_proxy_alone_is_stopped(fresh_host: TestHost) -> None:
    """A lock that anybody holds on a file that anybody may read does not lead a signal astray."""
    via = fresh_host.dir / "weave.sock"
    done = fresh_host.run("unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", _STOP_LOCKED, "sh", via, _OFD_LOCK,
                          env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert [line for line in done.stdout.splitlines() if "proxy" not in line] == ["stopped: 0", "the others live"]
