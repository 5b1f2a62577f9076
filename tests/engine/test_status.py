"""Status, report, health and metrics of a real host: with containers of each kind, and with parts of it down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from host import TestHost
from launched import Launched, eventually
from prometheus_client.parser import text_string_to_metric_families as parse

pytestmark = [pytest.mark.root, pytest.mark.engine]

_TAKEN = "10.32.0.50/12"


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    """A host with one container that is attached, one that waits, and one that was left alone."""
    launched = Launched(make_module_host())
    launched.docker("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    launched.docker("run", "-d", "--name", "monitor", "--net=host", "busybox", "sleep", "1000")
    launched.docker("create", "--name", "reports", "-e", f"WEAVE_CIDR={_TAKEN}", "busybox", "sleep", "1000")
    launched.host.run("curl", "-sf", "-X", "PUT", f"http://127.0.0.1:6784/ip/weave:extern/{_TAKEN}")
    launched.host.docker("start", "reports")
    return launched


def _status(weave: Launched, *part: str) -> Any:
    return json.loads(weave.weave("status", *part, "--json", check=False).stdout)


def _metrics(weave: Launched) -> dict[tuple[str, ...], float]:
    text = weave.host.run("curl", "-sf", "http://127.0.0.1:6784/metrics").stdout
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in parse(text) for sample in family.samples}


def test_each_container_is_shown_with_what_it_has_or_why_not(weave: Launched) -> None:
    """As data and as text; the last line is the manual's."""
    assert eventually(lambda: "already owned" in _status(weave)["containers"]["waiting"][0]["reason"])
    assert eventually(lambda: _status(weave)["containers"]["left_alone"])
    found = _status(weave)
    containers = found["containers"]
    assert [(each["name"], each["addresses"], each["names"]) for each in containers["attached"]] == [
        ("web", ["10.32.0.1/12"], ["web.weave.local"])]
    assert [each["name"] for each in containers["waiting"]] == ["reports"]
    assert [(each["name"], each["reason"]) for each in containers["left_alone"]] == [
        ("monitor", "it has the host's network")]
    assert any("already owned" in each["message"] for each in found["errors"])
    assert found["engine"]["api_version"]
    text = weave.weave("status", check=False).stdout
    assert "\x1b" not in text
    assert text.splitlines()[-1] == "weave proxy is running"
    for words in ("1 attached, 1 waiting, 1 left alone", "10.32.0.1/12 web.weave.local", "already owned"):
        assert words in text


def test_each_part_is_data_too(weave: Launched) -> None:
    """In the shape of the router's report."""
    assert [entry["Hostname"] for entry in _status(weave, "dns")["Entries"]] == ["web.weave.local."]
    assert _status(weave, "ipam")["Range"] == "10.32.0.0/12"
    assert len(_status(weave, "peers")) == 1
    assert _status(weave, "connections") == _status(weave, "targets") == []
    assert set(_status(weave, "proxy")) == {"version", "proxy", "engine", "containers", "errors"}
    shown = weave.weave("report", "-f", "{{.Proxy.Running}} {{.IPAM.Range}}").stdout
    assert shown == "True 10.32.0.0/12\n"


def test_metrics_outlive_a_worker(weave: Launched) -> None:
    """What a killed worker counted stays, and the next one goes on from there; no file is left over."""
    for _ in range(8):
        weave.docker("version")
    before = _metrics(weave)
    assert before["weave_proxy_requests_total", "version", "200"] >= 8
    assert before["weave_proxy_requests_total", "container_start", "204"] == 2
    assert before["weave_proxy_attach_duration_seconds_count",] >= 1
    assert before["weave_proxy_allocate_failures_total",] >= 1
    assert before["weave_proxy_containers_pending",] == 1
    assert before["weave_router_pool_addresses_in_use", "10.32.0.0/12"] == 2
    for worker in _workers(weave):
        os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: weave.docker("version"))
    assert eventually(lambda: _metrics(weave)["weave_proxy_watcher_connected",] == 1)
    after = _metrics(weave)
    totals = [key for key in before if key[0].endswith("_total")]
    assert [key for key in totals if after[key] < before[key]] == []
    assert eventually(lambda: _metrics(weave)["weave_proxy_streams",] == 0)
    assert len(list((weave.host.run_dir / "status/metrics").glob("*.db"))) <= 2
    printed = weave.weave("metrics").stdout
    assert 'weave_proxy_requests_total{call="version",code="200"}' in printed
    assert not [word for word in ("web", "10.32.0.1", str(weave.socket)) if word in printed]


def _workers(weave: Launched) -> list[int]:
    master = _status(weave)["proxy"]["pid"]
    said = subprocess.run(["pgrep", "-P", str(master)], capture_output=True, text=True, check=True)
    return [int(pid) for pid in said.stdout.split()]


def test_health_names_the_part_that_is_down(weave: Launched) -> None:
    """In one line, with a status that monitors understand: a container, Docker when it hangs and when it is gone."""
    assert eventually(lambda: "container reports is cut off: " in weave.weave("healthcheck", check=False).stderr)
    weave.host.docker("rm", "-f", "reports")
    assert eventually(lambda: weave.weave("healthcheck").stdout.startswith("healthy: proxy "))
    assert weave.host.dockerd is not None
    weave.host.dockerd.send_signal(signal.SIGSTOP)
    try:
        done = weave.weave("healthcheck", check=False)
    finally:
        weave.host.dockerd.send_signal(signal.SIGCONT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("weave: engine: ")
    assert eventually(lambda: weave.weave("healthcheck"))


def test_with_the_daemon_down_the_rest_is_shown(weave: Launched) -> None:
    """Who answers, who does not, and why. Our containers end with dockerd, so this proxy is none of them."""
    weave.weave("stop-proxy")
    proxy = weave.host.popen("python", "-m", "weavemw.cli", "launch-proxy", "--foreground", "-H", weave.via,
                             env={"PYTHONPATH": os.getcwd()}, stderr=subprocess.DEVNULL)
    assert eventually(lambda: weave.weave("healthcheck"))
    weave.host.kill_dockerd()
    assert eventually(lambda: not _status(weave)["proxy"]["watcher"]["connected"])
    found = _status(weave)
    assert found["proxy"]["running"]
    assert "did not answer" in found["engine"]["error"]
    assert [each["error"] for each in found["proxy"]["listening"]] == ["answers with status 502"]
    assert weave.weave("status", check=False).stdout.splitlines()[-1] == "weave proxy is running"
    proxy.terminate()
    assert proxy.wait(20) == 0
