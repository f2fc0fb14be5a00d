"""Sockets of the servers that run for programs of this machine."""

from __future__ import annotations

import socket

from memcube_protocol.errors import ConflictError


def listen_at(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port` (0: a free one).

    Raises:
        ConflictError: the address is in use, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # An event loop sends small pieces at once only where it is told that this is TCP: without that the
    # last one of an answer waits some 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConflictError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            hint="name another port, or 0 for a free one",
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """`http://` with the host and the port that `listener` got."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
