"""`memcube mcp` as clients start it: one process over stdio, one over HTTP, the official client."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from support.mounted import HANDBOOK, pack_handbook
from support.servers import clean_environment, command, first_line, stop_process

mcp = pytest.importorskip("mcp")
pytest.importorskip("qdrant_edge")
START_S = 60
PAGE = "https://app.example"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    return clean_environment(**pack_handbook(home))


async def conversation(client: Any, name: str) -> None:
    """Find, read, remember and find again."""
    found = (await client.call_tool("search", {"query": "ferry"})).structured_content
    assert found["results"][0]["id"] == f"{HANDBOOK}#ferry"
    text = (await client.call_tool("read", {"ids": [f"{HANDBOOK}#ferry"]})).content[0].text
    assert "The ferry leaves at nine." in text
    kept = await client.call_tool("remember", {"text": f"Told over {name}: ship ahoy."})
    assert not kept.is_error
    again = await client.call_tool("context", {"question": "ahoy"})
    assert f"Told over {name}" in again.content[0].text


def test_a_client_starts_it_and_speaks_over_its_pipes(
    home: Path, environment: dict[str, str]
) -> None:
    own = home / "stdio-notes"
    started = mcp.StdioServerParameters(
        command=command("memcube"),
        args=["mcp", "acme/handbook", "--overlay", str(own)],
        env=environment,
    )

    async def talk() -> None:
        async with mcp.Client(mcp.stdio_client(started)) as client:
            await conversation(client, "stdio")

    anyio.run(talk)
    (file,) = own.glob("plaintext/*.jsonl")
    assert b"ship ahoy" in file.read_bytes()


@pytest.fixture(scope="module")
def token_file(home: Path) -> Path:
    return home / "token"


@pytest.fixture(scope="module")
def url(home: Path, environment: dict[str, str], token_file: Path) -> Iterator[str]:
    words = ["mcp", "serve", "acme/handbook", "--overlay", str(home / "http-notes")]
    process = subprocess.Popen(
        [
            command("memcube"),
            *words,
            "--http",
            "--port",
            "0",
            "--token-file",
            str(token_file),
            "--allow-origin",
            PAGE,
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield first_line(process, START_S).split()[-1]
    finally:
        stop_process(process)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_clients_with_the_token_speak_over_http(url: str, token_file: Path, mode: str) -> None:
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    assert token_file.stat().st_mode & 0o077 == 0
    shown = {"Authorization": f"Bearer {token_file.read_text().strip()}"}

    async def talk() -> None:
        async with (
            create_mcp_http_client(headers=shown) as http_client,
            mcp.Client(streamable_http_client(url, http_client=http_client), mode=mode) as client,
        ):
            await conversation(client, f"HTTP {mode}")

    anyio.run(talk)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Host": "rebound.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Right": "yes", "Content-Length": "1000000"}, 413),
        ({"Right": "yes", "Content-Type": "text/plain"}, 400),
    ],
)
def test_others_are_turned_away(
    url: str, token_file: Path, headers: dict[str, str], status: int
) -> None:
    place = urlsplit(url)
    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if headers.pop("Right", None):
        sent["Authorization"] = f"Bearer {token_file.read_text().strip()}"
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=START_S)
    try:
        connection.request("POST", place.path, body=b"", headers=sent | headers)
        assert connection.getresponse().status == status
    finally:
        connection.close()


def test_an_allowed_page_may_ask_and_read_the_answer(url: str) -> None:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=START_S)
    asks = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version",
    }
    try:
        connection.request("OPTIONS", place.path, headers=asks)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"OK")
        assert answer.getheader("Access-Control-Allow-Origin") == PAGE
        assert "authorization" in (answer.getheader("Access-Control-Allow-Headers") or "")
        assert answer.getheader("Access-Control-Allow-Credentials") is None
    finally:
        connection.close()
