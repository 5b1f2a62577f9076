"""A call of Docker's API as somebody who judges it wants it: what it names, and what its body says to the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weavemw.dockerapi import routes
from weavemw.dockerapi.configs import host_config
from weavemw.dockerapi.payload import Object, body_of, encode, fold, parse
from weavemw.errors import BadRequest, Unsupported

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Document", "Request"]

_UNKNOWN = routes.Call("")


class Document:
    """A JSON object whose values are named by the way to them: ``body.boolean("HostConfig", "Privileged")``.

    It reads as the daemon's Go reads it (:mod:`weavemw.dockerapi.payload`): names in
    any case, the last of what is given twice, objects merged. What is missing reads as
    false, empty or 0. ``HostConfig`` is the one that counts, wherever it stands: up to API
    1.43 its fields may also stand beside the others. A value of another type than the daemon's is
    :class:`~weavemw.errors.BadRequest`.
    """

    __slots__ = ("_root",)

    def __init__(self, root: Object | None) -> None:
        self._root = root

    def has(self, *path: str) -> bool:
        """Whether the field is there, ``null`` included."""
        return self._above(path).has(path[-1])

    @property
    def has_host_config(self) -> bool:
        """Whether it says anything that belongs into a HostConfig."""
        return self._root is not None and host_config(self._root) is not None

    def boolean(self, *path: str) -> bool:
        """A boolean."""
        return self._above(path).boolean(path[-1])

    def integer(self, *path: str) -> int:
        """A whole number."""
        return self._above(path).integer(path[-1])

    def string(self, *path: str) -> str:
        """A string."""
        return self._above(path).string(path[-1])

    def strings(self, *path: str) -> list[str]:
        """A list of strings."""
        return self._above(path).strings(path[-1]) or []

    def command(self, *path: str) -> list[str]:
        """A list of strings or a single string, as ``Cmd`` and ``Entrypoint`` may be."""
        return self._above(path).command(path[-1]) or []

    def labels(self, *path: str) -> dict[str, str]:
        """A map of strings; case counts in its keys."""
        return self._above(path).labels(path[-1])

    def keys(self, *path: str) -> list[str]:
        """The keys of a map; case counts in them."""
        return self._above(path).keys(path[-1])

    def objects(self, *path: str) -> list[Document]:
        """A list of objects, to be read."""
        return [Document(found) for found in self._above(path).objects(path[-1])]

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, as Python's ``json`` reads them; of what is given twice the last."""
        found: dict[str, Any] = json.loads(encode(self._root)) if self._root else {}
        return found

    def set(self, *path: str, to: object) -> None:
        """Give the field this value: plain values, lists and mappings of them. Objects on the way are made."""
        self._change(path, lambda parent: parent.set(path[-1], _readable(to)))

    def remove(self, *path: str) -> None:
        """Take the field away, in all its spellings."""
        if self.has(*path):
            self._change(path, lambda parent: parent.remove(path[-1]))

    def _above(self, path: Sequence[str]) -> Object:
        return _way(self._root or Object(), path)[-1]

    def _change(self, path: Sequence[str], change: Callable[[Object], None]) -> None:
        if self._root is None:
            raise BadRequest("the request's body is no JSON object")
        parents = _way(self._root, path)
        change(parents[-1])
        for name, parent, child in reversed(list(zip(path[:-1], parents[:-1], parents[1:], strict=True))):
            parent.set(name, child)


def _way(root: Object, path: Sequence[str]) -> list[Object]:
    """The objects from the root down to the one that holds the last name; empty ones where there are none."""
    found = [root]
    for name in path[:-1]:
        child = host_config(root) if _is_host_config(found, name) else found[-1].child(name)
        found.append(child or Object(path=f"{found[-1].path}{name}."))
    return found


def _readable(value: object) -> object:
    """The same value as it is once it was sent: whoever reads it next finds what any body has."""
    document, _ = parse(b'{"":%b}' % encode(value))
    assert document
    return document.pairs[0][1]


def _is_host_config(way: Sequence[Object], name: str) -> bool:
    return len(way) == 1 and fold(name) == "hostconfig"


class Request:
    """One request, seen as the daemon will see it.

    ``environ`` is WSGI's, for what is not here.
    """

    __slots__ = ("_call", "environ")

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self._call = routes.call_of(environ) or _UNKNOWN

    @property
    def name(self) -> str:
        """Which call it is, as ``container_create``; empty for one that weavemw does not know."""
        return self._call.name

    @property
    def id(self) -> str:
        """The id or name in the path, empty where there is none."""
        return self._call.id

    @property
    def version(self) -> str:
        """The API version asked for, as ``1.41``; empty without one."""
        return self._call.version

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self.environ["REQUEST_METHOD"])

    @property
    def path(self) -> str:
        """The path as the daemon matches it: decoded and clean."""
        return routes.path_of(routes.target_of(self.environ))

    @property
    def query(self) -> Mapping[str, str]:
        """The query; of several values the first counts, as with the daemon.

        Raises :class:`~weavemw.errors.BadRequest` for a form in the body: the daemon lets its fields win over the
        query's (Go's ``Request.ParseForm``), and no Docker client sends one.
        """
        if "form-urlencoded" in self.environ.get("CONTENT_TYPE", "").lower() and self.method != "GET":
            raise BadRequest("a form is not supported: give what it says in the query")
        return routes.query_of(self.environ)

    @property
    def client(self) -> str:
        """The client's address, empty on a unix socket."""
        return str(self.environ.get("REMOTE_ADDR") or "")

    @property
    def body(self) -> Document:
        """The body's JSON object; empty if the body is none, which the daemon will refuse.

        Raises :class:`~weavemw.errors.Unsupported` for a body that is a stream (build, image_load, …),
        :class:`~weavemw.errors.BadRequest` and :class:`~weavemw.errors.PayloadTooLarge` for one that can't be read.
        """
        if not self._call.has_small_body:
            raise Unsupported(f"the body of {self.name or 'this call'} may be a stream: a policy can't read it")
        return Document(body_of(self.environ).document)
