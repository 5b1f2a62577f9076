"""What tests of middlewares, and of what is built with them, need: no Docker, no router, no root.

:mod:`~weavemw.testing.fakes` stand for what middlewares talk to, as Python objects. :class:`DockerApi` speaks Docker's
API, for real clients. :func:`serve` puts any app on a socket, under the server that the proxy has.
"""

from weavemw.testing.docker_api import DockerApi, Ran
from weavemw.testing.fakes import FakeDocker, FakeRouter, RecordingNetwork, await_true
from weavemw.testing.serving import serve

__all__ = ["DockerApi", "FakeDocker", "FakeRouter", "Ran", "RecordingNetwork", "await_true", "serve"]
