"""Logs: one line a request, an id that can be trusted, and never a secret."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from memcube_registry.observability.metrics import Metrics
from memcube_registry.observability.requests import Observed, blot_secrets, configure_logging, log

SECRET = "mct_" + "s3cr3t-_" * 5 + "abc"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged while a test runs."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers, logging.root.level
    captured = io.StringIO()
    monkeypatch.setattr(sys, "stderr", captured)
    configure_logging("json", "info")
    yield captured
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def entries(stderr: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


def exchange(
    headers: list[tuple[bytes, bytes]] = [],  # noqa: B006 - never changed
    *,
    path: str = "/v2/",
    body: list[dict[str, Any]] | None = None,
    timeout_s: float = 5.0,
    pause_s: float = 0.0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the client was sent and what the application received, through `Observed`."""
    sent: list[dict[str, Any]] = []
    received: list[dict[str, Any]] = []
    messages = body or [{"type": "http.request", "body": b"12345", "more_body": False}]

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        while True:
            received.append(await receive())
            if not received[-1].get("more_body"):
                break
        answer = [(b"content-length", b"7")]
        await send({"type": "http.response.start", "status": 202, "headers": answer})
        await send({"type": "http.response.body", "body": b"1234567"})

    async def receive() -> dict[str, Any]:
        if messages:
            await asyncio.sleep(pause_s)
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": "PUT",
        "path": path,
        "query_string": f"token={SECRET}".encode(),
        "headers": headers,
    }
    asyncio.run(Observed(app, Metrics(), body_timeout_s=timeout_s)(scope, receive, send))
    return sent, received


def header(sent: list[dict[str, Any]], name: bytes) -> bytes:
    return dict(sent[0]["headers"])[name]


def test_a_request_has_one_line_without_its_query(stderr: io.StringIO) -> None:
    exchange([(b"authorization", f"Bearer {SECRET}".encode())], path="/v2/alice/notes/tags/list")
    (entry,) = entries(stderr)
    assert entry["event"] == "request"
    assert (entry["method"], entry["path"]) == ("PUT", "/v2/alice/notes/tags/list")
    assert (entry["status"], entry["received_bytes"], entry["sent_bytes"]) == (202, 5, 7)
    assert SECRET not in stderr.getvalue()


def test_probes_are_not_logged(stderr: io.StringIO) -> None:
    exchange(path="/healthz")
    assert stderr.getvalue() == ""


def test_a_good_request_id_is_kept(stderr: io.StringIO) -> None:
    sent, _ = exchange([(b"x-request-id", b"trace-1.2_3")])
    assert header(sent, b"x-request-id") == b"trace-1.2_3"
    assert entries(stderr)[0]["request_id"] == "trace-1.2_3"


@pytest.mark.parametrize("bad", [b"", b"a b", b"x" * 65, b'"},{"', b"a\nb", b"\xff", b"a;b"])
def test_a_bad_request_id_is_replaced(stderr: io.StringIO, bad: bytes) -> None:
    sent, _ = exchange([(b"x-request-id", bad)])
    assert header(sent, b"x-request-id") != bad
    assert len(header(sent, b"x-request-id")) == 32


def test_a_path_cannot_forge_a_line(stderr: io.StringIO) -> None:
    exchange(path='/v2/\n{"event": "request", "status": 200}')
    assert len(stderr.getvalue().splitlines()) == 1


def test_a_sender_that_pauses_too_long_is_given_up(stderr: io.StringIO) -> None:
    first = {"type": "http.request", "body": b"1", "more_body": True}
    _, received = exchange(body=[first], timeout_s=0.05)
    assert [message["type"] for message in received] == ["http.request", "http.disconnect"]
    assert "paused" in entries(stderr)[0]["event"]


def test_a_sender_of_a_byte_before_each_pause_ends_is_given_up(stderr: io.StringIO) -> None:
    pieces = [{"type": "http.request", "body": b"1", "more_body": True}] * 300
    _, received = exchange(body=pieces, timeout_s=0.2, pause_s=0.02)
    assert received[-1]["type"] == "http.disconnect"
    assert len(received) < 300


@pytest.mark.parametrize(
    "text", [SECRET, f"got {SECRET}", JWT, "Authorization: Basic YWxpY2U6c2VjcmV0", f"bearer {JWT}"]
)
def test_whoever_logs_a_secret_logs_a_blot(text: str) -> None:
    entry = blot_secrets(None, "", {"event": "x", "detail": text})
    assert "[secret]" in entry["detail"]
    assert SECRET not in entry["detail"]
    assert JWT not in entry["detail"]
    assert "YWxpY2U" not in entry["detail"]


def test_secrets_in_exceptions_and_other_libraries_are_blotted_too(stderr: io.StringIO) -> None:
    try:
        raise ValueError(f"bad token {SECRET}")
    except ValueError:
        log.exception("failed")
    logging.getLogger("library").error("refused %s", SECRET)
    assert "bad token" in stderr.getvalue()
    assert "refused" in stderr.getvalue()
    assert SECRET not in stderr.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_path_steers_the_terminal_or_turns_the_line_of_who_reads_the_log(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging(form, "info")
    log.info("request", path="/\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r/caf\u00e9", status=404)
    line = stderr.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert "owned" in line
    assert "caf\u00e9" in line


def test_an_exception_keeps_its_lines(stderr: io.StringIO) -> None:
    try:
        raise ValueError("of \x1b[31m colours")
    except ValueError as error:
        log.error("failed", exc_info=error)
    (entry,) = entries(stderr)
    assert entry["exception"].startswith("Traceback (most recent call last):\n  File")
    assert "of \\x1b[31m colours" in entry["exception"]
