"""Launching with TLS and with --allow-from on a real engine: what is refused (test_manual.py has what works)."""

from __future__ import annotations

from pathlib import Path

import pytest
from host import TestHost
from launched import Launched

from weavemw.serving import certs

pytestmark = [pytest.mark.root, pytest.mark.engine]

_TCP = "tcp://127.0.0.1:12375"


@pytest.mark.parametrize(("change", "complaint"), [
    pytest.param({"--tls-cert": "server-cert.pem"}, "'server-cert.pem' is not an absolute path", id="not absolute"),
    pytest.param({"--tls-key": "/nowhere/key.pem"}, "can't read /nowhere/key.pem: No such file", id="missing"),
    pytest.param({"--tls-key": "{dir}/ca-key.pem"}, "is not the key of", id="another's key"),
])
def test_a_launch_with_wrong_files_is_refused_in_one_line(engine_host: TestHost, tmp_path: Path,
                                                          change: dict[str, str], complaint: str) -> None:
    """Before any container is made."""
    certs.create(tmp_path, certs.host_names([]), days=10)
    files = {"--tls-cacert": "{dir}/ca.pem", "--tls-cert": "{dir}/server-cert.pem",
             "--tls-key": "{dir}/server-key.pem", **change}
    options = [f"{name}={path.format(dir=tmp_path)}" for name, path in files.items()]
    done = engine_host.run("python", "-m", "weavemw.cli", "launch-proxy", "-H", _TCP, "--tlsverify", *options,
                           check=False, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert "weaveproxy" not in engine_host.docker("ps", "-a").stdout


def test_addresses_that_are_not_allowed_get_nothing(engine_host: TestHost) -> None:
    """--allow-from names who may connect by TCP; the unix socket is as ever, and weave knows that it serves."""
    launched = Launched(engine_host, "-H", "tcp://127.0.0.1:12375", "--allow-from", "192.0.2.0/24")
    try:
        assert engine_host.docker("version", host=_TCP, check=False).returncode
        assert launched.docker("version").returncode == 0
        assert launched.weave("healthcheck").returncode == 0
    finally:
        launched.weave("stop")
