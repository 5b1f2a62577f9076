"""What only launching and removing our own containers asks of Docker: rare, so convenience counts and speed does not.

This is where requests-unixsocket is used. It is imported with the first such call: to import it takes longer than
most of our commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from weavemw.dockerapi.client import DockerClient, error_of
from weavemw.dockerapi.hosts import Unix
from weavemw.dockerapi.requester import Answer
from weavemw.errors import DockerUnreachable
from weavemw.transport.http_client import HttpClient

if TYPE_CHECKING:
    import requests

__all__ = ["ManagingClient"]


class ManagingClient(DockerClient):
    """A client of Docker that makes images and containers too, on a unix socket; ``timeout`` in seconds per call."""

    def __init__(self, socket_path: str, *, timeout: float = 10.0) -> None:
        super().__init__(HttpClient(Unix(socket_path)), timeout=timeout)
        self._base = f"http+unix://{quote(socket_path, safe='')}"

    def import_image(self, name: str, root: bytes, *, changes: Sequence[str] = ()) -> None:
        """Make an image from a tar of its root; ``changes`` are Dockerfile instructions (``docker import``)."""
        repository, _, tag = name.partition(":")
        self._managed("POST", "/images/create", data=root, headers={"Content-Type": "application/x-tar"},
                      params={"fromSrc": "-", "repo": repository, "tag": tag, "changes": list(changes)})

    def labelled_images(self, label: str) -> tuple[str, ...]:
        """Names of the images that have a label, whatever its value."""
        rows = self._managed("GET", "/images/json", params={"filters": json.dumps({"label": [label]})}).json()
        return tuple(name for row in rows for name in row.get("RepoTags") or ())

    def remove_image(self, name: str) -> None:
        """Remove an image's name, and the image with its last name; no error if it is gone."""
        self._managed("DELETE", f"/images/{quote(name, safe='')}", also=(404,))

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container; gives its id."""
        return str(self._managed("POST", "/containers/create", params={"name": name}, json=body).json()["Id"])

    def logs(self, container: str, lines: int) -> str:
        """The last lines that a container without a terminal wrote, stdout and stderr together."""
        reply = self._managed("GET", f"/containers/{quote(container, safe='')}/logs",
                              params={"stdout": 1, "stderr": 1, "tail": lines})
        return b"".join(_payloads(reply.content)).decode(errors="replace")

    def _managed(self, method: str, path: str, *, also: tuple[int, ...] = (), **options: Any) -> requests.Response:
        import requests
        import requests_unixsocket

        with requests_unixsocket.Session() as session:
            session.trust_env = False
            try:
                reply = session.request(method, self._base + path, timeout=self.timeout, **options)
            except requests.RequestException as error:
                raise DockerUnreachable(f"Docker at {self.requester.where} did not answer: {_cause(error)}") from error
        if reply.status_code >= 300 and reply.status_code not in also:
            raise error_of(Answer(reply.status_code, reply.content))
        return reply


def _payloads(data: bytes) -> Iterator[bytes]:
    """The payloads of Docker's multiplexed stream: frames of stream number, three zeros, length, payload."""
    while len(data) >= 8:
        end = 8 + int.from_bytes(data[4:8], "big")
        yield data[8:end]
        data = data[end:]


def _cause(error: BaseException) -> str:
    """What the system said, in place of three libraries' words about it."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, TimeoutError):
            return "no answer in time"
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    return str(error)
