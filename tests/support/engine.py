"""A small engine that speaks the OpenAI API on a loopback port: it answers what the test tells it to."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 60.0


@dataclass
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Engine:
    """What it received, and how it behaves.

    `words` are streamed one an event; behind the first one it waits for `go_on`. `left` is set when
    a caller goes away meanwhile. `failure` is answered instead: status, headers, body. `silent` reads
    requests and never answers.
    """

    url: str = ""
    words: tuple[str, ...] = ("The ", "third ", "copy.")
    requests: list[Received] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    failure: tuple[int, dict[str, str], bytes] | None = None
    breaks_off: bool = False
    silent: bool = False

    def __post_init__(self) -> None:
        self.go_on.set()

    @property
    def last(self) -> Received:
        return self.requests[-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: Engine

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._received()
        if not self._fails():
            self._json({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        received = self._received()
        if self._fails():
            return
        request = received.json
        if request.get("stream"):
            self._stream(self.path.rpartition("/v1/")[2])
        else:
            self._json(_whole(self.path.rpartition("/v1/")[2], "".join(self.engine.words)))

    def _received(self) -> Received:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(self.command, self.path, headers, body)
        self.engine.requests.append(received)
        return received

    def _fails(self) -> bool:
        if self.engine.silent:
            self._wait()
            self.close_connection = True
            return True
        if self.engine.failure is None:
            return False
        status, headers, body = self.engine.failure
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return True

    def _json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.send_header("set-cookie", "session=1")
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, place: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for position, word in enumerate(self.engine.words):
            self._event(json.dumps(_piece(place, word)))
            if position == 0 and not self._wait():
                self.close_connection = True
                return
            if self.engine.breaks_off:
                self.close_connection = True
                return
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        content = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _wait(self) -> bool:
        """Wait to go on; false if the caller goes away before."""
        for _ in range(int(WAIT_S / 0.01)):
            if self.engine.go_on.is_set() and not self.engine.silent:
                return True
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                self.engine.left.set()
                return False
        raise AssertionError("nobody told the engine to go on")


def _whole(place: str, text: str) -> dict[str, Any]:
    if place == "completions":
        return {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": text}]}
    if place == "responses":
        content = [{"type": "output_text", "text": text, "annotations": []}]
        item = {"type": "message", "id": "m", "role": "assistant", "content": content}
        return {"id": "r", "object": "response", "output": [item]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "c", "object": "chat.completion", "model": "tiny", "choices": [choice]}


def _piece(place: str, word: str) -> dict[str, Any]:
    if place == "completions":
        return {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": word}]}
    choice = {"index": 0, "delta": {"content": word}}
    return {"id": "c", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]}


@contextmanager
def running_engine() -> Iterator[Engine]:
    engine = Engine()
    handler = type("Handler", (_Handler,), {"engine": engine})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    engine.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
