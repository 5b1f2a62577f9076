"""Which of Docker's API calls a request is, seen as the daemon will see it. Pure.

The daemon (Go's ``net/url`` and a gorilla ``mux.Router``) takes the request
target apart like this, and so do we:

1. The query begins at the first ``?``; a ``#`` is an ordinary character
   (Go reads a request's target as having no fragment).
2. Percent-escapes are decoded **before** routes are matched: ``%63ontainers``
   is ``containers``, ``%2F`` is a slash.
3. A path with ``//``, ``/./`` or ``/../`` is answered with a redirect to the
   clean one. We match the clean one, so that an engine which does without the
   redirect can't be made to see a create where we see none.
4. ``{name:.*}`` takes slashes too (``/containers/web/db/start`` starts the
   container that ``web`` is linked to as ``db``); a trailing slash makes
   another path; any ``/vN.M`` may come first.

Routes are those of Docker Engine 20.10 to 29 (API 1.12 to 1.5x), in the
daemon's own order. Calls that are missing here (swarm, plugins, …) are never
looked into by us.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from weavemw.context import CALL, REQUEST_ID

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["NAMES", "Call", "call_of", "described", "drop_from_query", "find", "origin_form", "path_of", "query_of",
           "target_of"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of Docker's API.

    ``name`` is ``container_create``, ``exec_start``, … ``id`` is the id or name
    of the object that the path names, ``version`` the API version ("1.41"), each
    empty where there is none. ``answers_shortly`` tells calls that are answered at
    once with a small body from those that stream, hijack, upload or may take long.
    """

    name: str
    id: str = ""
    version: str = ""
    answers_shortly: bool = False

    @property
    def kind(self) -> str:
        """What it is about: ``container``, ``exec``, ``image``, ``network``, …"""
        return self.name.partition("_")[0]

    @property
    def container(self) -> str:
        """The container's id or name, empty for calls that name none in their path."""
        return self.id if self.kind == "container" or self.name == "exec_create" else ""

    @property
    def has_small_body(self) -> bool:
        """Whether its body is a document that is read whole, and no stream."""
        return self.answers_shortly or self.name in _DOCUMENTS

    def is_older_than(self, version: str) -> bool:
        """Whether the request asks for an API version below this one; without a version it asks for the newest."""
        return bool(self.version) and _parts(self.version) < _parts(version)


#: Calls that may take long, but whose body is a small document.
_DOCUMENTS = frozenset({"container_start", "container_restart", "container_commit", "exec_start"})
_SHORT, _LONG = True, False

# Method, path (the first * is the id), name, whether it is answered shortly.
_TABLE = (
    ("HEAD", "/_ping", "ping", _SHORT),
    ("GET", "/_ping", "ping", _SHORT),
    ("GET", "/version", "version", _SHORT),
    ("GET", "/info", "info", _SHORT),
    ("GET", "/events", "events", _LONG),
    ("GET", "/system/df", "df", _SHORT),
    ("POST", "/auth", "auth", _LONG),
    ("DELETE", "/containers/*/checkpoints/*", "container_checkpoint_delete", _LONG),
    ("GET", "/containers/*/checkpoints", "container_checkpoints", _SHORT),
    ("POST", "/containers/*/checkpoints", "container_checkpoint_create", _LONG),
    ("HEAD", "/containers/*/archive", "container_archive_head", _SHORT),
    ("GET", "/containers/json", "container_list", _SHORT),
    ("GET", "/containers/*/export", "container_export", _LONG),
    ("GET", "/containers/*/changes", "container_changes", _LONG),
    ("GET", "/containers/*/json", "container_inspect", _SHORT),
    ("GET", "/containers/*/top", "container_top", _SHORT),
    ("GET", "/containers/*/logs", "container_logs", _LONG),
    ("GET", "/containers/*/stats", "container_stats", _LONG),
    ("GET", "/containers/*/attach/ws", "container_attach_ws", _LONG),
    ("GET", "/exec/*/json", "exec_inspect", _SHORT),
    ("GET", "/containers/*/archive", "container_archive_get", _LONG),
    ("POST", "/containers/create", "container_create", _SHORT),
    ("POST", "/containers/*/kill", "container_kill", _LONG),
    ("POST", "/containers/*/pause", "container_pause", _SHORT),
    ("POST", "/containers/*/unpause", "container_unpause", _SHORT),
    ("POST", "/containers/*/restart", "container_restart", _LONG),
    ("POST", "/containers/*/start", "container_start", _LONG),
    ("POST", "/containers/*/stop", "container_stop", _LONG),
    ("POST", "/containers/*/wait", "container_wait", _LONG),
    ("POST", "/containers/*/resize", "container_resize", _SHORT),
    ("POST", "/containers/*/attach", "container_attach", _LONG),
    ("POST", "/containers/*/copy", "container_copy", _LONG),
    ("POST", "/containers/*/exec", "exec_create", _SHORT),
    ("POST", "/exec/*/start", "exec_start", _LONG),
    ("POST", "/exec/*/resize", "exec_resize", _SHORT),
    ("POST", "/containers/*/rename", "container_rename", _SHORT),
    ("POST", "/containers/*/update", "container_update", _SHORT),
    ("POST", "/containers/prune", "container_prune", _LONG),
    ("POST", "/commit", "container_commit", _LONG),
    ("PUT", "/containers/*/archive", "container_archive_put", _LONG),
    ("DELETE", "/containers/*", "container_delete", _LONG),
    ("GET", "/images/json", "image_list", _SHORT),
    ("GET", "/images/search", "image_search", _LONG),
    ("GET", "/images/get", "image_save", _LONG),
    ("GET", "/images/*/get", "image_save", _LONG),
    ("GET", "/images/*/history", "image_history", _SHORT),
    ("GET", "/images/*/json", "image_inspect", _SHORT),
    ("POST", "/images/load", "image_load", _LONG),
    ("POST", "/images/create", "image_pull", _LONG),
    ("POST", "/images/*/push", "image_push", _LONG),
    ("POST", "/images/*/tag", "image_tag", _SHORT),
    ("POST", "/images/prune", "image_prune", _LONG),
    ("DELETE", "/images/*", "image_delete", _LONG),
    ("POST", "/build", "build", _LONG),
    ("POST", "/build/prune", "build_prune", _LONG),
    ("POST", "/build/cancel", "build_cancel", _LONG),
    ("POST", "/session", "session", _LONG),
    ("POST", "/grpc", "grpc", _LONG),
    ("GET", "/networks", "network_list", _SHORT),
    ("GET", "/networks/", "network_list", _SHORT),
    ("GET", "/networks/*", "network_inspect", _SHORT),
    ("POST", "/networks/create", "network_create", _SHORT),
    ("POST", "/networks/*/connect", "network_connect", _SHORT),
    ("POST", "/networks/*/disconnect", "network_disconnect", _SHORT),
    ("POST", "/networks/prune", "network_prune", _LONG),
    ("DELETE", "/networks/*", "network_delete", _SHORT),
    ("GET", "/volumes", "volume_list", _SHORT),
    ("GET", "/volumes/*", "volume_inspect", _SHORT),
    ("POST", "/volumes/create", "volume_create", _SHORT),
    ("POST", "/volumes/prune", "volume_prune", _LONG),
    ("DELETE", "/volumes/*", "volume_delete", _LONG),
)

#: The names of all calls.
NAMES = frozenset(name for _, _, name, _ in _TABLE)


def call_of(environ: WSGIEnvironment) -> Call | None:
    """Which call this request is, ``None`` for one that we don't know; found once and kept in ``environ``."""
    if CALL not in environ:
        environ[CALL] = find(environ["REQUEST_METHOD"], target_of(environ))
    found: Call | None = environ[CALL]
    return found


def find(method: str, target: str) -> Call | None:
    """Which call the daemon will see in a request line's method and target (origin form)."""
    version, path = _version_and_path(path_of(target))
    for pattern, call in _routes().get(method, ()):
        if match := pattern.fullmatch(path):
            return replace(call, id=_text(match[1]) if pattern.groups else "", version=version)
    return None


def path_of(target: str) -> str:
    """The path that the daemon's routes are matched with: decoded, clean, one character a byte (latin-1)."""
    raw = target.partition("?")[0]
    path = "/" + unquote_to_bytes(raw.encode("latin-1", "replace")).decode("latin-1").lstrip("/")
    clean = posixpath.normpath(path)
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def query_of(environ: WSGIEnvironment) -> Mapping[str, str]:
    """The query as Go's ``Form.Get`` reads it: of several values the first counts."""
    pairs = parse_qsl(target_of(environ).partition("?")[2], keep_blank_values=True, encoding="utf-8",
                      errors="replace", max_num_fields=None, separator="&")
    return dict(reversed(pairs))


def drop_from_query(environ: WSGIEnvironment, name: str, unwanted: Callable[[str], bool]) -> None:
    """Take the values that are unwanted out of the query; everything else stays as the client wrote it."""
    path, _, query = target_of(environ).partition("?")
    pieces = query.split("&")
    kept = [piece for piece in pieces
            if not any(key == name and unwanted(value) for key, value in parse_qsl(piece, keep_blank_values=True))]
    if kept != pieces:
        environ["QUERY_STRING"] = "&".join(kept)
        environ["RAW_URI"] = environ["REQUEST_URI"] = f"{path}?{environ['QUERY_STRING']}"


def target_of(environ: WSGIEnvironment) -> str:
    """The request target as it is forwarded: the client's own bytes, in origin form (RFC 9112 section 3.2)."""
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if raw:
        return origin_form(raw)
    query = environ.get("QUERY_STRING")
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    return quote(path, safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")


def described(environ: WSGIEnvironment) -> str:
    """The request, for a log: id, method and path."""
    path = path_of(target_of(environ))
    return f"[{environ.get(REQUEST_ID, '-')}] {environ['REQUEST_METHOD']} {ascii(path)[1:-1]}"


def origin_form(target: str) -> str:
    """A request's target without scheme and authority, if it has them."""
    return target if target.startswith("/") or "://" not in target else _after_authority(target.partition("://")[2])


def _after_authority(rest: str) -> str:
    begin = re.search(r"[/?]", rest)
    if begin is None:
        return "/"
    found = rest[begin.start() :]
    return found if found.startswith("/") else f"/{found}"


def _version_and_path(path: str) -> tuple[str, str]:
    match = _version().fullmatch(path)
    return (match[1], match[2]) if match else ("", path)


@functools.cache
def _version() -> re.Pattern[str]:
    return re.compile(r"/v([0-9.]+)(/.*)", re.DOTALL)


def _text(latin: str) -> str:
    return latin.encode("latin-1").decode("utf-8", "replace")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in version.split(".") if part)


def _pattern(path: str) -> re.Pattern[str]:
    # A dot does not match a line feed, neither here nor in Go.
    return re.compile(re.escape(path).replace(r"\*", "(.*)"))


@functools.cache
def _routes() -> dict[str, list[tuple[re.Pattern[str], Call]]]:
    """The calls by method. Made when the first is looked for: it takes a third of the time that importing all does."""
    routes: dict[str, list[tuple[re.Pattern[str], Call]]] = {}
    for method, path, name, short in _TABLE:
        routes.setdefault(method, []).append((_pattern(path), Call(name, answers_shortly=short)))
    return routes
