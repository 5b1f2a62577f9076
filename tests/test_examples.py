"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from werkzeug.test import Client

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_read_only_socket_refuses_to_write():
    """POST and upgrades are refused in Docker's form."""
    client = Client(load("readonly_socket").app)
    assert client.post("/containers/create").status_code == 403
    assert client.get("/containers/x/attach/ws", headers={"Upgrade": "websocket"}).get_json()["message"]


def test_entrypoints_only_can_be_built():
    """The stack of single middlewares is an app."""
    assert callable(load("entrypoints_only").app)


def test_tests_without_docker_pass():
    """The example of a test is a test that passes."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_without_docker.py"],
                   check=True, timeout=60, cwd=EXAMPLES)
