"""A server on loopback that speaks the part of the Hugging Face Hub's API that its clients use.

    with hub_server(folder) as hub:
        token = hub.state.token("ada")
        subprocess.run(["hf", "upload", …], env=hub.environment(token))

Two listeners on two ports, so two origins: the Hub itself, and the storage behind it ("CDN") to which
signed addresses lead and which refuses any `Authorization`. Every request is in `hub.seen`. A test that
wants another answer sets `hub.script`. As a process of its own: `python -m support.hub FOLDER NAME`
prints one line of JSON with the address and a token of NAME.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.hub_repositories import Hub
from support.scripted import Answer

PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """A request as it came; `site` is `hub` or `storage`. The body of an upload is not kept."""

    site: str
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    def __str__(self) -> str:
        return f"{self.site} {self.method} {self.path}"


@dataclass
class HubServer:
    """The running server."""

    state: Hub
    url: str = ""
    storage_url: str = ""
    seen: list[Seen] = field(default_factory=list)
    script: Callable[[Seen], Answer | None] = lambda seen: None

    def environment(self, token: str | None = None, *, home: Path | None = None) -> dict[str, str]:
        """Variables with which clients of the Hub use this one, without Xet and telemetry."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        kept |= {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HOME": str(home or self.state.folder / "home"),
        }
        return kept | ({"HF_TOKEN": token} if token else {})

    def lines(self) -> list[str]:
        return [str(seen) for seen in self.seen]

    def tokens_sent(self, site: str) -> set[str]:
        """Every `Authorization` that came to `site`."""
        return {seen.authorization for seen in self.seen if seen.site == site} - {None}  # type: ignore[return-value]


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the tests


class Exchange(BaseHTTPRequestHandler):
    """One connection; `answer` of the site says what to do with each request."""

    protocol_version = "HTTP/1.1"
    site: str
    server_of: HubServer
    route: Callable[[Exchange], None]

    def handle_any(self) -> None:
        self.unread = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.site, self.command, self.path, headers)
        self.server_of.seen.append(seen)
        scripted = self.server_of.script(seen)
        if scripted is not None:
            self.body()
            length = {"Content-Length": str(len(scripted.body))}
            content = scripted.body[: scripted.break_after]
            self.reply(scripted.status, content, length | dict(scripted.headers))
            self.close_connection |= scripted.break_after is not None
        else:
            type(self).route(self)
        if self.unread:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass

    def pieces(self) -> Iterator[bytes]:
        """The request's body."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().strip(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        while self.unread:
            piece = self.rfile.read(min(PIECE_BYTES, self.unread))
            if not piece:
                return
            self.unread -= len(piece)
            yield piece

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def reply(
        self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with `content` in memory; a HEAD request gets the headers only."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers or {}}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_json(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with a JSON document."""
        more = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        self.reply(status, json.dumps(value).encode(), more)

    def reply_part(
        self, size: int, send: Callable[[int, int], None], headers: Mapping[str, str]
    ) -> None:
        """Answer with a file of `size` bytes, or with the range that was asked for."""
        begin, end = range_of(self.headers.get("Range"), size)
        if begin >= size > 0:
            self.reply(416, headers={"Content-Range": f"bytes */{size}"})
            return
        whole = (begin, end) == (0, size)
        more = {} if whole else {"Content-Range": f"bytes {begin}-{end - 1}/{size}"}
        more |= {"Content-Length": str(end - begin), "Accept-Ranges": "bytes"}
        self.send_response(200 if whole else 206)
        for name, value in {**headers, **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            send(begin, end)

    def send_file(self, path: Path, begin: int, end: int) -> None:
        """The bytes of a file, sent by the kernel."""
        with path.open("rb") as file:
            self.wfile.flush()
            self.connection.sendfile(file, begin, end - begin)


def range_of(header: str | None, size: int) -> tuple[int, int]:
    """Begin and end of `bytes=a-b` or `bytes=a-`; everything without it."""
    if not header or not header.startswith("bytes="):
        return 0, size
    begin, _, last = header.removeprefix("bytes=").partition("-")
    return int(begin), min(int(last) + 1, size) if last else size


def _listen(server: HubServer, site: str, route: Callable[[Exchange], None]) -> _Listener:
    attributes = {"site": site, "server_of": server, "route": staticmethod(route)}
    handler = type("Handler", (Exchange,), attributes)
    listener = _Listener(("127.0.0.1", 0), handler)
    listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    return listener


@contextmanager
def hub_server(folder: Path) -> Iterator[HubServer]:
    """A running Hub whose large files lie below `folder`."""
    from support.hub_routes import answer, answer_storage

    (folder / "lfs").mkdir(parents=True, exist_ok=True)
    server = HubServer(Hub(folder))
    sites = (_listen(server, "hub", answer), _listen(server, "storage", answer_storage))
    server.url, server.storage_url = (f"http://127.0.0.1:{site.server_port}" for site in sites)
    try:
        yield server
    finally:
        for site in sites:
            site.shutdown()
            site.server_close()


def main() -> None:
    """Serve until standard input ends."""
    name = sys.argv[2] if len(sys.argv) > 2 else "ada"
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder, hub_server(Path(folder)) as hub:
        token = hub.state.token(name)
        print(json.dumps({"url": hub.url, "storage": hub.storage_url, "token": token}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
