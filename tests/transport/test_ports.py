from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from weavemw.transport import ports

#: What proc(5) shows of three listeners (10.0.0.1:80, [::1]:80, a wildcard of IPv6 at 443) and a connection.
_TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100
   1: 0200000A:1F90 0100000A:0050 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 13 1 0 1
   1: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 14 1 0 1
"""


@pytest.mark.parametrize(("host", "port", "inode"), [
    pytest.param("10.0.0.1", 80, 11, id="this address"),
    pytest.param("10.0.0.2", 80, 0, id="another address"),
    pytest.param("0.0.0.0", 80, 11, id="every address is wanted"),
    pytest.param("::1", 80, 13, id="IPv6"),
    pytest.param("10.0.0.9", 443, 14, id="every address is taken"),
    pytest.param("10.0.0.2", 8080, 0, id="only a connection"),
])
def test_the_socket_that_listens_is_found(host: str, port: int, inode: int) -> None:
    """Where a wildcard stands for every address."""
    assert ports.inode_of(_TABLE, host, port, "0A") == inode


@pytest.mark.parametrize(("family", "kind", "protocol", "host"), [
    (socket.AF_INET, socket.SOCK_STREAM, "tcp", "127.0.0.1"),
    (socket.AF_INET6, socket.SOCK_STREAM, "tcp", "::1"),
    (socket.AF_INET, socket.SOCK_DGRAM, "udp", "127.0.0.1"),
])
def test_the_program_that_has_a_port_is_named(family: socket.AddressFamily, kind: socket.SocketKind, protocol: str,
                                              host: str) -> None:
    """By its name and pid; when it has gone, nobody has the port."""
    with socket.socket(family, kind) as sock:
        sock.bind((host, 0))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        port = sock.getsockname()[1]
        comm = Path("/proc/self/comm").read_text().strip()
        assert ports.holder(host, port, protocol) == f"{comm} (pid {os.getpid()})"
    assert ports.holder(host, port, protocol) == ""
