"""A container that was created through the proxy looks, through the proxy, like one that was created past it."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from host import TestHost, busybox_root
from launched import Launched

from weavemw.dockerapi.hosts import Unix
from weavemw.dockerapi.wait_mount import PLACES
from weavemw.transport.http_client import HttpClient

pytestmark = pytest.mark.engine

#: The table of what differs, and why. Its first column has patterns of paths.
_DOCS = Path(__file__).parents[2] / "docs/no-trace.md"
JUSTIFIED = re.findall(r"^\| `([^`]+)`", _DOCS.read_text(), re.MULTILINE)

SLEEP = ["sleep", "99"]
_SCRIPT = b'#!/bin/sh\nexec sleep "$@"\n'
IMAGES: dict[str, tuple[str, ...]] = {
    "plain": (), "cmd": ('CMD ["sleep","99"]',), "entry": ('ENTRYPOINT ["sleep","98"]',),
    "both": ('ENTRYPOINT ["sleep"]', 'CMD ["97"]'), "cleared": ('ENTRYPOINT [""]', 'CMD ["sleep","99"]'),
    "shell": ("ENTRYPOINT sleep 96", 'CMD ["ignored"]'), "shell-cmd": ("CMD sleep 95; true",),
    "rich": ('CMD ["sleep","99"]', 'VOLUME ["/data","/more data"]', "EXPOSE 80/tcp 53/udp", "ENV A=1 B=<&>",
             "LABEL l=image Command=x", "WORKDIR /work/dir", "USER nobody",
             "HEALTHCHECK --interval=1h --retries=2 CMD true", "ONBUILD RUN true"),
}


def create(image: str = "cmd", **fields: Any) -> dict[str, Any]:
    """The body of a create."""
    return {"Image": image, **fields}


def host(**fields: Any) -> dict[str, Any]:
    """The body of a create with a HostConfig."""
    return create(HostConfig=fields)


CREATES: dict[str, dict[str, Any]] = {
    "command of the image": create(),
    "own command": create("plain", Cmd=SLEEP),
    "own command in place of the image's": create(Cmd=["sleep", "94"]),
    "command as a string": create("entry", Cmd="1"),
    "nulls": create(Cmd=None, Entrypoint=None, HostConfig=None),
    "empty lists": create(Cmd=[], Entrypoint=[], HostConfig={"Binds": [], "Mounts": [], "Dns": []}),
    "empty command": create("entry", Cmd=[]),
    "entrypoint of the image": create("entry"),
    "entrypoint and command of the image": create("both"),
    "entrypoint of the image, own command": create("both", Cmd=["93"]),
    "own entrypoint": create("both", Entrypoint=["sleep", "92"]),
    "own entrypoint, own command": create("both", Entrypoint=["sleep"], Cmd=["91"]),
    "own entrypoint, empty command": create("both", Entrypoint=SLEEP, Cmd=[]),
    "entrypoint as a string": create("both", Entrypoint="sleep", Cmd=["90"]),
    "entrypoint cleared by a list": create("both", Entrypoint=[], Cmd=SLEEP),
    "entrypoint cleared by the CLI": create("both", Entrypoint=[""], Cmd=SLEEP),
    "entrypoint cleared by the image": create("cleared"),
    "shell form": create("shell"),
    "shell form of the command": create("shell-cmd"),
    "words with blanks, quotes and signs": create(
        "plain", Cmd=["sh", "-c", "sleep 99; echo 'a b' \"<&>\" \u00fc\n", ""]),
    "program with a blank": create("plain", Entrypoint=["/bin/a sleep"], Cmd=["99"]),
    "program with a blank, no entrypoint": create("plain", Cmd=["/bin/a sleep", "99"]),
    "image with everything": create("rich"),
    "image with everything, changed": create("rich", Env=["B=2", "C="], Labels={"l": "own", "m": ""}, User="root",
                                             WorkingDir="/tmp", Volumes={"/data": {}, "/third": {}}, StopTimeout=3,
                                             Healthcheck={"Test": ["CMD", "true"], "Interval": 3600000000000}),
    "a terminal": create("plain", Cmd=["sh"], Tty=True, OpenStdin=True, StdinOnce=True, AttachStdin=True),
    "a hostname": create(Hostname="web", Domainname="example.org"),
    "labels that look like ours": create(Labels={"Command": "/dev/w sh", "x": "/wait/0123456789ab/w:/dev/w:ro"}),
    "binds": host(Binds=["/tmp:/a", "/tmp:/b:ro", "named:/c", "/anonymous"]),
    "mounts": host(Mounts=[{"Type": "bind", "Source": "/tmp", "Target": "/a", "ReadOnly": True},
                           {"Type": "volume", "Source": "named", "Target": "/b"},
                           {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 65536}}]),
    "a bind of /dev": host(Binds=["/dev:/dev"]),
    "tmpfs": host(Tmpfs={"/run": "rw,size=64k"}),
    "ports": create(ExposedPorts={"81/tcp": {}}, HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}}),
    "restart policy": host(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3}),
    "init": host(Init=True),
    "no init": host(Init=False),
    "read-only": host(ReadonlyRootfs=True),
    "devices": host(Devices=[{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]),
    "capabilities": host(CapAdd=["NET_ADMIN"], CapDrop=["ALL"], SecurityOpt=["no-new-privileges"]),
    "privileged": host(Privileged=True),
    "limits": host(Memory=67108864, CpuShares=512, PidsLimit=50, Ulimits=[{"Name": "nofile", "Soft": 99, "Hard": 99}],
                   ShmSize=1048576, OomScoreAdj=5),
    "sysctls": host(Sysctls={"net.ipv4.ip_forward": "0"}),
    "extra hosts": host(ExtraHosts=["db:10.0.0.9"]),
    "dns options": host(Dns=["192.0.2.53"], DnsSearch=["example.org"], DnsOptions=["ndots:2"]),
    "no network of docker's": host(NetworkMode="none"),
    "bridge by name": host(NetworkMode="bridge"),
    "a network of its own": create(HostConfig={"NetworkMode": "own"},
                                   NetworkingConfig={"EndpointsConfig": {"own": {"Aliases": ["db"]}}}),
    "log options": host(LogConfig={"Type": "json-file", "Config": {"max-size": "1m"}}),
    "namespaces": host(PidMode="host", IpcMode="private", CgroupnsMode="host"),
    "groups": create(User="nobody:nobody", HostConfig={"GroupAdd": ["0"]}),
    "left alone": create(Env=["WEAVE_CIDR=none"]),
    "with an address": create(Env=["WEAVE_CIDR=10.33.1.7/24"]),
}


#: What is each container's own.
_OWN = {"Created", "time", "timeNano", "execDuration", "Pid", "IPAddress", "MacAddress", "Hash"}


class Docker:
    """Docker's API by one way."""

    def __init__(self, path: Path) -> None:
        self._client = HttpClient(Unix(str(path)))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._client.ask(method, path, timeout=60, body=data, headers={"Content-Type": "application/json"})
        return answer.status, answer.body

    def get(self, path: str) -> Any:
        """The JSON of an answer that must be no error."""
        return self._json(*self.ask("GET", path))

    def post(self, path: str, body: object = None) -> Any:
        """The same of a POST."""
        return self._json(*self.ask("POST", path, body))

    def remove(self, known: str) -> None:
        """Remove a container with its volumes."""
        self.ask("DELETE", f"/containers/{known}?force=1&v=1")

    @staticmethod
    def _json(status: int, body: bytes) -> Any:
        assert status < 300, body
        return json.loads(body) if body else None


class Engine:
    """One host's Docker, past the proxy and through it."""

    def __init__(self, host: TestHost) -> None:
        self.launched = Launched(host)
        self.past, self.through = Docker(host.socket), Docker(self.launched.socket)


def record(docker: Docker, body: dict[str, Any]) -> dict[str, Any]:
    """All that is to be seen of a container made by this create, from create to commit, field by field."""
    since = time.time()
    made = docker.post("/containers/create?name=it", body)
    known = made["Id"]
    try:
        seen = {"created": made, "inspected": docker.get(f"/containers/{known}/json?size=1"),
                "listed": listed(docker, known)}
        if refusal := started(docker, known):
            return dict(flat(normal(seen | {"refused": refusal}, known)))
        seen |= {"running": docker.get(f"/containers/{known}/json"), "up": listed(docker, known),
                 "exec": executed(docker, known), "df": in_df(docker, known)}
        docker.post(f"/containers/{known}/kill")
        docker.post(f"/containers/{known}/wait")
        seen |= {"changes": docker.get(f"/containers/{known}/changes"), "export": exported(docker, known),
                 "image": committed(docker, known), "events": events(docker, known, since)}
    finally:
        docker.remove(known)
    return dict(flat(normal(seen, known)))


def started(docker: Docker, known: str) -> str:
    """Start it; what the daemon says if it doesn't: some machines have no capabilities to give to a privileged one."""
    status, body = docker.ask("POST", f"/containers/{known}/start")
    return "" if status == 204 else body.decode()


def listed(docker: Docker, known: str) -> Any:
    """The container's row in the list, with its size."""
    return docker.get(f"/containers/json?all=1&size=1&filters={quote(json.dumps({'id': [known]}))}")


def in_df(docker: Docker, known: str) -> Any:
    """Its row in what ``docker system df -v`` reads."""
    return [row for row in docker.get("/system/df").get("Containers") or () if row["Id"] == known]


def executed(docker: Docker, known: str) -> Any:
    """An exec in it."""
    made = docker.post(f"/containers/{known}/exec", {"Cmd": ["true", "x"], "AttachStdout": True})
    return docker.get(f"/exec/{made['Id']}/json")


def exported(docker: Docker, known: str) -> Any:
    """Its files."""
    _, tar = docker.ask("GET", f"/containers/{known}/export")
    with tarfile.open(fileobj=io.BytesIO(tar)) as files:
        return {f"{entry.name} {entry.mode:o} {entry.type!r} {entry.size}": "" for entry in files}


def committed(docker: Docker, known: str) -> Any:
    """An image made of it."""
    made = docker.post(f"/commit?container={known}")["Id"]
    try:
        return {"inspected": docker.get(f"/images/{made}/json"), "history": docker.get(f"/images/{made}/history")}
    finally:
        docker.ask("DELETE", f"/images/{made}")


def events(docker: Docker, known: str, since: float) -> Any:
    """What happened to it."""
    filters = quote(json.dumps({"container": [known]}))
    path = f"/events?since={since:.9f}&until={time.time():.9f}&filters={filters}"
    return [json.loads(line) for line in docker.ask("GET", path)[1].splitlines()]


def normal(value: Any, known: str) -> Any:
    """A value without what differs from one container to the next: ids, times, processes, addresses."""
    if isinstance(value, dict):
        return {normal(key, known): normal(item, known) if key not in _OWN else "OWN" for key, item in value.items()}
    if isinstance(value, list):
        return [normal(item, known) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"\b[0-9a-f]{64}\b", "HASH", value.replace(known, "ID").replace(known[:12], "ID12"))
    value = re.sub(r"^(Up|Exited \(\d+\)) .*(seconds?|minutes?)( ago)?", r"\1 TIME", value)
    value = re.sub(r"/netns/[0-9a-f]{12}$", "/netns/OWN", value)
    return re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)", "TIME", value)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a value and their paths; lists whose order Docker leaves open are sorted."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        if path.endswith((".Mounts", ".changes", ".Ports")):
            value = sorted(value, key=lambda item: json.dumps(item, sort_keys=True))
        for number, item in enumerate(value):
            yield from flat(item, f"{path}.{number}")
    else:
        yield path.lstrip("."), value


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The paths at which two records differ without a justification, with both values."""
    pairs = {path: (one.get(path, "absent"), other.get(path, "absent")) for path in one.keys() | other.keys()}
    return {path: pair for path, pair in pairs.items()
            if pair[0] != pair[1] and not any(fnmatch(path, pattern) for pattern in JUSTIFIED)}


def cloned(docker: Docker, body: dict[str, Any], reader: Docker) -> dict[str, Any]:
    """A create made of what inspect says of another container, as updaters do it."""
    known = docker.post("/containers/create", body)["Id"]
    try:
        shown = reader.get(f"/containers/{known}/json")
    finally:
        docker.remove(known)
    own = {"Hostname": "", "Domainname": ""}  # Docker's own is the other container's id
    return {**shown["Config"], **own, "HostConfig": shown["HostConfig"]}


def root() -> bytes:
    """Busybox's root with a program whose name has a blank."""
    with io.BytesIO(busybox_root()) as made:
        with tarfile.open(fileobj=made, mode="a") as tar:
            script = tarfile.TarInfo("bin/a sleep")
            script.mode, script.size = 0o755, len(_SCRIPT)
            tar.addfile(script, io.BytesIO(_SCRIPT))
        return made.getvalue()


@pytest.fixture(scope="module")
def engine(make_module_host: Any) -> Engine:
    """A host with weave and images of every kind."""
    host = make_module_host()
    for name, changes in IMAGES.items():
        options = [word for change in changes for word in ("--change", change)]
        host.docker("import", *options, "-", name, input=root(), text=False)
    host.docker("network", "create", "own")
    return Engine(host)


@pytest.mark.parametrize("case", CREATES)
def test_nothing_differs(engine: Engine, case: str) -> None:
    """Each field of each answer is what it is without us."""
    body = CREATES[case]
    assert differing(record(engine.past, body), record(engine.through, body)) == {}


@pytest.mark.parametrize("case", [
    "nulls", "empty lists", "entrypoint of the image", "entrypoint cleared by a list",
    "entrypoint cleared by the image", "image with everything", "binds", "a bind of /dev", "mounts",
])
def test_a_clone_is_equal(engine: Engine, case: str) -> None:
    """What inspect says makes an equal container: read through us or past us, made through us or past us."""
    past, through, body = engine.past, engine.through, CREATES[case]
    expected = record(past, cloned(past, body, past))
    assert differing(expected, record(past, cloned(through, body, through))) == {}
    assert differing(expected, record(through, cloned(through, body, through))) == {}
    assert differing(expected, record(through, cloned(through, body, past))) == {}


def test_the_truth_is_told_past_the_proxy(engine: Engine) -> None:
    """Docker's own socket shows what is there."""
    known = engine.through.post("/containers/create", create())["Id"]
    past, through = (docker.get(f"/containers/{known}/json")["Config"] for docker in (engine.past, engine.through))
    engine.past.remove(known)
    assert (past["Entrypoint"], through["Entrypoint"]) == ([PLACES[0]], None)
