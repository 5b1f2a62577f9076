"""A newer version installed over the one that runs: containers, addresses and names stay."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from host import TestHost
from launched import eventually

import weavemw

pytestmark = [pytest.mark.root, pytest.mark.engine]

_ROOT = Path(__file__).parents[2]
_OLD = "0.0.9"
_ONES = ("web", "db")


class Installed:
    """weavemw installed by pip, in a virtual environment of the test host's own."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        self.via = f"unix://{host.dir}/weave.sock"
        self.bin = host.dir / "venv/bin"
        venv.create(host.dir / "venv", symlinks=True)
        packages = host.dir / f"venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))  # of the Python that tests

    def install(self, source: Path) -> None:
        """``pip install --upgrade`` a source tree."""
        subprocess.run([sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "-q", "--upgrade",
                        "--no-deps", "--no-build-isolation", "--no-index", "--root-user-action=ignore", source],
                       check=True, capture_output=True, cwd=self.host.dir)

    def weave(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.host.run(self.bin / "weave", *arguments, check=check)

    def docker(self, *arguments: str) -> str:
        """The docker CLI through the proxy."""
        return str(self.host.docker(*arguments, host=self.via).stdout)

    def started(self, name: str) -> str:
        return self._inspect(name, "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}")

    def wait_program(self, name: str) -> str:
        return self._inspect(name, '{{range .Mounts}}{{if eq .Destination "/dev/w"}}{{.Source}}{{end}}{{end}}')

    def address(self, name: str) -> str:
        shown = self.host.docker("exec", name, "ip", "-4", "-o", "address", "show", "dev", "ethwe").stdout.split()
        return str(shown[shown.index("inet") + 1])

    def _inspect(self, name: str, template: str) -> str:
        return str(self.host.docker("inspect", "-f", template, name).stdout.strip())


def _older_source(directory: Path) -> Path:
    """This source tree with an older version's number, and another wait program."""
    shutil.copytree(_ROOT, directory, ignore=shutil.ignore_patterns(".*", "tests", "bench", "__pycache__"))
    for file in (directory / "pyproject.toml", directory / "weavemw/__init__.py"):
        file.write_text(file.read_text().replace(f'"{weavemw.__version__}"', f'"{_OLD}"'))
    for program in directory.glob("weavemw/wait/bin/*/w"):
        program.write_bytes(program.read_bytes() + b"\0older")  # what follows an ELF program's sections is not loaded
    return directory


@pytest.fixture(scope="module")
def upgraded(make_module_host: Callable[..., TestHost], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An older version launched with settings of its own, two containers of its, and the newer one installed."""
    installed = Installed(make_module_host())
    installed.install(_older_source(tmp_path_factory.mktemp("older") / "source"))
    assert installed.weave("version").stdout == f"weave {_OLD}\n"
    installed.weave("launch", "-H", installed.via, "--ipalloc-range=10.40.0.0/16", "--dns-domain=corp.internal")
    for name in _ONES:
        installed.docker("run", "-d", "--restart=always", "--name", name, "busybox", "sleep", "3600")
    installed.docker("create", "--name", "made-before", "busybox", "sleep", "3600")
    installed.install(_ROOT)
    return installed


def test_relaunching_keeps_containers_addresses_and_names(upgraded: Installed) -> None:
    """`weave relaunch` puts the new version in place, with the old one's settings; no container notices."""
    before = {name: (upgraded.started(name), upgraded.address(name)) for name in _ONES}
    following = upgraded.host.popen("docker", "-H", upgraded.via, "logs", "-f", "web", stdout=subprocess.DEVNULL)
    upgraded.weave("relaunch")
    assert eventually(lambda: upgraded.weave("healthcheck", check=False).stdout.startswith("healthy: "))
    assert following.wait(10) == 0
    assert {name: (upgraded.started(name), upgraded.address(name)) for name in _ONES} == before
    assert all(address.startswith("10.40.") for _, address in before.values())
    assert f"Version: {weavemw.__version__}" in upgraded.weave("status", "proxy").stdout
    assert upgraded.host.docker("exec", "web", "ping", "-c1", "-w5", "db.corp.internal")
    images = upgraded.host.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert [image for image in images if image.startswith("weavemw")] == [f"weavemw/host:{weavemw.__version__}"]


def test_containers_of_the_older_version_start_with_its_wait_program(upgraded: Installed) -> None:
    """Made before, started after, and restarted: each has its network; new ones have the new wait program."""
    kept = upgraded.address("web")
    upgraded.docker("restart", "-t", "0", "web")
    assert upgraded.address("web") == kept
    upgraded.docker("start", "made-before")
    upgraded.docker("run", "-d", "--name", "made-after", "busybox", "sleep", "3600")
    assert upgraded.address("made-before").startswith("10.40.")
    assert upgraded.host.docker("exec", "made-before", "ping", "-c1", "-w5", "made-after")
    assert upgraded.wait_program("web") == upgraded.wait_program("made-before") != upgraded.wait_program("made-after")


def test_a_start_that_comes_meanwhile_is_served(upgraded: Installed) -> None:
    """While the router is away a start waits for it; what the proxy's end cuts off, Docker's restart does not lose."""
    upgraded.docker("create", "--name", "meanwhile", "busybox", "sleep", "3600")
    upgraded.host.docker("stop", "weave")
    starting = upgraded.host.popen("docker", "-H", upgraded.via, "start", "meanwhile", stdout=subprocess.DEVNULL)
    upgraded.weave("relaunch")
    starting.wait(60)
    upgraded.docker("start", "meanwhile")
    assert eventually(lambda: upgraded.address("meanwhile").startswith("10.40."))


def test_stopping_and_launching_does_it_too(upgraded: Installed) -> None:
    """What is attached stays so while nothing runs; addresses and names are there again."""
    before = {name: (upgraded.started(name), upgraded.address(name)) for name in _ONES}
    upgraded.weave("stop")
    assert upgraded.host.docker("exec", "web", "ping", "-c1", "-w5", before["db"][1].partition("/")[0])
    upgraded.weave("launch", "-H", upgraded.via, "--ipalloc-range=10.40.0.0/16", "--dns-domain=corp.internal")
    assert {name: (upgraded.started(name), upgraded.address(name)) for name in _ONES} == before
    assert upgraded.host.docker("exec", "web", "ping", "-c1", "-w5", "db.corp.internal")
