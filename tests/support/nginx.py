"""nginx before several servers, with the configuration of the guide."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support.servers import clean_environment, free_port, stop_process, wait_for_port

GUIDE: Final = Path(__file__).parents[2] / "docs" / "guide" / "nginx.conf"

_MAIN: Final = """\
daemon off;
master_process off;
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


def configuration(ports: Sequence[int], port: int) -> str:
    """The guide's configuration for servers at `ports`, listening on `port` without TLS."""
    text = GUIDE.read_text(encoding="utf-8")
    form = "    server 127.0.0.1:{} max_fails=1 fail_timeout=5s;\n"
    lines = "".join(form.format(each) for each in ports)
    text, upstreams = re.subn(r"(?:    server registry-\d:7070 [^\n]*\n)+", lines, text)
    text, listens = re.subn(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", text)
    text, secrets = re.subn(r"    ssl_certificate(?:_key)? [^\n]*\n", "", text)
    assert (upstreams, listens, secrets) == (1, 1, 2), "the guide's file has another form"
    return text


@contextmanager
def nginx(folder: Path, ports: Sequence[int], port: int = 0) -> Iterator[str]:
    """URL of an nginx that shares requests between servers at `ports`; skips the test without nginx."""
    require_nginx()
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    (folder / "registry.conf").write_text(configuration(ports, port), encoding="utf-8")
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder), encoding="utf-8")
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
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_process(process, signal.SIGTERM)


def require_nginx() -> None:
    """Skip the test where nginx is not installed."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
