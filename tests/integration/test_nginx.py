"""The guide's nginx.conf: it is accepted as it stands, and sends nothing twice that is not safe to repeat."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.nginx import GUIDE, nginx, require_nginx
from support.wire import Wire


@dataclass
class Breaker:
    """A server that reads the head of each request and hangs up."""

    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    requests: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed: the test has ended
            with connection:
                line = connection.recv(65536).split(b"\r\n")[0].decode()
                if line:
                    self.requests.append(line)


@contextmanager
def breakers(count: int) -> Iterator[list[Breaker]]:
    servers = [Breaker() for _ in range(count)]
    threads = [threading.Thread(target=server.serve, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.listener.shutdown(socket.SHUT_RDWR)
            server.listener.close()
        for thread in threads:
            thread.join(10)


@pytest.mark.parametrize(
    ("method", "tries"),
    [("GET", 2), ("HEAD", 2), ("POST", 1), ("PUT", 1), ("PATCH", 1), ("DELETE", 1)],
)
def test_only_reading_is_tried_at_another_replica(tmp_path: Path, method: str, tries: int) -> None:
    with breakers(2) as servers, nginx(tmp_path, [each.port for each in servers]) as running:
        assert Wire(running.url).send(method, "/v2/ada/notes/tags/list").status == 502
        asked = [line for server in servers for line in server.requests]
    assert asked == [f"{method} /v2/ada/notes/tags/list HTTP/1.1"] * tries


def test_nginx_accepts_the_file_of_the_guide(tmp_path: Path) -> None:
    require_nginx()
    text = GUIDE.read_text(encoding="utf-8")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=registry.example.org",
            "-keyout",
            "key",
            "-out",
            "pem",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    for place, name in (("/etc/nginx/registry.pem", "pem"), ("/etc/nginx/registry.key", "key")):
        assert text.count(place) == 1
        text = text.replace(place, str(tmp_path / name))
    # Names of machines that are not there; nginx looks them up when it starts.
    text = text.replace("registry-1:", "127.0.0.1:").replace("registry-2:", "127.0.0.2:")
    (tmp_path / "registry.conf").write_text(text, encoding="utf-8")
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/log;\n"
        f"events {{}}\nhttp {{ access_log off; include {tmp_path}/registry.conf; }}\n"
    )
    done = subprocess.run(
        ["nginx", "-t", "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr
