"""Policies against requests that try to get past them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from werkzeug.test import Client

from weavemw import policies
from weavemw.middleware.errors import ErrorResponder


def daemon(environ: Any, start_response: Any) -> list[bytes]:
    """Stands for Docker: says what it was sent."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}"]


def client(policy: Any) -> Client:
    """A client of Docker behind a policy."""
    return Client(ErrorResponder(policy(daemon)))


def status(policy: Any, method: str, target: str, body: object = None) -> int:
    """What becomes of a request."""
    return client(policy).open(target, method=method, json=body).status_code


CREATE, START = ("POST", "/v1.41/containers/create"), ("POST", "/v1.23/containers/web/start")


@pytest.mark.parametrize("asked", [
    ("POST", "/containers/create"), ("POST", "/containers/web/start"), ("DELETE", "/containers/web"),
    ("POST", "/containers/web/attach"), ("GET", "/containers/web/attach/ws"), ("GET", "/containers/web/archive"),
    ("GET", "/containers/web/export"), ("GET", "/images/get"), ("PUT", "/containers/web/archive"),
    ("POST", "/swarm/init"),
    ("GET", "/secrets"), ("POST", "/grpc"), ("POST", "/exec/x/start"), ("PATCH", "/_ping"),
])
def test_read_only_refuses(asked: tuple[str, str]) -> None:
    """What changes something, or copies files out."""
    assert status(policies.read_only, *asked) == 403


@pytest.mark.parametrize("target", [
    "/_ping", "/v1.41/info", "/events", "/containers/json", "/containers/web/json", "/containers/web/logs",
    "/images/json", "/networks", "/networks/x", "/volumes", "/system/df", "/containers/web/top",
])
def test_read_only_answers(target: str) -> None:
    """What only asks."""
    assert status(policies.read_only, "GET", target) == 200


def test_only_what_is_allowed() -> None:
    """By the names of calls; a wrong name is an error at once."""
    policy = policies.allow("container_list")
    assert status(policy, "GET", "/containers/json") == 200
    assert status(policy, "GET", "/_ping") == 200
    assert status(policy, "GET", "/containers/web/json") == 403
    assert status(policy, "POST", "/plugins/pull") == 403
    with pytest.raises(ValueError, match="container_list"):
        policies.allow("containers_list")


@pytest.mark.parametrize("host", [
    {"Privileged": True}, {"CapAdd": ["SYS_ADMIN"]}, {"CapAdd": ["all"]}, {"CapAdd": ["cap_net_admin"]},
    {"Devices": [{"PathOnHost": "/dev/sda"}]}, {"DeviceCgroupRules": ["a *:* rwm"]}, {"DeviceRequests": [{}]},
    {"PidMode": "host"}, {"PidMode": "container:web"}, {"NetworkMode": "host"}, {"IpcMode": "host"},
    {"UTSMode": "host"}, {"UsernsMode": "host"}, {"CgroupnsMode": "host"}, {"NetworkMode": "container:web"},
    {"SecurityOpt": ["seccomp=unconfined"]}, {"SecurityOpt": ["apparmor:unconfined"]},
    {"SecurityOpt": ["systempaths=unconfined"]}, {"SecurityOpt": ["no-new-privileges:false"]},
    {"MaskedPaths": []}, {"ReadonlyPaths": []}, {"CgroupParent": "/"}, {"Runtime": "other"},
    {"Capabilities": ["SYS_ADMIN"]},
])
@pytest.mark.parametrize("beside", [False, True])
def test_rights_are_refused(host: dict[str, Any], beside: bool) -> None:
    """Within HostConfig and beside, at create, at an old start and at update."""
    assert status(policies.refuse_privileged, *CREATE, host if beside else {"HostConfig": host}) == 403
    assert status(policies.refuse_privileged, *START, host if beside else {"HostConfig": host}) == 403
    if beside:
        assert status(policies.refuse_privileged, "POST", "/containers/web/update", host) == 403


@pytest.mark.parametrize("asked", [
    (*CREATE, {"Image": "a", "HostConfig": {"CapAdd": ["NET_RAW", "CAP_CHOWN"], "CapDrop": ["ALL"],
                                            "SecurityOpt": ["no-new-privileges"], "NetworkMode": "shop",
                                            "Runtime": "runc", "Binds": ["data:/data"]}}),
    (*START, None), ("POST", "/containers/web/exec", {"Cmd": ["sh"]}), ("GET", "/swarm", None),
    ("POST", "/containers/web/update", {"Memory": 1 << 30}), ("POST", "/build?networkmode=default", None),
])
def test_what_gives_no_rights_goes_on(asked: tuple[str, str, Any]) -> None:
    """Ordinary containers."""
    assert status(policies.refuse_privileged, *asked) == 200


@pytest.mark.parametrize("asked", [
    ("POST", "/containers/web/exec", {"Privileged": True}), ("POST", "/build?networkmode=host", None),
    ("POST", "/build?version=2", None), ("POST", "/session", None), ("POST", "/grpc", None),
    ("POST", "/plugins/pull?remote=x", None), ("POST", "/services/create", {}),
])
def test_other_ways_to_rights_are_refused(asked: tuple[str, str, Any]) -> None:
    """Execs, builds, and what nobody can see into."""
    assert status(policies.refuse_privileged, *asked) == 403


@pytest.mark.parametrize("host", [
    {"Binds": ["/:/host"]}, {"Binds": ["/etc/passwd:/p:ro"]}, {"Binds": ["data:/d", "/:/h"]}, {"binds": ["/:/h"]},
    {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}]}, {"Mounts": [{"type": "BIND"}]}, {"Mounts": [{}]},
    {"Mounts": [{"Type": "npipe"}]}, {"VolumesFrom": ["other"]}, {"Binds": ["./x:/h"]}, {"Binds": ["~:/h"]},
    {"Mounts": [{"Type": "volume", "VolumeOptions": {"DriverConfig": {"Options": {"o": "bind", "device": "/"}}}}]},
])
def test_mounts_of_the_host_are_refused(host: dict[str, Any]) -> None:
    """Binds in every form, and volumes that are binds."""
    assert status(policies.refuse_host_mounts, *CREATE, {"HostConfig": host}) == 403
    assert status(policies.refuse_host_mounts, *START, host) == 403


def test_volumes_that_are_binds_are_refused() -> None:
    """When they are made."""
    volume = {"Name": "a", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}}
    assert status(policies.refuse_host_mounts, "POST", "/volumes/create", volume) == 403
    assert status(policies.refuse_host_mounts, "POST", "/volumes/create", {"Name": "a"}) == 200


@pytest.mark.parametrize("host", [
    {}, {"Binds": ["data:/data", "my.data_1-x:/d:ro"]}, {"Binds": ["/data"]}, {"Tmpfs": {"/tmp": ""}},
    {"Mounts": [{"Type": "volume", "Source": "data", "Target": "/d"}, {"Type": "tmpfs", "Target": "/t"}]},
])
def test_volumes_by_name_go_on(host: dict[str, Any]) -> None:
    """And temporary files."""
    assert status(policies.refuse_host_mounts, *CREATE, {"HostConfig": host}) == 200


def test_a_build_by_a_form_is_refused() -> None:
    """The daemon would take the network from the form."""
    answer = client(policies.refuse_privileged).post("/build?version=1", data={"networkmode": "host"})
    assert answer.status_code == 400


def test_labels_are_given() -> None:
    """Whatever the request says of them."""
    answer = client(policies.label(team="web")).post("/containers/create", json={"labels": {"team": "x", "a": "1"}})
    assert answer.get_json() == {"Labels": {"team": "web", "a": "1"}}


def test_an_audit_log_has_a_line_for_each_request() -> None:
    """Without query, headers and body."""
    log = io.StringIO()
    client(policies.audit(log)).post("/v1.41/containers/create?name=secret", json={"Env": ["P=secret"]},
                                     headers={"X-Registry-Auth": "secret"})
    line = json.loads(log.getvalue())
    assert line | {"time": 0} == {"time": 0, "client": "", "call": "container_create", "id": "",
                                  "method": "POST", "path": "/v1.41/containers/create"}
