from __future__ import annotations

import socket
import struct
import threading

import pytest

from weavemw.network.reach import echo, is_reply, query, resolves


def test_the_answer_to_ours_is_told_from_others():
    """By the identifier, and that it is an answer."""
    head = bytes((0x45,)) + bytes(19)
    assert is_reply(head + struct.pack(">BBHHH", 0, 0, 0, 7, 1), 7)
    assert not is_reply(head + struct.pack(">BBHHH", 0, 0, 0, 8, 1), 7)
    assert not is_reply(head + struct.pack(">BBHHH", 8, 0, 0, 7, 1), 7)
    assert not is_reply(head, 7)
    assert not is_reply(b"", 7)


@pytest.mark.root
def test_loopback_answers():
    """Echoes are answered by every Linux."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        assert echo(sock, "127.0.0.1")


def test_a_server_that_answers_is_known():
    """Whatever it says, with the number of the question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve():
            asked, who = server.recvfrom(512)
            server.sendto(asked[:2] + b"\x80\x05" + asked[4:], who)

        threading.Thread(target=serve, daemon=True).start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            assert resolves(sock, "127.0.0.1", server.getsockname()[1], "weave.local")
    assert query("weave.local.", 5)[12:] == b"\x05weave\x05local\0\0\x06\0\x01"
