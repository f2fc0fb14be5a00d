"""An HTTP server on loopback that answers as a test says: rightly, wrongly, slowly or not at all."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to send back.

    With `break_after` the connection ends after so many bytes of the body; with `wait` nothing
    more happens there until the event is set. With `trickle_s` each byte takes so long.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    break_after: int | None = None
    wait: threading.Event | None = None
    trickle_s: float = 0.0


@dataclass
class Scripted:
    """The server, and every request that it got."""

    port: int
    received: list[Received] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def lines(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.received]


Script = Callable[[Received], Answer]


@contextmanager
def scripted(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """A server that answers each request by `script`, over TLS if a context is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:  # the client hung up on the way
                self.close_connection = True
                return
            request = Received(
                self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body
            )
            server.received.append(request)
            _send(self, script(request))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients that hang up are part of the tests

    listener = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        listener.socket = tls.wrap_socket(
            listener.socket, server_side=True, do_handshake_on_connect=False
        )
    server = Scripted(listener.server_address[1])
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.send_response(answer.status)
    names = {name.lower() for name in answer.headers}
    if not names & {"content-length", "transfer-encoding"}:
        handler.send_header("Content-Length", str(len(answer.body)))
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "HEAD":
        return
    for byte in answer.body if answer.trickle_s else b"":
        handler.wfile.write(bytes([byte]))
        time.sleep(answer.trickle_s)
    handler.wfile.write(b"" if answer.trickle_s else answer.body[: answer.break_after])
    handler.wfile.flush()
    if answer.wait is not None:
        answer.wait.wait(30)
    if answer.break_after is not None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
