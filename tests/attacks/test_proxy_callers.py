"""Requests to the memory proxy that are not from a program of this machine, or want too much of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from memcube.proxy.addition import Addition
from memcube.proxy.upstream import Upstream
from memcube.serving import guard
from support.engine import WAIT_S, Engine, running_engine
from support.proxied import Proxied, running_proxy

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")
http_server = pytest.importorskip("memcube.serving.http_server")

ADDITION = Addition("", lambda _: "")
BODY = b'{"messages":[{"role":"user","content":"What is my password?"}]}'


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def proxied(engine: Engine) -> Iterator[Proxied]:
    with running_proxy(Upstream(engine.url), ADDITION) as proxied:
        yield proxied


def sent(proxied: Proxied, head: str, body: bytes = b"") -> bytes:
    """All that comes back for the bytes of a request."""
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=WAIT_S) as line:
        line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        found = b""
        while piece := line.recv(65536):
            found += piece
        return found


def here(proxied: Proxied) -> str:
    return f"127.0.0.1:{proxied.port}"


def chat(host: str, kind: str = "application/json", more: str = "") -> str:
    return (
        f"POST /v1/chat/completions HTTP/1.1\nHost: {host}\nContent-Type: {kind}\n"
        f"Content-Length: {len(BODY)}\nConnection: close{more}"
    )


def test_a_program_of_this_machine_is_answered(proxied: Proxied) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert b" 200 " in sent(proxied, chat(f"{host}:{proxied.port}"), BODY)


@pytest.mark.parametrize(
    ("host", "more", "status"),
    [
        ("rebound.example:PORT", "", b" 421 "),
        ("127.0.0.1.rebound.example:PORT", "", b" 421 "),
        ("10.0.0.5:PORT", "", b" 421 "),
        ("127.0.0.1:1", "", b" 421 "),
        ("", "", b" 421 "),
        ("127.0.0.1:PORT", "\nOrigin: https://evil.example", b" 403 "),
        ("127.0.0.1:PORT", "\nOrigin: http://localhost:3000", b" 403 "),
        ("127.0.0.1:PORT", "\nOrigin: null", b" 403 "),
    ],
)
def test_a_page_of_the_web_cannot_ask(
    engine: Engine, proxied: Proxied, host: str, more: str, status: bytes
) -> None:
    count = len(engine.requests)
    found = sent(proxied, chat(host.replace("PORT", str(proxied.port)), more=more), BODY)
    assert status in found
    assert b"access-control" not in found.lower()
    assert len(engine.requests) == count


def test_a_page_that_the_user_allows_may_ask(engine: Engine) -> None:
    page = "https://app.example"
    with running_proxy(Upstream(engine.url), ADDITION, origins=(page,)) as proxied:
        found = sent(proxied, chat(here(proxied), more=f"\nOrigin: {page}"), BODY)
        assert b" 200 " in found
        assert f"access-control-allow-origin: {page}".encode() in found.lower()
        assert b" 403 " in sent(
            proxied, chat(here(proxied), more="\nOrigin: https://evil.example"), BODY
        )


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_that_leads_a_browser_here_asks_nothing(
    engine: Engine, proxied: Proxied, site: str
) -> None:
    """Links, images and frames carry no `Origin`."""
    count = len(engine.requests)
    head = (
        f"GET /v1/models HTTP/1.1\nHost: {here(proxied)}\nSec-Fetch-Site: {site}\nConnection: close"
    )
    assert b" 403 " in sent(proxied, head)
    assert len(engine.requests) == count


def test_an_engine_that_answers_with_a_page_runs_nothing_under_the_address_of_the_proxy(
    engine: Engine, proxied: Proxied
) -> None:
    page = {
        "Content-Type": "text/html",
        "Content-Security-Policy": "script-src *",
        "Refresh": "0; url=https://evil.example",
        "Clear-Site-Data": '"*"',
    }
    engine.failure = 200, page, b"<script>fetch('/v1/chat/completions')</script>"
    try:
        found = sent(
            proxied, f"GET /v1/models HTTP/1.1\nHost: {here(proxied)}\nConnection: close"
        ).lower()
    finally:
        engine.failure = None
    assert b"<script>" in found
    assert b"content-security-policy: sandbox; default-src 'none'\r\n" in found
    assert b"x-content-type-options: nosniff\r\n" in found
    for name in (b"script-src", b"refresh:", b"clear-site-data:"):
        assert name not in found


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_form_can_send_without_being_asked_is_refused(
    engine: Engine, proxied: Proxied, kind: str
) -> None:
    count = len(engine.requests)
    assert b" 400 " in sent(proxied, chat(here(proxied), kind), BODY)
    assert len(engine.requests) == count


def test_a_preflight_gets_no_leave(proxied: Proxied) -> None:
    found = sent(
        proxied, f"OPTIONS /v1/chat/completions HTTP/1.1\nHost: {here(proxied)}\nConnection: close"
    )
    assert b" 200 " not in found
    assert b"access-control" not in found.lower()


def test_a_request_that_is_too_large_is_refused_before_it_is_whole(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, proxied: Proxied
) -> None:
    from memcube.proxy import application

    monkeypatch.setattr(application, "REQUEST_BYTES", len(BODY) - 1)
    count = len(engine.requests)
    assert b" 413 " in sent(proxied, chat(here(proxied)), BODY)
    chunked = (
        f"POST /v1/completions HTTP/1.1\nHost: {here(proxied)}\nContent-Type: application/json\n"
        "Transfer-Encoding: chunked\nConnection: close"
    )
    piece = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    assert b" 413 " in sent(proxied, chunked, piece)
    assert len(engine.requests) == count


def test_a_request_that_never_ends_is_given_up(
    monkeypatch: pytest.MonkeyPatch, proxied: Proxied
) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0)
    found = sent(proxied, chat(here(proxied)), BODY[:-1])
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in found.lower()


def test_headers_that_never_end_are_given_up(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, proxied: Proxied
) -> None:
    monkeypatch.setattr(http_server, "HEADERS_S", 0.05)
    count = len(engine.requests)
    models = f"GET /v1/models HTTP/1.1\r\nHost: {here(proxied)}\r\n".encode()
    for begun in (b"", b"GET", models, models + b"\r\n" + models):
        with socket.create_connection(("127.0.0.1", proxied.port), timeout=WAIT_S) as line:
            line.sendall(begun)
            found = b""
            while piece := line.recv(65536):
                found += piece
        assert (b" 200 " in found) == (b"\r\n\r\n" in begun)
    assert len(engine.requests) == count + 1


def test_headers_without_end_are_cut_off(engine: Engine, proxied: Proxied) -> None:
    count = len(engine.requests)
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=WAIT_S) as line:
        with suppress(OSError):
            line.sendall(b"POST /v1/completions HTTP/1.1\r\nX-Long: ")
            for _ in range(64):
                line.sendall(b"x" * 65536)
        with suppress(ConnectionError):
            assert b" 200 " not in line.recv(65536)
    assert len(engine.requests) == count
