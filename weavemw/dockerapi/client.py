"""The proxy's own questions to the daemon, on the real socket, never through the proxy.

No API version is fixed: paths without one are answered by every Engine in its
own newest version (Engine 29 refuses versions below 1.44, Engine 25 below 1.24).
Every call has a limit.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from weavemw.dockerapi.container import Container, DockerNetwork
from weavemw.dockerapi.requester import Answer, Requester
from weavemw.errors import DockerError, DockerUnreachable, NoAnswer, NoSuchContainer

__all__ = ["Docker", "DockerClient", "error_of"]


class Docker(Protocol):
    """What middlewares and watcher ask of the daemon; :class:`weavemw.testing.FakeDocker` is another one."""

    def inspect(self, container: str) -> Container:
        """A container by id or name (``GET /containers/{id}/json``)."""

    def image_config(self, image: str) -> dict[str, Any]:
        """The ``Config`` of an image, empty where it has none (``GET /images/{name}/json``)."""

    def network_driver(self, network: str) -> str:
        """The driver of a network ("bridge", "overlay", …)."""

    def bridge_subnets(self) -> tuple[str, ...]:
        """The subnets of all networks with the driver "bridge" (``GET /networks``)."""

    def all_networks(self) -> tuple[DockerNetwork, ...]:
        """All networks (``GET /networks``)."""

    def container_ids(self, *, everything: bool = False) -> tuple[str, ...]:
        """Ids of the running containers, or of all."""

    def ping(self) -> None:
        """Nothing, if it answers (``GET /_ping``)."""

    def kill(self, container: str) -> None:
        """SIGKILL; no error if it is not running."""

    def stop(self, container: str, grace: int) -> None:
        """SIGTERM, and SIGKILL after ``grace`` seconds; no restart policy starts it again. No error if it is gone."""

    def exit_statuses(self, container: str, since: float) -> tuple[int, ...]:
        """Of each run that was started and ended since a Unix time, the earliest first; known of what is gone, too."""

    def remove(self, container: str) -> None:
        """Remove by force, with anonymous volumes; no error if it is gone."""

    def events(self, since: float | None = None) -> Iterator[Mapping[str, Any]]:
        """Events of containers and networks from now on, or since a Unix time; ends when the daemon does."""


class DockerClient:
    """:class:`Docker` by way of a requester; ``timeout`` in seconds per call.

    ``DockerClient(HttpClient(Unix("/var/run/docker.sock")))``, with :class:`weavemw.transport.http_client.HttpClient`.
    """

    def __init__(self, requester: Requester, *, timeout: float = 10.0) -> None:
        self.requester = requester
        self.timeout = timeout

    def inspect(self, container: str) -> Container:
        return Container.from_inspect(self._json(self._container("GET", container, "/json")))

    def image_config(self, image: str) -> dict[str, Any]:
        config = self.get(f"/images/{_segment(image)}/json").get("Config") or {}
        return dict(config)

    def network_driver(self, network: str) -> str:
        return str(self.get(f"/networks/{_segment(network)}").get("Driver") or "")

    def bridge_subnets(self) -> tuple[str, ...]:
        rows = self.get(f"/networks?filters={quote(json.dumps({'driver': ['bridge']}))}")
        return tuple(subnet for row in rows for subnet in DockerNetwork.from_row(row).subnets)

    def all_networks(self) -> tuple[DockerNetwork, ...]:
        return tuple(map(DockerNetwork.from_row, self.get("/networks")))

    def container_ids(self, *, everything: bool = False) -> tuple[str, ...]:
        return tuple(row["Id"] for row in self.get(f"/containers/json?all={int(everything)}"))

    def ping(self) -> None:
        self._call("GET", "/_ping")

    def kill(self, container: str) -> None:
        self._container("POST", container, "/kill", also=(404, 409))

    def remove(self, container: str) -> None:
        self._container("DELETE", container, "?force=1&v=1", also=(404, 409))

    def events(self, since: float | None = None) -> Iterator[Mapping[str, Any]]:
        filters = quote(json.dumps({"type": ["container", "network"]}))
        when = f"&since={since:.9f}" if since else ""
        try:
            with self.requester.stream(f"/events?filters={filters}{when}", timeout=self.timeout) as (status, body):
                _check(status, body)
                yield from (json.loads(line.lstrip(b"\x1e")) for line in _lines(body) if line.strip())
        except NoAnswer as error:
            raise self._unreachable(error) from error

    def exit_statuses(self, container: str, since: float) -> tuple[int, ...]:
        filters = quote(json.dumps({"container": [container], "event": ["start", "die"]}))
        lines = self._call("GET", f"/events?filters={filters}&since={since:.9f}&until={time.time():.9f}").text
        events = [json.loads(line.lstrip("\x1e")) for line in lines.splitlines() if line.strip()]
        runs = itertools.dropwhile(lambda event: event["Action"] != "start", events)
        return tuple(int(event["Actor"]["Attributes"]["exitCode"]) for event in runs if event["Action"] == "die")

    def get(self, path: str) -> Any:
        """The JSON that the daemon answers to ``GET path``."""
        return self._json(self._call("GET", path))

    def find(self, container: str) -> dict[str, Any] | None:
        """All that inspect says about a container, or ``None`` if there is none of that name."""
        reply = self._container("GET", container, "/json", also=(404,))
        return dict(self._json(reply)) if reply.status == 200 else None

    def start(self, container: str) -> None:
        """Start a container; no error if it runs."""
        self._container("POST", container, "/start", also=(304,))

    def stop(self, container: str, grace: int) -> None:
        """Stop a container: SIGTERM, and SIGKILL after ``grace`` seconds; no error if it is not running or gone."""
        self._container("POST", container, f"/stop?t={grace}", also=(304, 404), timeout=self.timeout + grace)

    def image(self, name: str) -> dict[str, Any]:
        """An image as inspect shows it, empty if there is none (``GET /images/{name}/json``)."""
        reply = self._call("GET", f"/images/{_segment(name)}/json", also=(404,))
        return dict(self._json(reply)) if reply.status == 200 else {}

    def _container(self, method: str, container: str, what: str, *, also: tuple[int, ...] = (),
                   timeout: float = 0) -> Answer:
        try:
            return self._call(method, f"/containers/{_segment(container)}{what}", also=also, timeout=timeout)
        except DockerError as error:
            if error.status != 404:
                raise
            raise NoSuchContainer(container, error.message) from error

    def _call(self, method: str, path: str, *, also: tuple[int, ...] = (), timeout: float = 0) -> Answer:
        try:
            answer = self.requester.ask(method, path, timeout=timeout or self.timeout)
        except NoAnswer as error:
            raise self._unreachable(error) from error
        if answer.status >= 300 and answer.status not in also:
            raise error_of(answer)
        return answer

    def _json(self, answer: Answer) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise self._unreachable(NoAnswer("its answer is not JSON")) from error

    def _unreachable(self, error: NoAnswer) -> DockerUnreachable:
        return DockerUnreachable(f"Docker at {self.requester.where} did not answer: {error.reason}")


def error_of(answer: Answer) -> DockerError:
    """What an answer of status 300 or more says."""
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text.strip() or f"the daemon answered {answer.status}"
    return DockerError(answer.status, message)


def _check(status: int, body: Iterable[bytes]) -> None:
    if status >= 300:
        raise error_of(Answer(status, b"".join(body)))


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _segment(name: str) -> str:
    return quote(name, safe="")
