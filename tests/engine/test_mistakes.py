"""What a new user types wrongly first, with nothing but README and --help, and what is printed.

``python tests/engine/test_mistakes.py`` shows the table as it happens, on a host of its own.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched

_ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.root, pytest.mark.engine]

#: What is typed while nothing runs, and what is printed; HOST stands for the host's directory, N for a number.
BEFORE = [
    ("weave lanch", "no command 'lanch': did you mean 'launch'?"),
    ("weave env", "weave proxy is not running: `weave launch` starts it"),
    ("weave run -ti ubuntu", "weave router is not running (nothing answers at 127.0.0.1:6784): `weave launch` starts "
     "it"),
    ("weave launch --ipalloc-range 172.17.0.0/16", "weave router did not start: range 172.17.0.0/16 overlaps the route "
     "172.17.0.0/16 dev docker0 of this host; choose another with --ipalloc-range, or use --force"),
    ("weave launch-proxy -H 127.0.0.1", "listener '127.0.0.1': write tcp://address:port or unix:///path"),
    ("weave launch-proxy --tlsverify", "TLS: can't read HOST/home/.docker/key.pem: No such file or directory; "
     "`weave certs` makes what is needed"),
    ("weave launch-proxy --no-rewrite-host", "launch-proxy has no option --no-rewrite-host: did you mean "
     "--no-rewrite-hosts?"),
    ("DOCKER_HOST=unix:///run/dokcer.sock weave launch", "Docker at /run/dokcer.sock did not answer: No such file or "
     "directory: start Docker, or correct DOCKER_HOST"),
    ("DOCKER_HOST=ssh://vm weave launch", "DOCKER_HOST: docker host 'ssh://vm': only unix:///path is supported, since "
     "weave works on the machine that Docker runs on"),
    ("weave launch-proxy -H $DOCKER_HOST", "weave proxy did not start: listener unix://HOST/docker.sock is the Docker "
     "socket itself: the proxy would talk to itself; choose another -H or DOCKER_HOST"),
    ("weave launch --state-dir /proc/weave", "weave router did not start: can't make /proc/weave: No such file or "
     "directory; --state-dir names another directory"),
    ("weave reset --froce", "reset has no option --froce: did you mean --force?"),
]

#: What is typed while it runs, beside a running container "web" that has 10.2.1.1/24 and one that never ran, "cold".
WHILE = [
    ("weave launch", "weave proxy is already running (pid N); `weave stop-proxy` stops it"),
    ("weave launch-router", "weave router is already running (at 127.0.0.1:6784); `weave stop-router` stops it"),
    ("weave start", "a container is missing: see `weave start --help`"),
    ("weave attach wbe", "No such container: wbe: did you mean web?"),
    ("weave attach cold", "cold is not running: `weave start cold` starts it, and attaches it"),
    ("weave attach web 10.2.1.7/24", "expected [ADDR…] CONTAINER, found 'web 10.2.1.7/24': the container comes last, "
     "as in `weave attach 10.2.1.7/24 web`"),
    ("weave run 10.2.1.2 -ti ubuntu", 'invalid address "10.2.1.2": the prefix length is missing, as in "10.2.1.2/24"'),
    ("weave run 10.2.1.1/24 -ti ubuntu", "address 10.2.1.1/24 is taken by web (ID): choose another, or "
     "`weave detach 10.2.1.1/24 web`"),
    ("weave attach net:10.99.0.0/12 web", 'invalid address "net:10.99.0.0/12": bits after the prefix are not zero; '
     'the subnet is "net:10.96.0.0/12"'),
    ("weave expose 172.17.0.9/16", "172.17.0.9/16 overlaps the route 172.17.0.0/16 dev docker0 of this host; choose "
     "another, or use --force"),
    ("weave attach weave", "weave can't be attached: it has the host's network"),
    ("weave env --check", "docker goes to an engine at unix://HOST/docker.sock by DOCKER_HOST, not to the proxy at "
     "unix://HOST/weave.sock: `eval \"$(weave env)\"` leads it there"),
]


class Shell:
    """A shell on a host, for the lines of the tables."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        (host.dir / "home").mkdir()

    def type(self, line: str) -> tuple[int, str, str]:
        """Status, stdout and stderr of a line, with HOST, ID and N for what is different every time."""
        line = line.replace("weave ", f"{shlex.quote(sys.executable)} -m weavemw ", 1)
        done = self.host.run("sh", "-c", line, check=False,
                             env={"PYTHONPATH": str(_ROOT), "HOME": str(self.host.dir / "home")})
        said = done.stderr.replace(str(self.host.dir), "HOST")
        said = re.sub(r"\(pid \d+\)", "(pid N)", re.sub(r"\([0-9a-f]{12}\)", "(ID)", said))
        return done.returncode, done.stdout, said

    def launch(self) -> None:
        """Bring the host into the state of the second table."""
        weave = Launched(self.host)
        self.host.docker("tag", "busybox", "ubuntu")
        weave.weave("run", "10.2.1.1/24", "--name", "web", "busybox", "sleep", "3600")
        self.host.docker("create", "--name", "cold", "busybox", "true")


@pytest.fixture(scope="module")
def shell(make_module_host: Callable[..., TestHost]) -> Iterator[Shell]:
    return Shell(make_module_host())


@pytest.fixture(scope="module")
def launched(shell: Shell) -> Shell:
    shell.launch()
    return shell


def _is_one_line(shell: Shell, typed: str, printed: str) -> None:
    status, out, err = shell.type(typed)
    assert (err, out) == (f"weave: {printed}\n", "")
    assert status


@pytest.mark.parametrize(("typed", "printed"), BEFORE)
def test_a_mistake_before_it_runs(shell: Shell, typed: str, printed: str) -> None:
    """One line that says what to do; nothing on stdout, a status other than 0, no container left."""
    _is_one_line(shell, typed, printed)
    assert shell.host.docker("ps", "-aq").stdout == ""


@pytest.mark.parametrize(("typed", "printed"), WHILE)
def test_a_mistake_while_it_runs(launched: Shell, typed: str, printed: str) -> None:
    """One line that says what to do; nothing on stdout, a status other than 0, no address and no container more."""
    before = launched.host.docker("ps", "-aq").stdout
    _is_one_line(launched, typed, printed)
    assert launched.host.docker("ps", "-aq").stdout == before


def _show() -> None:
    with TestHost() as host:
        shell = Shell(host)
        for rows, prepare in ((BEFORE, lambda: None), (WHILE, shell.launch)):
            prepare()
            for typed, _ in rows:
                status, out, err = shell.type(typed)
                print(f"$ {typed}\n{out}{err}status {status}\n")


if __name__ == "__main__":
    _show()
