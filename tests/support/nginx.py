"""nginx before several servers, with the configuration of the guide."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.servers import (
    START_TIMEOUT_S,
    clean_environment,
    free_port,
    stop_process,
    wait_for_port,
)

GUIDE: Final = Path(__file__).parents[2] / "docs" / "guide" / "nginx.conf"

_MAIN: Final = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/registry.conf;
}}
"""


def configuration(
    ports: Sequence[int], port: int, down: int | None = None, blobs: Path | None = None
) -> str:
    """The guide's configuration for servers at `ports`, listening on `port` without TLS.

    It sends files from the folder `blobs` where the servers say so. The server at `down` is marked as the guide says for one that is going to be stopped.
    """
    text = GUIDE.read_text(encoding="utf-8")
    lines = "".join(
        f"    server 127.0.0.1:{each} max_fails=1 fail_timeout=5s{' down' * (each == down)};\n"
        for each in ports
    )
    text, upstreams = re.subn(r"(?:    server registry-\d:7070 [^\n]*\n)+", lines, text)
    text, listens = re.subn(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", text)
    text, secrets = re.subn(r"    ssl_certificate(?:_key)? [^\n]*\n", "", text)
    text, folders = re.subn(r"/var/lib/memcube/blobs/blobs/", f"{blobs or '/nowhere'}/", text)
    assert (upstreams, listens, secrets, folders) == (1, 1, 2, 1), (
        "the guide's file has another form"
    )
    return text


@dataclass
class Nginx:
    """A running nginx."""

    folder: Path
    ports: Sequence[int]
    port: int
    process: subprocess.Popen[str]
    blobs: Path | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reload(self, *, down: int | None = None) -> None:
        """Leave the server at `down` alone from now on, or none; returns when nothing is on its way there."""
        before = self._workers()
        text = configuration(self.ports, self.port, down, self.blobs)
        (self.folder / "registry.conf").write_text(text, encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._workers() & before or not self._workers():
            assert time.monotonic() < deadline, "nginx did not load its configuration anew"
            time.sleep(0.05)

    def _workers(self) -> set[str]:
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())


@contextmanager
def nginx(
    folder: Path, ports: Sequence[int], port: int = 0, *, blobs: Path | None = None
) -> Iterator[Nginx]:
    """An nginx that shares requests between servers at `ports`; skips the test without nginx.

    It sends files from the folder `blobs` where the servers say so.
    """
    require_nginx()
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    # Its workers would else be somebody who may not read the folders of a test.
    main = _MAIN.format(folder=folder, user="user root;" if os.geteuid() == 0 else "")
    (folder / "registry.conf").write_text(configuration(ports, port, blobs=blobs), encoding="utf-8")
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(
            ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            env=clean_environment(),
            start_new_session=True,
        )
    try:
        wait_for_port(port)
        yield Nginx(folder, ports, port, process, blobs)
    finally:
        stop_process(process, signal.SIGTERM)


def require_nginx() -> None:
    """Skip the test where nginx is not installed."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
