"""A program of ten lines in front of a real engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import TestHost
from launched import eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

EXAMPLE = Path(__file__).parents[2] / "examples" / "no_privileged.py"


@pytest.fixture(scope="module")
def socket(engine_host: TestHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example, served as it says, on this host's engine."""
    directory = tmp_path_factory.mktemp("policy")
    (directory / "no_privileged.py").write_text(
        EXAMPLE.read_text().replace("/var/run/docker.sock", str(engine_host.socket)))
    path = directory / "safe.sock"
    server = engine_host.popen("gunicorn", "-b", f"unix:{path}", "-k", "weavemw.serving.worker.Worker", "--threads",
                               "8", "no_privileged:app", env={"PYTHONPATH": f"{directory}:{EXAMPLE.parents[1]}"},
                               cwd=directory)
    eventually(path.exists)
    yield path
    server.terminate()
    server.wait(15)


def test_the_cli_works_through_it(engine_host: TestHost, socket: Path) -> None:
    """An attached run, with its output and its status."""
    host = f"unix://{socket}"
    ran = engine_host.docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 3", host=host, input="hello",
                             check=False)
    assert (ran.stdout, ran.returncode) == ("hello", 3)


def test_a_privileged_run_is_refused(engine_host: TestHost, socket: Path) -> None:
    """With the policy's own words."""
    ran = engine_host.docker("run", "--rm", "--privileged", "busybox", "true", host=f"unix://{socket}", check=False)
    assert ran.returncode == 125
    assert "no privileged containers here" in ran.stderr


@pytest.mark.parametrize(("target", "body"), [
    pytest.param("/v1.41/containers/create", '{"hostconfig":{"pRIVILEGED":true}}', id="any case"),
    pytest.param("/v1.41/containers/create", '{"HostConfig":{"Privileged":false},"HostConfig":{"Privileged":true}}',
                 id="given twice"),
    pytest.param("/v1.41/containers/create", '{"Privileged":true}', id="beside"),
    pytest.param("/v1.41/containers/create", '{"HostConfig":{"Privile\\u0067ed":true}}', id="escaped"),
    pytest.param("/%63ontainers/create", '{"HostConfig":{"Privileged":true}}', id="path escaped"),
    pytest.param("//containers/create", '{"HostConfig":{"Privileged":true}}', id="double slash"),
])
def test_bypasses(engine_host: TestHost, socket: Path, target: str, body: str) -> None:
    """Each would make a privileged container past the policy if it read only what is obvious."""
    assert shutil.which("curl")
    body = json.dumps("busybox").join(['{"Image":', "," + body[1:]])
    answer = engine_host.run("curl", "-s", "--path-as-is", "--unix-socket", socket, "-H",
                             "Content-Type: application/json", "-d", body, f"http://docker{target}").stdout
    assert "no privileged containers here" in json.loads(answer)["message"]
