"""Bytes: HTTP/1.1 without a socket, connections to Docker, and what carries them between client and daemon."""
