"""A loopback proxy that counts what clients send: bytes each way, and the line of every request."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from support.servers import free_port

_REQUEST = re.compile(rb"((?:GET|HEAD|POST|PUT|PATCH|DELETE) /\S* HTTP/1\.1)\r\n")
_TAIL_BYTES = 4096


@dataclass
class Counter:
    """What has passed so far."""

    port: int
    bytes_per_s: float = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        with self.lock:
            self.sent_bytes = self.received_bytes = 0
            self.requests.clear()

    def without_tokens(self) -> list[str]:
        """The requests, less those for a token and the challenge that leads to it."""
        return [line for line in self.requests if "/token" not in line and line != "GET /v2/"]


@contextmanager
def counting_proxy(target_port: int, port: int = 0, *, bytes_per_s: float = 0) -> Iterator[Counter]:
    """A proxy to `target_port` on loopback; each direction at most so fast, if a speed is given."""
    counter = Counter(port or free_port(), bytes_per_s)
    listener = socket.create_server(("127.0.0.1", counter.port))
    threading.Thread(target=_accept, args=(listener, target_port, counter), daemon=True).start()
    try:
        yield counter
    finally:
        listener.close()


def _accept(listener: socket.socket, target_port: int, counter: Counter) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", target_port))
            except OSError:
                client.close()
                continue
            threading.Thread(target=_join, args=(client, server, counter), daemon=True).start()


def _join(client: socket.socket, server: socket.socket, counter: Counter) -> None:
    """Forward both ways until both ends are done."""
    with client, server:
        back = threading.Thread(target=_forward, args=(server, client, counter, False), daemon=True)
        back.start()
        _forward(client, server, counter, True)
        back.join()


def _forward(source: socket.socket, sink: socket.socket, counter: Counter, outward: bool) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 18):
            with counter.lock:
                if outward:
                    counter.sent_bytes += len(block)
                    counter.requests += _request_lines(block)
                else:
                    counter.received_bytes += len(block)
            sink.sendall(block)
            if counter.bytes_per_s:
                time.sleep(len(block) / counter.bytes_per_s)
    for end in (sink, source):
        with suppress(OSError):
            end.shutdown(socket.SHUT_WR if end is sink else socket.SHUT_RD)


def _request_lines(block: bytes) -> list[str]:
    """Method and path of the request that begins `block`: clients here send no two at once."""
    found = _REQUEST.match(block[:_TAIL_BYTES])
    return [found.group(1).decode("latin-1").removesuffix(" HTTP/1.1")] if found else []
