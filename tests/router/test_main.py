from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from routerhost import Host

from weavemw.errors import SettingsError
from weavemw.router import listening
from weavemw.router.__main__ import _notify
from weavemw.router.client import RouterClient


def test_one_router_per_state_directory(start: Callable[..., Any]) -> None:
    """A second router on the same state is refused; when the first has stopped, it may."""
    first = start()
    with pytest.raises(SettingsError, match="already running: another router uses"):
        start()
    first.stop()
    assert RouterClient(start().address).domain() == "weave.local."


def test_port_taken(start: Callable[..., Any], tmp_path: Path) -> None:
    """A port that is taken is named, and what was begun is given back."""
    taken = start().address
    with pytest.raises(SettingsError, match=f"can't listen on {taken}: Address already in use"):
        start(http_address=taken, state_dir=tmp_path / "other")
    start(state_dir=tmp_path / "other")


def test_silent_connections_are_limited(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that ask nothing end the oldest of their kind; one that asks now and then stays."""
    monkeypatch.setattr(listening, "_TCP_LIMIT", 20)
    host, port = start().address.split(":")
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((host, port)))]
        asking = http.client.HTTPConnection(host, int(port), timeout=5)
        stack.callback(asking.close)
        for _ in range(50):
            silent.append(stack.enter_context(socket.create_connection((host, port))))
            asking.request("GET", "/domain")
            used = asking.sock
            assert asking.getresponse().read() == b"weave.local."
            assert asking.sock is used
        silent[0].settimeout(5)
        assert silent[0].recv(1) == b""
        silent[-1].sendall(b"GET /domain HTTP/1.0\r\n\r\n")
        assert silent[-1].recv(15).startswith(b"HTTP/1.0 200")


def test_not_a_database(start: Callable[..., Any], tmp_path: Path) -> None:
    """A state file that is something else is named, and left as it is."""
    (tmp_path / "router.db").write_text("precious" * 100)
    with pytest.raises(SettingsError, match=r"can't use .*router\.db: file is not a database"):
        start(state_dir=tmp_path)
    assert (tmp_path / "router.db").read_text().startswith("precious")


def test_dns_port_taken(start: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where DNS can't listen, that is said once, and the rest works."""
    first = start()
    second = start(state_dir=tmp_path / "other", dns_port=first.settings.dns_port)
    assert RouterClient(second.address).allocate("a").ip
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"DNS can't listen on 127.0.0.1:{first.settings.dns_port}, trying again: [Errno 98] Address already in use"]


@pytest.mark.root
def test_bridge(host: Host) -> None:
    """The router makes the bridge, up and with the MTU wanted, and leaves it when it stops, to be used again."""
    host.router("--mtu", "1400")
    first = host.ip("-o link show weave")
    assert "mtu 1400" in first
    assert ",UP" in first
    host.stop()
    host.router("--mtu", "1400")
    assert host.ip("-o link show weave").split("link/ether")[1] == first.split("link/ether")[1]


@pytest.mark.root
def test_overlapping_route(host: Host) -> None:
    """A range that overlaps a route of the host is refused, the route named; with --force it is taken."""
    host.ip("link add br0 type bridge")
    host.ip("addr add 10.40.0.1/16 dev br0")
    host.ip("link set br0 up")
    assert host.router_output().strip() == (
        "weave router: range 10.32.0.0/12 overlaps the route 10.40.0.0/16 dev br0 of this host; "
        "choose another with --ipalloc-range, or use --force")
    host.router("--force")
    assert host.http("/ipinfo/defaultsubnet") == "10.32.0.0/12"


@pytest.mark.root
def test_own_route_is_no_overlap(host: Host) -> None:
    """The bridge's own route, which is there when the host is exposed, is no reason to refuse."""
    host.router()
    host.ip("addr add 10.32.0.1/12 dev weave")
    host.stop()
    host.router()


def test_systemd_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It hears that the router serves; one that can't be told is no reason not to serve."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        _notify(str(tmp_path / "notify"))
        assert systemd.recv(99) == b"READY=1"
    _notify(str(tmp_path / "none"))
    assert "can't tell systemd" in caplog.text
