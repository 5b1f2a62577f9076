"""Testing what you build with weavemw, without Docker, router or root: ``pytest examples/test_without_docker.py``."""

import json

from werkzeug.test import Client

from weavemw.middleware.cidr import CidrParser
from weavemw.middleware.errors import ErrorResponder
from weavemw.testing import FakeDocker


def daemon(environ, start_response):
    """Stands for Docker: says what it was sent."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("201 Created", [("Content-Type", "application/json")])
    return [body]


def create(**fields):
    docker = FakeDocker()
    docker.images["busybox"] = {"Cmd": ["sh"], "Env": ["WEAVE_CIDR=net:default"]}
    client = Client(ErrorResponder(CidrParser(daemon, docker=docker)))
    return client.post("/containers/create", json={"Image": "busybox", **fields})


def test_a_sensible_request_reaches_docker():
    assert create(Env=["WEAVE_CIDR=10.2.1.1/24"]).status_code == 201


def test_a_senseless_one_is_refused_in_dockers_form():
    refused = create(Env=["WEAVE_CIDR=10.2.1.300/24"])
    assert refused.status_code == 400
    assert "10.2.1.300" in json.loads(refused.data)["message"]
