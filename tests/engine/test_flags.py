"""Every flag of ``docker run``: exit status, output and rights as without us, and the network there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched

pytestmark = [pytest.mark.root, pytest.mark.engine]

#: What a container says of itself; the last line is of the weave network alone.
SCRIPT = """\
id; pwd; umask; env | grep -v ^HOSTNAME= | sort; ulimit -a
grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; cat /proc/self/oom_score_adj
grep -E ' /(own|data|tmp|dev/shm|sys/fs/cgroup)[ /]' /proc/mounts | cut -d' ' -f2-4 | sort; grep added /etc/hosts
[ -e /sys/class/net/ethwe ] && echo ON-WEAVE >&2
exit 7
"""

ATTACHED, ALONE, ENDS = "attached", "left alone", "has no say"

#: What to run with, and whether it is on the weave network. FILES is a folder of :func:`weave`'s.
CASES: dict[str, tuple[str, str]] = {
    "who, where": ("--user 1:2 --group-add 3 --workdir /tmp --env A=1 --env-file FILES/env --label x=y "
                   "--label-file FILES/labels", ATTACHED),
    "annotation": ("--annotation a=b", ATTACHED),
    "names": ("--hostname own --domainname example.org --add-host added:192.0.2.1 --dns 192.0.2.53 "
              "--dns-option ndots:2 --dns-search example.org", ATTACHED),
    "memory": ("--memory 64m --memory-reservation 32m --memory-swap 64m --memory-swappiness 10 --oom-score-adj 5 "
               "--shm-size 1m", ATTACHED),
    "out of memory": ("--oom-kill-disable", ATTACHED),
    "kernel memory": ("--kernel-memory 64m", ENDS),
    "processor": ("--cpu-period 100000 --cpu-quota 50000 --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0", ATTACHED),
    "processors": ("--cpus 0.5 --pids-limit 50 --ulimit nofile=99", ATTACHED),
    "real time": ("--cpu-rt-period 1000000 --cpu-rt-runtime 950000", ENDS),
    "weight": ("--blkio-weight 300 --blkio-weight-device /dev/null:300", ENDS),
    "devices' rates": ("--device-read-bps /dev/null:1mb --device-read-iops /dev/null:9 "
                       "--device-write-bps /dev/null:1mb --device-write-iops /dev/null:9", ENDS),
    "of Windows": ("--cpu-count 1 --cpu-percent 50 --io-maxbandwidth 1m --io-maxiops 9", ENDS),
    "isolation": ("--isolation default", ENDS),
    "rights": ("--cap-add NET_ADMIN --cap-drop CHOWN --security-opt no-new-privileges --sysctl net.ipv4.ip_forward=0",
               ATTACHED),
    "no rights": ("--cap-drop ALL --read-only --user 65534", ATTACHED),
    "all rights": ("--privileged", ENDS),
    "devices": ("--device /dev/null:/dev/own --device-cgroup-rule c*:*r", ENDS),
    "graphics": ("--gpus all", ENDS),
    "files": ("--volume own:/data --mount type=tmpfs,target=/own --tmpfs /tmp:size=64k --volume-driver local",
              ATTACHED),
    "files of another": ("--volumes-from other", ATTACHED),
    "storage": ("--storage-opt size=1g", ENDS),
    "the engine's socket": ("--use-api-socket", ENDS),
    "an init": ("--init --stop-signal SIGUSR1 --stop-timeout 1", ATTACHED),
    "namespaces": ("--ipc private --uts host --cgroupns private --cgroup-parent /flags", ATTACHED),
    "the host's processes": ("--pid host", ATTACHED),
    "the host's users": ("--userns host", ATTACHED),
    "health": ("--health-cmd true --health-interval 1h --health-retries 2 --health-start-period 1s --health-timeout 1s",
               ATTACHED),
    "health at the start": ("--health-start-interval 1s --health-cmd true", ENDS),
    "no health": ("--no-healthcheck --restart no --log-driver json-file --log-opt max-size=1m", ATTACHED),
    "ports": ("--expose 81 --publish 127.0.0.1:18099:80 --publish-all", ATTACHED),
    "the host's network": ("--network host", ALONE),
    "another's network": ("--network container:other", ALONE),
    "no network": ("--network none", ATTACHED),
    "a network": ("--network flags --network-alias further --ip 198.18.77.9 --mac-address 02:42:c6:12:4d:09", ATTACHED),
    "a network of IPv6": ("--network flags --ip6 fd00:77::9", ENDS),
    "link-local": ("--network flags --link-local-ip 169.254.7.7", ENDS),
    "a link": ("--name own --link other:added", ATTACHED),
    "the name": ("--name own --cidfile CIDFILE", ATTACHED),
    "an entrypoint": ("--entrypoint sh", ATTACHED),
    "the image": ("--pull never --disable-content-trust --platform linux/amd64", ENDS),
    "quietly": ("--quiet", ENDS),
    "runtime": ("--runtime runc", ATTACHED),
    "streams": ("--attach stdout --attach stderr --interactive --sig-proxy=false --detach-keys ctrl-a", ATTACHED),
    "a terminal": ("--tty", ENDS),
    "apart": ("--detach", ENDS),
    "help": ("--help", ENDS),
    "no such flag": ("--nosuch", ENDS),
}


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Iterator[Launched]:
    launched = Launched(make_module_host())
    (launched.host.dir / "env").write_text("B=two words\n")
    (launched.host.dir / "labels").write_text("l=m\n")
    launched.host.docker("network", "create", "--subnet", "198.18.77.0/24", "flags")
    launched.host.docker("run", "-d", "--name", "other", "-v", "/own", "busybox", "sleep", "9999")
    yield launched
    launched.host.docker("rm", "-f", "other")


def said(weave: Launched, case: str, through: bool) -> tuple[int, str, str]:
    """Exit status, and what was written: without ids and times, and without the warnings that are ours."""
    cidfile = Path(weave.host.dir / "cid")
    cidfile.unlink(missing_ok=True)
    options = CASES[case][0].replace("FILES", str(weave.host.dir)).replace("CIDFILE", str(cidfile)).split()
    command = ["-c", SCRIPT] if "--entrypoint" in options else ["sh", "-c", SCRIPT]
    docker = weave.docker if through else weave.host.docker
    done = docker("run", "--rm", *options, "busybox", *command, check=False, input="")
    own = r'\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b|time="[^"]+"'
    stdout, stderr = (re.sub(own, "OWN", text) for text in (done.stdout, done.stderr))
    return done.returncode, stdout, re.sub(r"(?m)^WARNING: weave: .*\n", "", stderr)


@pytest.mark.parametrize("case", CASES)
def test_a_flag_does_what_it_does_without_us(weave: Launched, case: str) -> None:
    """Whether this engine can do it or not."""
    direct, through = said(weave, case, through=False), said(weave, case, through=True)
    assert (through[0], *(text.replace("ON-WEAVE\n", "") for text in through[1:])) == direct
    network = CASES[case][1]
    if network != ENDS and "unknown flag" not in direct[2]:
        assert direct[0] == 7, direct
        assert ("ON-WEAVE\n" in through[2]) is (network == ATTACHED)


def test_every_flag_has_a_case(weave: Launched) -> None:
    """Of the docker command that is there."""
    shown = weave.host.docker("run", "--help").stdout
    flags = set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", shown, re.MULTILINE))
    tried = {word.partition("=")[0] for options, _ in CASES.values() for word in options.split()} | {"--rm"}
    assert len(flags) > 90
    assert flags <= tried
