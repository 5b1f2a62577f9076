"""What becomes of a docker command in this shell: the way that docker's CLI would take, tried."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from weavemw.dockerapi import hosts
from weavemw.dockerapi.hosts import Host, Tcp
from weavemw.errors import WeaveError
from weavemw.serving import listeners
from weavemw.settings import points_at

__all__ = ["Target", "check_shell", "complaint", "target_of"]

_ENTER = '`eval "$(weave env)"` leads it there'
_LIMIT = 5.0  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Target:
    """Where docker's CLI goes (empty: where Docker is by default), what sends it there, whether with TLS."""

    host: str
    by: str
    tls: bool = False


def target_of(environ: Mapping[str, str], config: Mapping[str, Any]) -> Target:
    """Where a docker command goes that has no options; ``config`` is docker's ``config.json``.

    ``DOCKER_HOST`` wins over ``DOCKER_CONTEXT``, which wins over the context in use (docker CLI 20.10 and newer).
    """
    if host := environ.get("DOCKER_HOST", ""):
        return Target(host, "DOCKER_HOST", bool(environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_TLS")))
    if context := environ.get("DOCKER_CONTEXT", ""):
        return Target("", f"DOCKER_CONTEXT ({context})")
    if context := str(config.get("currentContext") or ""):
        return Target("", f"`docker context use {context}`")
    return Target("", "default, since DOCKER_HOST is not set")


def complaint(target: Target, serving: Sequence[Host], *, tls: bool) -> str:
    """Why this does not lead to a proxy that listens there; empty if it does."""
    if not points_at(target.host, tuple(map(str, serving))):
        where = f"at {target.host} " if target.host else ""
        listening = " ".join(map(str, serving))
        return f"docker goes to an engine {where}by {target.by}, not to the proxy at {listening}: {_ENTER}"
    encrypted = tls and isinstance(hosts.parse(target.host), Tcp)
    if encrypted and not target.tls:
        return f"{target.host} wants TLS, and DOCKER_TLS_VERIFY is not set: `export DOCKER_TLS_VERIFY=1`"
    if target.tls and not encrypted:
        return f"{target.host} has no TLS, and DOCKER_TLS_VERIFY is set: {_ENTER}"
    return ""


def check_shell(environ: Mapping[str, str], facts: Mapping[str, Any], serving: Sequence[Host]) -> str:
    """Go the way of a docker command; gives what to say if it leads to Docker through the proxy.

    ``facts`` are the running proxy's. Raises :class:`~weavemw.errors.WeaveError` with what is wrong.
    """
    home = Path(environ.get("HOME") or "/root") / ".docker"
    target = target_of(environ, _config(Path(environ.get("DOCKER_CONFIG") or home) / "config.json"))
    if wrong := complaint(target, serving, tls=bool(facts.get("tls"))):
        raise WeaveError(wrong)
    certificates = Path(environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG") or home)
    context = _context(certificates) if target.tls else None
    return f"docker goes through the proxy at {target.host} to Docker {_version(target.host, context)}"


def _config(path: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeaveError(f"docker can't read {path}: {error}") from error


def _context(directory: Path) -> ssl.SSLContext:
    """TLS as a client with ``DOCKER_TLS_VERIFY`` has it."""
    try:
        context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    except OSError as error:
        raise WeaveError(f"docker can't use ca.pem, cert.pem and key.pem of {directory}: {error.strerror or error}; "
                         "`weave certs` makes such, DOCKER_CERT_PATH names the directory") from error
    return context


def _version(host: str, context: ssl.SSLContext | None) -> str:
    there = hosts.parse(host)
    try:
        with _connected(there, context) as sock:
            return _asked(sock)
    except ssl.SSLCertVerificationError as error:
        raise WeaveError(f"{host} shows a certificate that docker does not accept: {error.verify_message}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it closed the connection"
        raise WeaveError(f"{host} does not answer this client: {reason}; `weave status` says what the proxy does, and "
                         "--allow-from whom it lets in") from error


def _connected(there: Host, context: ssl.SSLContext | None) -> socket.socket:
    plain = listeners.connect(there, _LIMIT)
    if context is None or not isinstance(there, Tcp):
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=there.host)
    except BaseException:
        plain.close()
        raise


def _asked(sock: socket.socket) -> str:
    connection = HTTPConnection("docker")
    connection.sock = sock
    connection.request("GET", "/version")
    reply = connection.getresponse()
    text = reply.read()
    if reply.status != 200:
        raise WeaveError(f"the proxy answers {reply.status}: {text.decode(errors='replace').strip()}")
    return str(json.loads(text).get("Version"))
