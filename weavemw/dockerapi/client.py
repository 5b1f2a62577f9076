"""The proxy's own questions to the daemon, on the real socket, never through the proxy.

No API version is fixed: paths without one are answered by every Engine in its
own newest version (Engine 29 refuses versions below 1.44, Engine 25 below 1.24).
Every call has a limit.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import requests
import requests_unixsocket
from requests_unixsocket.adapters import UnixAdapter, UnixHTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, DockerUnreachable

__all__ = ["Docker", "DockerClient"]

_IDLE = 256  # connections that are kept for later calls: there are not so many threads


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

    def container_ids(self, *, everything: bool = False) -> tuple[str, ...]:
        """Ids of the running containers, or of all."""

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
    """:class:`Docker` over a unix socket; ``timeout`` in seconds per call."""

    def __init__(self, socket_path: str, *, timeout: float = 10.0) -> None:
        self.socket_path = socket_path
        self.timeout = timeout
        self._base = "http+unix://" + quote(socket_path, safe="")
        self._session = requests_unixsocket.Session()
        self._session.mount("http+unix://", _Adapter(socket_path))
        self._session.trust_env = False

    def inspect(self, container: str) -> Container:
        return Container.from_inspect(self.get(f"/containers/{_segment(container)}/json"))

    def image_config(self, image: str) -> dict[str, Any]:
        config = self.get(f"/images/{_segment(image)}/json").get("Config") or {}
        return dict(config)

    def network_driver(self, network: str) -> str:
        return str(self.get(f"/networks/{_segment(network)}").get("Driver") or "")

    def bridge_subnets(self) -> tuple[str, ...]:
        rows = self.get(f"/networks?filters={quote(json.dumps({'driver': ['bridge']}))}")
        configs = [config for row in rows for config in (row.get("IPAM") or {}).get("Config") or ()]
        return tuple(config["Subnet"] for config in configs if config.get("Subnet"))

    def container_ids(self, *, everything: bool = False) -> tuple[str, ...]:
        return tuple(row["Id"] for row in self.get(f"/containers/json?all={int(everything)}"))

    def kill(self, container: str) -> None:
        self._call("POST", f"/containers/{_segment(container)}/kill", also=(404, 409))

    def remove(self, container: str) -> None:
        self._call("DELETE", f"/containers/{_segment(container)}?force=1&v=1", also=(404, 409))

    def events(self, since: float | None = None) -> Iterator[Mapping[str, Any]]:
        filters = quote(json.dumps({"type": ["container", "network"]}))
        when = f"&since={since:.9f}" if since else ""
        with self._stream(f"/events?filters={filters}{when}") as reply:
            try:
                yield from (json.loads(line.lstrip(b"\x1e")) for line in reply.iter_lines() if line.strip())
            except requests.RequestException:
                return

    def exit_statuses(self, container: str, since: float) -> tuple[int, ...]:
        filters = quote(json.dumps({"container": [container], "event": ["start", "die"]}))
        lines = self._call("GET", f"/events?filters={filters}&since={since:.9f}&until={time.time():.9f}").text
        events = [json.loads(line.lstrip("\x1e")) for line in lines.splitlines() if line.strip()]
        runs = itertools.dropwhile(lambda event: event["Action"] != "start", events)
        return tuple(int(event["Actor"]["Attributes"]["exitCode"]) for event in runs if event["Action"] == "die")

    def get(self, path: str) -> Any:
        """The JSON that the daemon answers to ``GET path``."""
        return self._call("GET", path).json()

    def find(self, container: str) -> dict[str, Any] | None:
        """All that inspect says about a container, or ``None`` if there is none of that name."""
        reply = self._call("GET", f"/containers/{_segment(container)}/json", also=(404,))
        return dict(reply.json()) if reply.status_code == 200 else None

    def image_labels(self, image: str) -> dict[str, str]:
        """The labels of an image, empty if there is no such image."""
        reply = self._call("GET", f"/images/{_segment(image)}/json", also=(404,))
        return dict((reply.json().get("Config") or {}).get("Labels") or {}) if reply.status_code == 200 else {}

    def import_image(self, name: str, root: bytes, *, changes: Sequence[str] = ()) -> None:
        """Make an image from a tar of its root; ``changes`` are Dockerfile instructions (``docker import``)."""
        repository, _, tag = name.partition(":")
        query = urlencode([("fromSrc", "-"), ("repo", repository), ("tag", tag), *(("changes", c) for c in changes)])
        self._call("POST", f"/images/create?{query}", data=root, content_type="application/x-tar")

    def labelled_images(self, label: str) -> tuple[str, ...]:
        """Names of the images that have a label, whatever its value."""
        rows = self.get(f"/images/json?filters={quote(json.dumps({'label': [label]}))}")
        return tuple(name for row in rows for name in row.get("RepoTags") or ())

    def remove_image(self, name: str) -> None:
        """Remove an image's name, and the image with its last name; no error if it is gone."""
        self._call("DELETE", f"/images/{_segment(name)}", also=(404,))

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container; gives its id."""
        reply = self._call("POST", f"/containers/create?name={_segment(name)}", data=json.dumps(body).encode())
        return str(reply.json()["Id"])

    def start(self, container: str) -> None:
        """Start a container; no error if it runs."""
        self._call("POST", f"/containers/{_segment(container)}/start", also=(304,))

    def stop(self, container: str, grace: int) -> None:
        """Stop a container: SIGTERM, and SIGKILL after ``grace`` seconds; no error if it is not running or gone."""
        self._call("POST", f"/containers/{_segment(container)}/stop?t={grace}", also=(304, 404),
                   timeout=self.timeout + grace)

    def logs(self, container: str, lines: int) -> str:
        """The last lines that a container without a terminal wrote, stdout and stderr together."""
        path = f"/containers/{_segment(container)}/logs?stdout=1&stderr=1&tail={lines}"
        return b"".join(_payloads(self._call("GET", path).content)).decode(errors="replace")

    @contextmanager
    def _stream(self, path: str) -> Iterator[requests.Response]:
        reply = self._call("GET", path, stream=True, timeout=(self.timeout, None))
        with reply:
            yield reply

    def _call(self, method: str, path: str, *, also: tuple[int, ...] = (), stream: bool = False,
              timeout: float | tuple[float, float | None] | None = None, data: bytes | None = None,
              content_type: str = "application/json") -> requests.Response:
        headers = {"Content-Type": content_type} if data is not None else {}
        try:
            reply = self._session.request(method, self._base + path, stream=stream, allow_redirects=False,
                                          timeout=timeout or self.timeout, data=data, headers=headers)
        except requests.RequestException as error:
            raise DockerUnreachable(f"Docker at {self.socket_path} did not answer: {_cause(error)}") from error
        if reply.status_code >= 300 and reply.status_code not in also:
            raise DockerError(reply.status_code, _message(reply))
        return reply


class _Connection(UnixHTTPConnection):
    """The library's, but what can't be connected is closed."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_socket_url)


class _Pool(HTTPConnectionPool):
    def __init__(self, socket_path: str) -> None:
        super().__init__("localhost", maxsize=_IDLE)
        self.socket_path = socket_path

    def _new_conn(self) -> _Connection:
        return _Connection(self.socket_path)  # type: ignore[no-untyped-call]  # its time limit is each request's


class _Adapter(UnixAdapter):
    """One pool for the socket: the library has one for each URL, so that no connection is used twice."""

    def __init__(self, socket_path: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pool = _Pool(socket_path)

    def get_connection(self, url: str | bytes, proxies: object = None) -> _Pool:
        return self.pool

    def close(self) -> None:
        self.pool.close()


def _segment(name: str) -> str:
    return quote(name, safe="")


def _cause(error: BaseException) -> str:
    """What the system said, in place of three libraries' words about it."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    return str(error)


def _payloads(data: bytes) -> Iterator[bytes]:
    """The payloads of Docker's multiplexed stream: frames of stream number, three zeros, length, payload."""
    while len(data) >= 8:
        end = 8 + int.from_bytes(data[4:8], "big")
        yield data[8:end]
        data = data[end:]


def _message(reply: requests.Response) -> str:
    try:
        return str(reply.json()["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text.strip() or f"the daemon answered {reply.status_code}"
