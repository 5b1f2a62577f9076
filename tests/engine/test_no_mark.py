"""A container's file system is what its image and its creator made of it; and whose container is ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from host import TestHost
from launched import Launched, eventually

from weavemw import wait

pytestmark = [pytest.mark.root, pytest.mark.engine]

#: What an image has at the place where earlier versions mounted the wait program: how it is made, and its instructions.
IMAGES = {
    "wdir": ("mkdir /w; printf '#!/bin/sh\necho app\n' >/w/app; chmod 755 /w/app", 'WORKDIR /w', 'CMD ["./app"]'),
    "wlink": ("ln -s /tmp /w", 'CMD ["ls","-ld","/w"]'),
    "wfile": ("echo x >/w", 'CMD ["cat","/w"]'),
    "wvolume": ("mkdir /w; echo x >/w/x", "VOLUME /w", 'CMD ["ls","/w"]'),
    "sly": ("mkdir /w; printf '#!/bin/sh\nexec \"$@\"\n' >/w/w; chmod 755 /w/w", 'ENTRYPOINT ["/w/w"]',
            'CMD ["sleep","1000"]'),
}


@pytest.fixture(scope="module")
def weave(engine_host: TestHost) -> Iterator[Launched]:
    """Weave, and the images."""
    launched = Launched(engine_host)
    for name, (script, *changes) in IMAGES.items():
        engine_host.docker("run", "--name", f"made-{name}", "busybox", "sh", "-c", script)
        engine_host.docker("commit", *(word for change in changes for word in ("-c", change)), f"made-{name}", name)
        engine_host.docker("rm", f"made-{name}")
    yield launched
    launched.weave("stop")
    engine_host.docker("rmi", *IMAGES)


@pytest.mark.parametrize("options", [
    pytest.param((), id="plain"),
    pytest.param(("--read-only",), id="read-only"),
    pytest.param(("--user", "65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"), id="restricted"),
    pytest.param(("--init",), id="init"),
    pytest.param(("--net", "none"), id="no network"),
    pytest.param(("--pid", "host"), id="the host's processes"),
    pytest.param(("--device", "/dev/null:/dev/x"), id="device"),
    pytest.param(("--device", "/dev/null:/dev/w"), id="device at our place"),
    pytest.param(("-v", "/dev:/dev"), id="the host's devices"),
    pytest.param(("-v", "/dev:/dev:ro"), id="the host's devices, read-only"),
    pytest.param(("-v", "data:/w"), id="volume"),
    pytest.param(("--tmpfs", "/w"), id="tmpfs"),
    pytest.param(("--mount", "type=tmpfs,target=/w/x"), id="mount"),
])
def test_a_container_bears_no_mark(weave: Launched, options: tuple[str, ...]) -> None:
    """The same in `docker diff` and `docker export` as without us, and nothing in the host's /dev."""
    seen = []
    for docker in (weave.host.docker, weave.docker):
        docker("run", "--name", "marked", *options, "busybox", "sh", "-c", "touch /tmp/x; true")
        names = weave.host.run("sh", "-c", "docker export marked | tar t | sort").stdout
        seen.append((sorted(weave.host.docker("diff", "marked").stdout.splitlines()), names))
        weave.host.docker("rm", "marked")
    assert seen[0] == seen[1]
    assert "w" not in os.listdir("/dev")


@pytest.mark.parametrize("image", ["wdir", "wlink", "wfile", "wvolume"])
def test_an_image_keeps_what_it_has(weave: Launched, image: str) -> None:
    """At the place where the wait program once was."""
    assert weave.docker("run", "--rm", image).stdout == weave.host.docker("run", "--rm", image).stdout != ""


def test_volumes_of_another_container(weave: Launched) -> None:
    """At that place; those of a container of ours, which has the program too; and the host's devices."""
    weave.host.docker("create", "--name", "old", "-v", "/w", "-v", "/dev:/dev", "busybox")
    weave.host.docker("cp", "/etc/hostname", "old:/w/f")
    weave.docker("run", "-d", "--name", "ours", "-v", "/data", "busybox", "sleep", "99")
    try:
        assert weave.docker("run", "--rm", "--volumes-from", "old", "busybox", "ls", "/w").stdout == "f\n"
        assert "w" not in os.listdir("/dev")
        assert weave.docker("run", "--rm", "--volumes-from", "ours", "busybox", "ls", "-d", "/data").stdout == "/data\n"
    finally:
        weave.host.docker("rm", "-fv", "old", "ours")


def test_both_places_taken(weave: Launched) -> None:
    """Refused in one line, with a way out that works."""
    options = ("-v", "/dev:/dev", "-v", "/etc/hostname:/.dockerenv")
    refused = weave.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "/dev/w and /.dockerenv are both taken" in refused.stderr
    weave.docker("run", "--rm", "-e", "WEAVE_CIDR=none", *options, "busybox", "true")


@pytest.mark.parametrize("options", [("-e", "WEAVE_CIDR=none"), ("--net=host",), ("--net=container:app",)])
def test_an_image_that_looks_like_us_is_not_ours(weave: Launched, options: tuple[str, ...]) -> None:
    """Its entrypoint is a path that the wait program had: it is not attached, and its neighbour keeps its address."""
    weave.docker("run", "-d", "--name", "app", "busybox", "sleep", "999")
    before = weave.ethwe("app"), weave.names(), weave.veths()
    try:
        for docker in (weave.docker, weave.host.docker):
            docker("run", "-d", "--name", "sly", *options, "sly")
            weave.docker("restart", "-t0", "sly")
            assert (weave.ethwe("app"), weave.names(), weave.veths()) == before
            assert "host" in options[0] or weave.ethwe("sly") == (before[0] if "app" in options[0] else "")
            assert "sleep 1000" in weave.host.docker("top", "sly").stdout
            weave.host.docker("rm", "-f", "sly")
        assert (weave.ethwe("app"), weave.names(), weave.veths()) == before
    finally:
        weave.host.docker("rm", "-f", "app", "sly", check=False)


def test_an_image_that_looks_like_us_can_be_attached(weave: Launched) -> None:
    """With a program of its own, that runs."""
    weave.docker("run", "-d", "--name", "sly", "sly")
    assert weave.ethwe("sly")
    assert "/w/w" not in weave.host.docker("top", "sly").stdout
    assert json.loads(weave.host.docker("inspect", "-f", "{{json .Args}}", "sly").stdout) == ["/w/w", "sleep", "1000"]
    weave.host.docker("rm", "-f", "sly")


def test_containers_of_earlier_versions_go_on(weave: Launched) -> None:
    """Their program is mounted with its directory at /w: they are attached, restarted, and what is executed waits."""
    bind = f"{wait.install(weave.host.state_dir)}:/w:ro"
    weave.host.docker("create", "--name", "former", "-v", bind, "--entrypoint", "/w/w", "busybox", "sleep", "999")
    weave.docker("start", "former")
    address = weave.ethwe("former")
    assert address
    weave.host.docker("restart", "-t0", "former")
    assert eventually(lambda: weave.ethwe("former") == address)
    weave.host.docker("stop", "-t0", "former")
    weave.docker("commit", "former", "former")
    assert weave.host.docker("run", "--rm", "former", "echo", "it runs").stdout == "it runs\n"
    weave.host.docker("rm", "-f", "former")
    weave.host.docker("rmi", "former")
