"""Docker's API, spoken by a WSGI app with containers in memory: for tests with real clients and without an engine."""

from __future__ import annotations

import json
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from weavemw import context
from weavemw.dockerapi.request import Request
from weavemw.errors import Conflict, DockerError, WeaveError
from weavemw.transport.hijack import nothing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weavemw.transport.hijack import ClientConnection

__all__ = ["DockerApi", "Ran"]

_VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.0-fake", "Os": "linux", "Arch": "amd64"}
_ZERO_TIME, _SOME_TIME = "0001-01-01T00:00:00Z", "2030-01-01T00:00:00.000000001Z"
#: Seconds between an upgrade and the first output: docker-py loses what comes in one piece with the head.
_APART = 0.05
_UPGRADED = (b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n"
             b"Upgrade: tcp\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did: its output, and its exit status; ``None`` for one that runs until it is stopped."""

    output: bytes = b""
    status: int | None = 0


def _as_busybox(command: Sequence[str]) -> Ran:
    name, *arguments = command or [""]
    answers = {"true": Ran(), "false": Ran(status=1), "echo": Ran(" ".join(arguments).encode() + b"\n")}
    return answers.get(name, Ran(status=None))


@dataclass(slots=True)
class _Process:
    """A container or an exec: what was asked for, and how far it is."""

    id: str
    asked: dict[str, Any]
    name: str = ""
    output: bytes = b""
    status: int | None = None
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def running(self) -> bool:
        return self.started.is_set() and not self.ended.is_set()

    @property
    def tty(self) -> bool:
        return bool(self.asked.get("Tty"))

    @property
    def command(self) -> list[str]:
        return [word for name in ("Entrypoint", "Cmd") for word in _words(self.asked.get(name))]

    def start(self, ran: Ran) -> None:
        self.output, self.status = self.output + ran.output, ran.status or 0
        self.ended.clear()
        self.started.set()
        if ran.status is not None:
            self.ended.set()

    def end(self, status: int) -> None:
        if self.running:
            self.status = status
            self.ended.set()


class DockerApi:
    """A WSGI app that speaks Docker's API (1.41): create, start, attach, wait, logs, exec, inspect, list, remove. ::

        docker = DockerApi()
        with serve(docker) as path:
            client = docker_py.DockerClient(f"unix://{path}")
            assert client.containers.run("busybox", ["echo", "hello"]) == b"hello\\n"

    Every image is there. ``run`` says what a command does; by itself ``true``, ``false`` and ``echo`` do what they
    do, and all else runs until it is stopped. ``requests`` are the requests so far, as (call, id). Answers to calls
    that it does not know are 501. Attach and exec need a server that gives connections away, as :func:`serve` has it.
    """

    def __init__(self, run: Callable[[Sequence[str]], Ran] = _as_busybox) -> None:
        self.requests: list[tuple[str, str]] = []
        self._run = run
        self._processes: dict[str, _Process] = {}
        self._lock = threading.RLock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = Request(environ)
        with self._lock:
            self.requests.append((call.name, call.id))
        try:
            answer = getattr(self, f"_{call.name}", _unknown)(call)
        except WeaveError as error:
            answer = _json({"message": error.message}, error.status)
        return answer(environ, start_response)

    # System and images

    def _ping(self, call: Request) -> WSGIApplication:
        return _answer(b"OK", 200, "text/plain")

    def _version(self, call: Request) -> WSGIApplication:
        return _json(_VERSION)

    def _info(self, call: Request) -> WSGIApplication:
        return _json({"ID": "fake", "Containers": len(self._processes), "ServerVersion": _VERSION["Version"]})

    def _image_inspect(self, call: Request) -> WSGIApplication:
        return _json({"Id": f"sha256:{call.id}", "RepoTags": [call.id], "Config": {}})

    # Containers

    def _container_create(self, call: Request) -> WSGIApplication:
        name = call.query.get("name") or f"fake{len(self._processes)}"
        with self._lock:
            if any(one.name == name for one in self._processes.values()):
                raise Conflict(f'Conflict. The container name "/{name}" is already in use')
            made = self._make(call, name)
        return _json({"Id": made.id, "Warnings": []}, 201)

    def _container_start(self, call: Request) -> WSGIApplication:
        container = self._find(call.id)
        if container.running:
            return _answer(b"", 304)
        container.start(self._run(container.command))
        return _answer(b"", 204)

    def _container_stop(self, call: Request) -> WSGIApplication:
        self._find(call.id).end(143)
        return _answer(b"", 204)

    def _container_kill(self, call: Request) -> WSGIApplication:
        self._find(call.id).end(137)
        return _answer(b"", 204)

    def _container_wait(self, call: Request) -> WSGIApplication:
        container = self._find(call.id)
        return _later(lambda: _ended(container))

    def _container_inspect(self, call: Request) -> WSGIApplication:
        return _json(_shown(self._find(call.id)))

    def _container_list(self, call: Request) -> WSGIApplication:
        everything = call.query.get("all") in ("1", "true", "True")
        return _json([_row(one) for one in self._processes.values() if one.name and (everything or one.running)])

    def _container_delete(self, call: Request) -> WSGIApplication:
        container = self._find(call.id)
        if container.running and call.query.get("force") not in ("1", "true", "True"):
            raise Conflict(f"You cannot remove a running container {container.id}")
        container.end(137)
        del self._processes[container.id]
        return _answer(b"", 204)

    def _container_logs(self, call: Request) -> WSGIApplication:
        container = self._find(call.id)
        return _answer(_framed(container), 200, "application/vnd.docker.raw-stream")

    def _container_attach(self, call: Request) -> WSGIApplication:
        return self._hijacked(self._find(call.id))

    # Execs

    def _exec_create(self, call: Request) -> WSGIApplication:
        if not self._find(call.id).running:
            raise Conflict(f"Container {call.id} is not running")
        return _json({"Id": self._make(call, "").id}, 201)

    def _exec_start(self, call: Request) -> WSGIApplication:
        process = self._find(call.id)
        process.start(self._run(process.command))
        return self._hijacked(process)

    def _exec_inspect(self, call: Request) -> WSGIApplication:
        process = self._find(call.id)
        return _json({"ID": process.id, "Running": process.running, "ExitCode": process.status})

    def _make(self, call: Request, name: str) -> _Process:
        made = _Process(uuid.uuid4().hex * 2, call.body.plain(), name)
        self._processes[made.id] = made
        return made

    def _find(self, name: str) -> _Process:
        for one in list(self._processes.values()):
            if one.name == name or (len(name) >= 12 and one.id.startswith(name)):
                return one
        raise DockerError(404, f"No such container: {name}")

    def _hijacked(self, process: _Process) -> WSGIApplication:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            connection: ClientConnection = environ[context.CONNECTION]
            client, _ = connection.take()
            threading.Thread(target=_send, args=(client, process), daemon=True).start()
            return nothing(start_response)

        return app


def _send(client: Any, process: _Process) -> None:
    with client:
        client.setblocking(True)
        client.sendall(_UPGRADED)
        process.started.wait()
        process.ended.wait()
        time.sleep(_APART)
        client.sendall(_framed(process))


def _ended(process: _Process) -> bytes:
    process.started.wait()
    process.ended.wait()
    return json.dumps({"StatusCode": process.status}).encode()


def _framed(process: _Process) -> bytes:
    """Output as Docker sends it: of a terminal as it is, else in frames (Docker's API, "Stream format")."""
    if process.tty or not process.output:
        return process.output
    return struct.pack(">BxxxL", 1, len(process.output)) + process.output


def _shown(one: _Process) -> dict[str, Any]:
    host = one.asked.get("HostConfig") or {}
    state = "running" if one.running else "exited" if one.ended.is_set() else "created"
    return {"Id": one.id, "Name": f"/{one.name}", "Created": _SOME_TIME, "Image": one.asked.get("Image"),
            "Path": (one.command or [""])[0], "Args": one.command[1:],
            "State": {"Status": state, "Running": one.running, "ExitCode": one.status or 0,
                      "StartedAt": _SOME_TIME if one.started.is_set() else _ZERO_TIME},
            "Config": {name: one.asked[name] for name in one.asked.keys() - {"HostConfig", "NetworkingConfig"}},
            "HostConfig": {"NetworkMode": "default", "LogConfig": {"Type": "json-file", "Config": {}}} | host,
            "NetworkSettings": {"Networks": {}}, "Mounts": []}


def _row(one: _Process) -> dict[str, Any]:
    shown = _shown(one)
    return {"Id": one.id, "Names": [shown["Name"]], "Image": shown["Image"], "Command": " ".join(one.command),
            "Created": 0, "State": shown["State"]["Status"], "Status": shown["State"]["Status"], "Ports": [],
            "Labels": one.asked.get("Labels") or {}, "HostConfig": {"NetworkMode": "default"}}


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _unknown(call: Request) -> WSGIApplication:
    return _json({"message": f"{call.method} {call.path}: this stand-in for Docker does not know it"}, 501)


def _json(value: object, status: int = 200) -> WSGIApplication:
    return _answer(json.dumps(value).encode() + b"\n", status, "application/json")


def _answer(body: bytes, status: int, kind: str = "") -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        bodiless = status in (204, 304)
        headers = [] if bodiless else [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response(f"{status} {HTTPStatus(status).phrase}", [*headers, ("Api-Version", _VERSION["ApiVersion"])])
        return [] if bodiless or environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app


def _later(body: Callable[[], bytes]) -> WSGIApplication:
    """Head at once, body when it is there, as wait is answered."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        yield b"\n"  # a server sends no head before there is a byte; JSON may begin with blanks
        yield body()

    return app
