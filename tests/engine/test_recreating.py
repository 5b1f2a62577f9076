"""Tools that compare a container with what is wanted of it, or make it anew from inspect: as without us."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host import TestHost, busybox_root
from launched import Launched, eventually
from test_no_trace import Docker

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    launched = Launched(make_module_host())
    launched.host.docker("network", "create", "shop")
    return launched


@pytest.fixture
def clean(weave: Launched) -> Iterator[Launched]:
    """No container is left after the test."""
    yield weave
    if left := weave.host.docker("ps", "-aq", "--filter", "label=test").stdout.split():
        weave.host.docker("rm", "-f", *left)


def image(weave: Launched, *changes: str) -> None:
    """Make the image app of these instructions."""
    options = [word for change in changes for word in ("--change", change)]
    weave.host.docker("import", *options, "-", "app", input=busybox_root(), text=False)


# Watchtower

def updated(docker: Docker, name: str) -> str:
    """Replace a container by one of the newest image of that name, as Watchtower 1.7 does it; gives the new one's id.

    What equals the old image's configuration is left out, so that the new image's counts.
    """
    shown = docker.get(f"/containers/{name}/json")
    config, old = shown["Config"], docker.get(f"/images/{shown['Image']}/json")["Config"]
    _forget_defaults(config, old)
    networks = shown["NetworkSettings"]["Networks"]
    for endpoint in networks.values():
        endpoint["Aliases"] = [one for one in endpoint["Aliases"] or () if one != shown["Id"][:12]]
    docker.remove(shown["Id"])
    first = next(iter(networks))
    made = docker.post(f"/containers/create?name={name}", {
        **config, "HostConfig": shown["HostConfig"], "NetworkingConfig": {"EndpointsConfig": {first: networks[first]}}})
    docker.post(f"/networks/{first}/disconnect", {"Container": made["Id"], "Force": True})
    for network, endpoint in networks.items():
        docker.post(f"/networks/{network}/connect", {"Container": made["Id"], "EndpointConfig": endpoint})
    docker.post(f"/containers/{made['Id']}/start")
    return str(made["Id"])


def _forget_defaults(config: dict[str, Any], old: dict[str, Any]) -> None:
    for field in ("WorkingDir", "User"):
        config[field] = "" if config.get(field) == old.get(field) else config[field]
    if (config["Entrypoint"] or []) == (old.get("Entrypoint") or []):
        config["Entrypoint"] = None
        config["Cmd"] = None if (config["Cmd"] or []) == (old.get("Cmd") or []) else config["Cmd"]
    config["Env"] = [one for one in config["Env"] or () if one not in (old.get("Env") or ())]
    for field in ("Labels", "Volumes", "ExposedPorts"):
        theirs = old.get(field) or {}
        config[field] = {key: value for key, value in (config.get(field) or {}).items() if theirs.get(key) != value}


@pytest.mark.parametrize("network", ["bridge", "shop"])
@pytest.mark.parametrize(("before", "after", "options", "runs"), [
    (('ENTRYPOINT ["sleep"]', 'CMD ["1001"]'), ('ENTRYPOINT ["sh","-c"]', 'CMD ["sleep 1002"]'), (), "sleep 1002"),
    (('CMD ["sleep","1001"]',), ('ENTRYPOINT ["sleep"]', 'CMD ["1003"]'), (), "sleep 1003"),
    (('ENTRYPOINT ["sleep"]', 'CMD ["1001"]'), ('CMD ["sleep","1004"]',), (), "sleep 1004"),
    (('ENTRYPOINT ["sleep"]', 'CMD ["1001"]'), ('ENTRYPOINT ["sh","-c"]', 'CMD ["x"]'), ("sleep 1005",), "sleep 1005"),
])
def test_an_updated_container_runs_what_the_new_image_says(
        clean: Launched, network: str, before: tuple[str, ...], after: tuple[str, ...], options: tuple[str, ...],
        runs: str) -> None:
    """A clone made through us runs the new entrypoint, is attached, and found by its name; as it is without us."""
    image(clean, *before)
    docker = Docker(clean.socket)
    clean.docker("run", "-d", "--label", "test", "--name", "app", "--net", network, "-e", "A=1", "app", *options)
    image(clean, *after)
    made = updated(docker, "app")
    shown = docker.get(f"/containers/{made}/json")
    assert " ".join([shown["Path"], *shown["Args"]]).removeprefix("sh -c ") == runs
    assert eventually(lambda: runs in clean.host.docker("top", made, "-o", "pid,args").stdout)
    assert ("app.weave.local.", clean.ethwe(made).partition("/")[0]) in clean.names()


# Ansible

PLAY = """\
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - community.docker.docker_container:
        name: "{{ item.name }}"
        image: app
        entrypoint: [sh, -c]
        command: ["sleep 999"]
        command_handling: correct
        dns_servers: [192.0.2.53]
        volumes: ["data:/data", "/tmp:/own:ro"]
        labels: {test: "", own: "yes"}
        env: {A: "1", B: "two words"}
        published_ports: ["{{ item.port }}:80"]
        networks: "{{ item.networks }}"
        networks_cli_compatible: true
        comparisons: {'*': strict, networks: allow_more_present}
        stop_timeout: 0
      loop:
        - {name: one, port: "18081", networks: [{name: bridge}]}
        - {name: two, port: "18082", networks: [{name: shop}]}
"""


def test_ansible_changes_nothing_the_second_time(clean: Launched, tmp_path: Path) -> None:
    """A play with everything compared strictly: what it made through us is what it wants."""
    program = os.environ.get("WEAVEMW_TEST_ANSIBLE") or shutil.which("ansible-playbook")
    if not program:
        pytest.skip("needs Ansible: pip install ansible docker (550 MB), WEAVEMW_TEST_ANSIBLE=…/ansible-playbook")
    image(clean, 'CMD ["sleep","99"]', "ENV C=3", "LABEL l=image", "EXPOSE 81")
    (tmp_path / "play.yaml").write_text(PLAY)
    environ = {"DOCKER_HOST": clean.via, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"}
    recaps = []
    for _ in range(2):
        done = clean.host.run(program, "-i", "localhost,", "--diff", tmp_path / "play.yaml", env=environ, timeout=180)
        recaps.append(done.stdout)
    assert "changed=1" in recaps[0], recaps[0]
    assert "changed=0" in recaps[1], recaps[1]
    for name in ("one", "two"):
        assert clean.ethwe(name)


# Compose

COMPOSE = """\
services:
  web:
    image: busybox
    container_name: {name}
    command: [sleep, "{time}"]
    labels: {{test: ""}}
    stop_grace_period: 0s
    volumes: ["data:/data"]
    healthcheck: {{test: ["CMD", "true"]}}
{more}
volumes: {{data: {{}}}}
"""


@pytest.mark.parametrize("more", ["    network_mode: bridge", ""], ids=["bridge", "its own network"])
def test_compose_up_change_up(clean: Launched, tmp_path: Path, more: str) -> None:
    """What did not change is not made anew; what did has its name, and its hostname."""
    if clean.host.docker("compose", "version", check=False).returncode:
        pytest.skip("needs Compose 2 (tests/engine/make-engine-root has it: WEAVEMW_TEST_ENGINE_ROOT=/opt/engine28)")

    def up(**values: str) -> str:
        """Compose's way there; the container's id."""
        (tmp_path / "compose.yaml").write_text(COMPOSE.format(more=more, **values))
        clean.docker("compose", "-p", "shop", "-f", tmp_path / "compose.yaml", "up", "-d")
        return str(clean.host.docker("inspect", "-f", "{{.Id}}", values["name"]).stdout.strip())

    def is_right(name: str, container: str) -> bool:
        address = clean.ethwe(container).partition("/")[0]
        hostname = clean.host.docker("exec", container, "hostname").stdout.strip()
        return {one for one, held in clean.names() if held == address} >= {f"{name}.weave.local."} and hostname == name

    first = up(name="web", time="1001")
    assert eventually(lambda: is_right("web", first))
    assert up(name="web", time="1001") == first
    second = up(name="web", time="1002")
    assert second != first
    assert eventually(lambda: is_right("web", second))
    assert up(name="web", time="1002") == second
    third = up(name="shop-front", time="1002")
    assert eventually(lambda: is_right("shop-front", third))
    assert not any(one == "web.weave.local." for one, _ in clean.names()) or not more
    clean.docker("compose", "-p", "shop", "-f", tmp_path / "compose.yaml", "down", "-v", "-t0")
