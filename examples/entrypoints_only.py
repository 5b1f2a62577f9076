"""Single middlewares in a stack of your own: containers are held back, and you let them go.

CidrParser decides which containers are meant, EntrypointWrapper wraps their
command. Nothing is allocated or attached: whoever makes an interface ``ethwe``
in the container and raises it, lets the command run.

    gunicorn -b unix:/run/docker-held.sock --threads 16 examples.entrypoints_only:app
"""

from pathlib import Path

from weavemw import wait
from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.hosts import Unix
from weavemw.middleware.cidr import CidrParser
from weavemw.middleware.entrypoint import EntrypointWrapper
from weavemw.middleware.errors import ErrorResponder
from weavemw.transport.hijack import Handover
from weavemw.transport.http_client import HttpClient
from weavemw.transport.passthrough import Passthrough
from weavemw.transport.relay import Relay
from weavemw.transport.upstream import Upstream

SOCKET = "/var/run/docker.sock"


def installed_wait_program():
    return wait.install(Path("/var/lib/held"))


docker = DockerClient(HttpClient(Unix(SOCKET)))
app = Handover(
    ErrorResponder(
        CidrParser(
            EntrypointWrapper(Passthrough(Upstream(SOCKET)), wait_dir=installed_wait_program, docker=docker),
            docker=docker)),
    relay=Relay())
