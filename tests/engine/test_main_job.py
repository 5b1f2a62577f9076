"""The main job: plain docker commands through the proxy, containers on the weave network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    return Launched(make_module_host())


@pytest.fixture
def clean(weave: Launched) -> Iterator[Launched]:
    """Nothing is left after the test: no address, name or interface but what was there."""
    before = weave.left()
    yield weave
    for container in weave.host.docker("ps", "-aq", "--filter", "label=test").stdout.split():
        weave.host.docker("rm", "-f", container)
    assert eventually(lambda: weave.left() == before, within=10), (before, weave.left())


def api(weave: Launched, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str]]:
    """A call through the proxy by curl: status and JSON."""
    data = ["--data-binary", "@-", "-H", "Content-Type: application/json"] if body is not None else []
    done = weave.host.run("curl", "-s", "-m", "30", "-X", method, "-w", "\n%{http_code}", *data, "--unix-socket",
                          weave.socket, f"http://docker{path}", input=body, text=False)
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(text or "null")


def test_two_containers_find_each_other_by_name(clean):
    """Started by plain docker run: an address, a name, a way to each other; the first instruction sees all of it."""
    clean.docker("run", "-d", "--label", "test", "--name", "web", "busybox", "sleep", "100")
    shown = clean.docker("run", "--rm", "busybox", "sh", "-c", "ip a show ethwe; ip route; ping -c1 -w5 web").stdout
    assert "inet 10.32.0." in shown
    assert "mtu 1376" in shown
    assert "224.0.0.0/4 dev ethwe" in shown
    assert "1 packets received" in shown


def test_create_and_start_are_as_run(clean):
    """docker create and docker start; the interface is there when start returns."""
    container = clean.docker("create", "--label", "test", "busybox", "sleep", "100").stdout.strip()
    clean.docker("start", container)
    address = clean.ethwe(container)
    assert address.startswith("10.32.0.")
    clean.docker("restart", "-t0", container)
    assert clean.ethwe(container) == address


@pytest.mark.parametrize("options", [
    ["--user", "65534"],
    ["--read-only"],
    ["--cap-drop", "ALL"],
    ["--security-opt", "no-new-privileges"],
    ["--user", "65534", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
    ["--init"],
    ["--net", "none"],
    ["--pid", "host"],
    ["--uts", "host"],
    ["--ipc", "host"],
    ["-t"],
    ["--tmpfs", "/tmp"],
    ["--entrypoint", "true"],
], ids=" ".join)
def test_any_option_of_run_works(clean, options):
    """The program runs with its network, whatever else was asked for."""
    command = [] if "--entrypoint" in options else ["ip", "address", "show", "ethwe"]
    seen = clean.docker("run", "--rm", *options, "busybox", *command)
    assert not command or "inet 10.32.0." in seen.stdout


def test_an_image_with_nothing_else_in_it(clean):
    """A scratch image with one static program is attached too."""
    assert clean.docker("run", "--rm", "scratch-true").returncode == 0


@pytest.mark.parametrize(("arguments", "code"), [
    (["nosuchcommand"], 127),
    (["/etc"], 126),
    (["sh", "-c", "exit 42"], 42),
], ids=["127", "126", "42"])
def test_exit_status_is_dockers(clean, arguments, code):
    """A command that is missing, that can't be executed, and one that ends with a status."""
    assert clean.docker("run", "--rm", "busybox", *arguments, check=False).returncode == code


@pytest.mark.parametrize("options", [["-e", "WEAVE_CIDR=none"], ["--net", "host"]], ids=" ".join)
def test_left_alone_means_untouched(clean, options):
    """What is not to be attached is what Docker would have made without us."""
    created = clean.docker("create", "--label", "test", *options, "busybox", "true").stdout.strip()
    plain = clean.host.docker("create", "--label", "test", *options, "busybox", "true").stdout.strip()
    one, other = (json.loads(clean.host.docker("inspect", each).stdout)[0] for each in (created, plain))
    for inspect in (one, other):
        inspect["Config"].pop("Hostname")
    assert (one["Config"], one["HostConfig"]) == (other["Config"], other["HostConfig"])


@pytest.mark.parametrize(("value", "reason"), [
    ("nonsense", "expected"),
    ("300.1.1.1/24", "300.1.1.1"),
    ("net:10.2.3.4/24", "10.2.3.4/24"),
    ("ip:", "ip:"),
    ("10.2.1.1", "prefix"),
], ids=lambda value: value)
def test_bad_cidr_is_refused_at_create(clean, value, reason):
    """400 with the value and the reason; no container is made."""
    body = json.dumps({"Image": "busybox", "Env": [f"WEAVE_CIDR={value}"], "Labels": {"test": ""}}).encode()
    status, answer = api(clean, "POST", "/containers/create?name=refused", body)
    assert status == 400
    assert f'"{value}"' in answer["message"]
    assert reason in answer["message"]
    assert api(clean, "GET", "/containers/refused/json")[0] == 404


@pytest.mark.parametrize("body", [b"not json", b"[]", b"null", b"", b"{}"], ids=repr)
def test_a_body_that_is_no_create_gets_the_daemons_answer(clean, body):
    """The daemon's own status and message."""
    status, answer = api(clean, "POST", "/containers/create", body)
    direct = clean.host.run("curl", "-s", "-w", "\n%{http_code}", "-X", "POST", "--data-binary", "@-", "-H",
                            "Content-Type: application/json", "--unix-socket", clean.host.socket,
                            "http://docker/containers/create", input=body, text=False)
    text, _, code = direct.stdout.decode().rpartition("\n")
    assert (status, answer) == (int(code), json.loads(text))


def test_a_start_that_can_not_be_attached_fails_and_leaves_nothing(clean):
    """The reason reaches the client, the command never ran, and a --rm container is gone."""
    before = clean.host.docker("ps", "-aq").stdout
    failed = clean.docker("run", "--rm", "-e", "WEAVE_CIDR=net:192.0.2.0/24", "busybox", "echo", "it ran", check=False)
    assert failed.returncode == 125
    assert "range 192.0.2.0/24 out of bounds" in failed.stderr
    assert "it ran" not in failed.stdout
    assert clean.host.docker("ps", "-aq").stdout == before


def test_an_address_that_is_taken_fails_the_second_start(clean):
    """Two containers with the same address: the second's start says who has it; it stays startable."""
    taken = ["--label", "test", "-e", "WEAVE_CIDR=10.40.9.9/12"]
    one = clean.docker("run", "-d", *taken, "busybox", "sleep", "99").stdout
    second = clean.docker("run", "-d", *taken, "--name", "second", "busybox", "sleep", "99", check=False)
    assert "already owned by" in second.stderr
    clean.host.docker("rm", "-f", one.strip())
    assert eventually(lambda: clean.docker("start", "second"), within=10)
    assert clean.ethwe("second") == "10.40.9.9/12"


def test_many_at_once_leave_nothing(clean):
    """40 runs, 8 at a time: no error, and nothing is left."""
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: clean.docker("run", "--rm", "busybox", "true", check=False), range(40)))
    assert [run.stderr for run in runs if run.returncode] == []


def test_without_a_router(make_host):
    """Everything else goes on; a start fails within seconds and names the address that did not answer."""
    weave = Launched(make_host())
    weave.docker("create", "--name", "waits", "busybox", "sleep", "99")
    weave.weave("stop-router")
    assert weave.docker("run", "--rm", "-e", "WEAVE_CIDR=none", "busybox", "echo", "fine").stdout == "fine\n"
    failed = weave.docker("start", "waits", check=False)
    assert failed.returncode == 1
    assert "127.0.0.1:6784" in failed.stderr
    assert weave.host.docker("inspect", "-f", "{{.State.Running}}", "waits").stdout == "false\n"
    weave.weave("launch-router")
    weave.docker("start", "waits")
    assert weave.ethwe("waits")


def test_without_an_engine(make_host):
    """502 with a message while there is no engine, and all is well when it is back."""
    weave = Launched(make_host(live_restore=True))
    weave.host.kill_dockerd()
    status, answer = api(weave, "GET", "/info")
    assert status == 502
    assert "Is the docker daemon running?" in answer["message"]
    weave.host.start_dockerd()
    assert eventually(lambda: weave.docker("run", "--rm", "busybox", "ip", "a", "show", "ethwe"))
