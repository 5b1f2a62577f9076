"""A Docker socket that only answers questions.

    gunicorn -b unix:/run/docker-readonly.sock --threads 16 examples.readonly_socket:app

Shows how to put a middleware of your own around the passthrough app: logs and
events still stream without a thread, since nothing here wraps the response.
"""

from weavemw.middleware.errors import ErrorResponder
from weavemw.transport.hijack import Handover
from weavemw.transport.passthrough import Passthrough
from weavemw.transport.relay import Relay
from weavemw.transport.upstream import Upstream


class ReadOnly:
    """Refuses everything but GET and HEAD, in Docker's form; attaching by websocket is a GET that writes."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and "HTTP_UPGRADE" not in environ:
            return self.app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"message": "this socket is read-only"}\n']


app = Handover(ReadOnly(ErrorResponder(Passthrough(Upstream("/var/run/docker.sock")))), relay=Relay())
