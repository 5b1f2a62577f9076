"""What users of the host who are not root can do to weave: nobody, and a member of the group of Docker's socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
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
    weave.host.state_dir.chmod(0o755)
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


@pytest.mark.parametrize(("words", "said"), [
    ("status", "weave proxy is running"), ("status router", "Service: router"), ("status dns", "web"),
    ("status proxy", "1 attached"), ("status --json", '"running": true'), ("healthcheck", "healthy: "),
    ("metrics", "weave_proxy_up 1.0"), ("report", '"NickName"'), ("report --text", "follows Docker's events"),
    ("env", "DOCKER_HOST=unix://"), ("config", "-H=unix://"), ("dns-lookup web", "10.32."), ("dns-args", "--dns="),
    ("docker-bridge-ip", "172.17."), ("version", "weave "), ("ps weave:expose", "weave:expose"), ("prime", ""),
    ("connect 192.0.2.1", ""), ("forget 192.0.2.1", ""), ("dns-add web -h extra.weave.local", ""),
    ("dns-remove web -h extra.weave.local", ""), ("launch --print-config", "docker-host"),
])
def test_what_needs_no_root_is_for_members_of_dockers_group(weave: Launched, words: str, said: str) -> None:
    """Whatever they ask; the router's socket lets them change names."""
    assert eventually(lambda: weave.status()["proxy"]["watcher"]["connected"])
    done = weave.weave_as(_NOBODY, _docker_group(weave), *words.split())
    assert (done.returncode, said in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("words", [
    "run --name other busybox sleep 99", "start stopped", "attach plain", "attach 10.32.5.5/12 plain", "detach web",
    "expose 10.32.9.9/12", "hide", "setup", "ps web", "reset", "launch-proxy --foreground"])
def test_what_needs_root_says_so_before_anything_is_done(weave: Launched, words: str) -> None:
    """In one line: no container is made or started for a user who can't attach it, and no address is taken."""
    weave.host.docker("rm", "-f", "stopped", "plain", "other", check=False)
    weave.host.docker("create", "--name", "stopped", "busybox", "sleep", "999")
    weave.host.docker("run", "-d", "--name", "plain", "busybox", "sleep", "999")
    before = weave.held(), weave.veths(), weave.host.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout
    done = weave.weave_as(_NOBODY, _docker_group(weave), *words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "root" in done.stderr
    assert (weave.held(), weave.veths(), weave.host.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout) \
        == before
    weave.host.docker("rm", "-f", "stopped", "plain", check=False)


@pytest.mark.parametrize("words", ["status", "healthcheck", "metrics"])
def test_all_others_are_told_that_it_is_not_for_them(weave: Launched, words: str) -> None:
    """In a line; `weave env` they may ask, since everybody sees where the proxy listens."""
    done = weave.weave_as(_NOBODY, _NOBODY, words)
    assert "Permission denied: try again as root" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "DOCKER_HOST" in weave.weave_as(_NOBODY, _NOBODY, "env").stdout


def test_others_take_no_addresses_where_tcp_is_for_questions(make_host: Callable[[], TestHost]) -> None:
    """Nor remove names; proxy, command and Docker's group go by the socket."""
    weave = Launched(make_host(), "--http-read-only")
    weave.docker("run", "-d", "--name", "web", "busybox", "sleep", "999")
    before = weave.left()
    for method, path in (("POST", "/ip/mine"), ("DELETE", "/name"), ("DELETE", "/ip/weave:expose")):
        done = weave.host.run("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "curl", "-s",
                              "-X", method, f"http://127.0.0.1:6784{path}")
        assert done.stdout == "only the router's unix socket takes changes (--http-read-only)\n"
    inside = weave.host.docker("run", "--rm", "--net=host", "busybox", "wget", "-qO-", "--post-data=",
                               "http://127.0.0.1:6784/ip/mine", check=False)
    assert "403" in inside.stderr
    assert weave.left() == before
    assert weave.weave_as(_NOBODY, _docker_group(weave), "dns-add", "web", "-h", "extra.weave.local").returncode == 0
    assert weave.weave("dns-lookup", "extra").stdout
    weave.docker("rm", "-f", "web")
    assert eventually(lambda: not weave.held())
    weave.weave("stop")


def test_last_errors_are_of_what_there_is(weave: Launched) -> None:
    """No mistake of a user, and nothing of a container that is gone."""
    web = weave.ethwe("web")
    for claim in ("10.300.0.0/24", "net:192.168.9.0/24", web):
        done = weave.docker("run", "--rm", "-e", f"WEAVE_CIDR={claim}", "busybox", "true", check=False)
        assert done.returncode
    weave.host.docker("create", "--name", "late", "--entrypoint", "true", "busybox")
    made = weave.docker("create", "--name", "taken", "-e", f"WEAVE_CIDR={web}", "busybox", "sleep", "99").stdout.strip()
    weave.host.docker("start", "taken")
    assert eventually(lambda: any(made[:12] in each["message"] for each in weave.status()["errors"]))
    weave.host.docker("rm", "-f", "taken", "late")
    gone = ("WEAVE_CIDR", "192.168.9.", "Unable to claim", made[:12])
    assert eventually(lambda: not [each for each in weave.status()["errors"]
                                   if any(part in each["message"] for part in gone)]), weave.status()["errors"]


def test_refused_clients_fill_no_log(weave: Launched) -> None:
    """However many there are: ten lines of a kind are as many as anybody reads."""
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(weave.socket))
            client.sendall(b"GET /version HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: nonsense\r\n\r\n")
            client.recv(1000)
    assert eventually(lambda: " more in 10 s" in weave.log())
    assert weave.log().count("Refused a request") <= 50
    assert not [each for each in weave.status()["errors"] if "Refused" in each["message"]]


def test_the_proxy_alone_is_stopped(fresh_host: TestHost) -> None:
    """A lock that anybody holds on a file that anybody may read does not lead a signal astray."""
    via = fresh_host.dir / "weave.sock"
    done = fresh_host.run("unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", _STOP_LOCKED, "sh", via, _OFD_LOCK,
                          env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert [line for line in done.stdout.splitlines() if "proxy" not in line] == ["stopped: 0", "the others live"]
