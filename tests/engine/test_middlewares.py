"""The middlewares' picture of Docker against a real engine: routes, merging, commit, old starts, exec."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from host import TestHost, scratch_root
from werkzeug.test import EnvironBuilder, run_wsgi_app

from weavemw import wait
from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.hosts import Unix
from weavemw.dockerapi.routes import find
from weavemw.dockerapi.wait_mount import path_in
from weavemw.middleware.cidr import CidrParser
from weavemw.middleware.dns import DnsInjector
from weavemw.middleware.entrypoint import EntrypointWrapper
from weavemw.middleware.errors import ErrorResponder
from weavemw.middleware.readers import TraceRemover
from weavemw.testing import FakeRouter
from weavemw.transport.http_client import HttpClient
from weavemw.transport.passthrough import Passthrough
from weavemw.transport.upstream import Upstream

pytestmark = pytest.mark.engine

ABSENT = "absent"
IMAGES: dict[str, tuple[str, ...]] = {
    "merge-none": (), "merge-c": ('CMD ["c","d"]',), "merge-e": ('ENTRYPOINT ["/true","e"]',),
    "merge-ec": ('ENTRYPOINT ["/true","e"]', 'CMD ["c"]'), "merge-cleared": ('ENTRYPOINT [""]', 'CMD ["c"]'),
}
VALUES = (ABSENT, None, [], [""], "/true x", ["/true", "y"])


class Api:
    """Docker's API, with and without our middlewares."""

    def __init__(self, host: TestHost) -> None:
        self.docker = DockerClient(HttpClient(Unix(str(host.socket))))
        self.upstream = Upstream(str(host.socket))
        self.direct = Passthrough(self.upstream)
        wait_dir = wait.install(host.state_dir)
        self.shown = TraceRemover(self.direct)
        self.bind = f"{wait_dir}/w:/dev/w:ro"
        named = DnsInjector(self.direct, router=FakeRouter())
        wrapped = EntrypointWrapper(named, wait_dir=wait_dir, docker=self.docker)
        self.wrapped = ErrorResponder(CidrParser(wrapped, docker=self.docker))

    def call(self, app: Any, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of a call."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        builder = EnvironBuilder(method=method, data=raw or None, content_type="application/json" if raw else None)
        environ = builder.get_environ() | {"RAW_URI": target, "wsgi.multithread": True}
        chunks, status, _ = run_wsgi_app(app, environ, buffered=True)
        text = b"".join(chunks)
        return int(status[:3]), json.loads(text) if text[:1] in (b"{", b"[") else text.decode()

    def config(self, container: str) -> dict[str, Any]:
        """A container's Config, without what differs from one to the next."""
        config = dict(self.docker.get(f"/containers/{container}/json")["Config"])
        return {name: value for name, value in config.items() if name not in ("Hostname", "Domainname", "Image")}


@pytest.fixture(scope="module")
def api(engine_host: TestHost) -> Iterator[Api]:
    """An engine with images of every kind; whatever is made of them is removed."""
    for name, changes in IMAGES.items():
        options = itertools.chain.from_iterable(("--change", change) for change in changes)
        engine_host.docker("import", *options, "-", name, input=scratch_root(), text=False)
    before = set(engine_host.docker("ps", "-aq").stdout.split())
    api = Api(engine_host)
    yield api
    api.upstream.close()
    made = set(engine_host.docker("ps", "-aq").stdout.split()) - before
    if made:
        engine_host.docker("rm", "--force", *made)
    engine_host.docker("rmi", "--force", *IMAGES)


@pytest.mark.parametrize("image", IMAGES)
def test_the_command_is_what_it_is_without_us(api: Api, image: str) -> None:
    """Image's entrypoint and command x request's entrypoint x its command: Docker's own argv follows ours."""
    for entrypoint, cmd in itertools.product(VALUES, VALUES):
        body = {name: value for name, value in (("Entrypoint", entrypoint), ("Cmd", cmd)) if value != ABSENT}
        replies = [api.call(app, "POST", "/containers/create", body | {"Image": image})
                   for app in (api.direct, api.wrapped)]
        assert replies[0][0] == replies[1][0], (body, replies)
        if replies[0][0] != 201:
            assert replies[0] == replies[1]
            continue
        plain, wrapped = (api.docker.get(f"/containers/{reply['Id']}/json") for _, reply in replies)
        assert [path_in(wrapped["Path"]), *wrapped["Args"]] == ["/dev/w", plain["Path"], *plain["Args"]], body


@pytest.mark.parametrize("target", [
    "/containers/create", "/v1.40/containers/create", "/v1.40/%63ontainers/create", "/containers%2Fcreate",
    "/containers/create/", "/containers/create%2F", "/containers/create;x", "/containers/create%0A",
    "/containers/create#x", "/Containers/create", "/v1.40/v1.40/containers/create", "/v1.40containers/create",
    "/%76%31.40/containers/create", "/containers/a%2Fb/start", "/containers/a/b/start", "/containers/a%0Ab/start",
    "/containers/create/start", "/commit", "/containers//create", "/./containers/create",
    "/v1.40/../containers/create", "/containers/x/%2e%2e/create",
])
def test_routes_are_the_engines(api: Api, target: str) -> None:
    """The engine's router knows a path where ours does; those that it redirects are ours as well."""
    status, reply = api.call(api.direct, "POST", target, {"Image": "merge-none"})
    is_unknown = status == 404 and "page not found" in str(reply)
    assert is_unknown is (find("POST", target) is None), (status, reply)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'"x"', b"{}", b'{"Image":""}'])
def test_nonsense_gets_the_engines_answer(api: Api, body: bytes) -> None:
    """A create that makes no sense is answered as without us."""
    direct, wrapped = (api.call(app, "POST", "/containers/create", body) for app in (api.direct, api.wrapped))
    assert direct == wrapped
    assert direct[0] >= 400


@pytest.mark.parametrize("body", [b'{"Image":7}', b'{"Image":"merge-c","Env":"x"}', b'{"Image":"merge-c","Cmd":[1]}'])
def test_what_we_refuse_the_engine_refuses(api: Api, body: bytes) -> None:
    """A field of a wrong type is refused by the engine as well (by 500 up to 20.10, since then by 400)."""
    assert api.call(api.direct, "POST", "/containers/create", body)[0] in (400, 500)
    assert api.call(api.wrapped, "POST", "/containers/create", body)[0] == 400


def test_a_missing_image_is_missed_in_the_engines_words(api: Api) -> None:
    """Clients pull when they read this."""
    body = {"Image": "nowhere/nothing", "Cmd": ["x"]}
    direct, wrapped = (api.call(app, "POST", "/containers/create", body) for app in (api.direct, api.wrapped))
    assert direct == wrapped
    assert direct[0] == 404


@pytest.mark.parametrize("image", ["merge-c", "merge-e", "merge-ec"])
@pytest.mark.parametrize(("query", "body"), [
    pytest.param("", b"", id="no body"),
    pytest.param("", b"null", id="null"),
    pytest.param("", b"{}", id="empty object"),
    pytest.param("&changes=CMD%20%5B%22x%22%5D", b"null", id="command changed"),
    pytest.param("&changes=ENTRYPOINT%20%5B%22/true%22%5D", b"null", id="entrypoint changed"),
    pytest.param("&changes=ENTRYPOINT%20%5B%5D", b"null", id="entrypoint cleared"),
    pytest.param("&changes=ENTRYPOINT%20%5B%5D&changes=CMD%20%5B%22x%22%5D", b"null", id="both"),
    pytest.param("", b'{"Cmd":["x"]}', id="command in the body"),
    pytest.param("", b'{"Entrypoint":["/true"]}', id="entrypoint in the body"),
])
def test_a_committed_image_is_what_it_is_without_us(api: Api, image: str, query: str, body: bytes) -> None:
    """The image that is committed from a wrapped container runs what one from a plain container runs."""
    configs = []
    create = {"Image": image, "Env": ["A=1"], "Labels": {"b": "2"}}
    for app in (api.direct, api.wrapped):
        made = api.call(app, "POST", "/containers/create", create)[1]["Id"]
        status, reply = api.call(app, "POST", f"/commit?container={made}{query}", body)
        assert status == 201, reply
        configs.append(dict(api.docker.image_config(reply["Id"])))
        api.call(api.direct, "DELETE", f"/images/{reply['Id']}?force=1")
    plain, wrapped = ({name: value or None for name, value in config.items()
                       if name not in ("Hostname", "Domainname", "Image")} for config in configs)
    assert wrapped == plain


@pytest.mark.parametrize("body", [
    None, {"HostConfig": None}, {"HostConfig": {"PidsLimit": 50}}, {"PidsLimit": 50}, {"Dns": ["1.1.1.1"], "Foo": 1},
])
def test_an_old_start_keeps_the_mount(api: Api, body: object) -> None:
    """A HostConfig in the body of start (API below 1.24) loses nothing that we set, and the container still waits."""
    made = api.call(api.wrapped, "POST", "/containers/create", {"Image": "merge-c", "Cmd": ["/true"]})[1]["Id"]
    status, reply = api.call(api.wrapped, "POST", f"/v1.23/containers/{made}/start", body)
    if status == 400 and "too old" in str(reply):
        pytest.skip("this engine knows no API before 1.24")
    assert status == 204, reply
    shown = api.docker.get(f"/containers/{made}/json")
    assert shown["HostConfig"]["Binds"] == [api.bind]
    assert shown["State"]["Running"]
    api.docker.kill(made)


@pytest.mark.parametrize("init", [False, True])
def test_exec_in_a_waiting_container_waits(api: Api, init: bool) -> None:
    """As long as the container waits for its network, what is executed in it does too."""
    body = {"Image": "merge-c", "Cmd": ["/true"], "HostConfig": {"Init": init}}
    made = api.call(api.wrapped, "POST", "/containers/create", body)[1]["Id"]
    status, reply = api.call(api.direct, "POST", f"/containers/{made}/start")
    if init and status != 204 and "docker-init" in str(reply):
        pytest.skip("this engine has no docker-init")
    executed = api.call(api.wrapped, "POST", f"/containers/{made}/exec", {"Cmd": ["/true"]})[1]["Id"]
    process = api.docker.get(f"/exec/{executed}/json")["ProcessConfig"]
    assert [process["entrypoint"], *process["arguments"]] == ["/dev/w", "/true"]
    shown = api.call(api.shown, "GET", f"/exec/{executed}/json")[1]["ProcessConfig"]
    assert [shown["entrypoint"], *shown["arguments"]] == ["/true"]
    filters = quote(json.dumps({"container": [made], "event": ["exec_create"]}))
    events = f"/events?since={time.time() - 60:.0f}&until={time.time():.9f}&filters={filters}"
    assert [api.call(app, "GET", events)[1]["Action"].strip() for app in (api.direct, api.shown)] == \
        ["exec_create: /dev/w /true", "exec_create: /true"]
    api.docker.kill(made)
