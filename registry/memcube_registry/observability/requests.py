"""What is seen of each request: an id, one log line, figures. Never a query string, header or body."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from memcube_registry.http.asgi import Application, Message, Receive, Scope, Send
from memcube_registry.observability.metrics import Metrics, route_class

PROBES: Final = ("/healthz", "/readyz", "/metrics")
PACE_BYTES_PER_S: Final = 1024
"""How fast a body comes on the whole at least, after its first pause; our own work does not count."""
REQUEST_ID_KEY: Final = "memcube.request_id"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECRET: Final = re.compile(
    r"mct_[A-Za-z0-9_-]{8,}|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
    r"|(?i:(?:basic|bearer)\s+[A-Za-z0-9+/=._-]{8,})"
    # Of S3, the Hub and its CDN: whoever has a signed address may do what it is for.
    r"|hf_[A-Za-z0-9]{8,}"
    r"|(?<![A-Za-z])(?i:x-amz-)?(?i:signature|credential|security-token|policy)=[^&\s\"'<>]{8,}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("memcube.registry")


def configure_logging(form: str, level: str) -> None:
    """Write the log to stderr as JSON lines or as text, secrets blotted out whoever logs them."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        blot_secrets,
        show_hidden,
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level.upper()),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel("WARNING" if level == "info" else level.upper())


def blot_secrets(_logger: Any, _method: str, entry: Any) -> Any:
    """A log entry without anything that has the form of credentials."""
    return {
        key: blotted(value) if isinstance(value, str) else value for key, value in entry.items()
    }


def show_hidden(_logger: Any, _method: str, entry: Any) -> Any:
    """A log entry in which no text steers the terminal it is read on, turns a line or begins a new one.

    Paths are decoded when they come here. What is not to be seen is written as in Python.
    """
    return {
        key: _shown(value, kept="\n" if key == "exception" else "")
        if isinstance(value, str)
        else value
        for key, value in entry.items()
    }


def blotted(text: str) -> str:
    """`text` without anything that has the form of credentials."""
    return _SECRET.sub("[secret]", text)


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id of the request, as its answer and its log lines carry it."""
    return str(scope.get(REQUEST_ID_KEY, ""))


def _shown(text: str, *, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode()
        for char in text
    )


@dataclass(slots=True)
class _Seen:
    """What passes by while one request is answered."""

    status: int = 500
    received: int = 0
    sent: int = 0


class Observed:
    """An application with request ids, an access log, metrics, and limits on how long a sender takes."""

    def __init__(self, app: Application, metrics: Metrics, *, body_timeout_s: float) -> None:
        self._app = app
        self._metrics = metrics
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request through the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope[REQUEST_ID_KEY] = request_id
        seen, started_s = _Seen(), time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            with self._metrics.running.track_inprogress():
                await self._app(
                    scope, self._counting(receive, seen), _tagging(send, seen, request_id)
                )
        finally:
            self._note(scope, seen, time.perf_counter() - started_s)
            structlog.contextvars.clear_contextvars()

    def _counting(self, receive: Receive, seen: _Seen) -> Receive:
        more, waited_s = True, 0.0

        async def counted() -> Message:
            nonlocal more, waited_s
            if not more:
                return await receive()
            # Who sends a byte before each pause ends would else hold a place for ever.
            left_s = self._body_timeout_s + seen.received / PACE_BYTES_PER_S - waited_s
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, min(self._body_timeout_s, left_s))):
                    message = await receive()
            except TimeoutError:
                more = False
                log.warning("the sender paused, or took, too long", received_bytes=seen.received)
                return {"type": "http.disconnect"}
            waited_s += time.monotonic() - began_s
            more = bool(message.get("more_body", False))
            seen.received += len(message.get("body", b""))
            return message

        return counted

    def _note(self, scope: Scope, seen: _Seen, duration_s: float) -> None:
        path, method = str(scope["path"]), str(scope["method"])
        self._metrics.record(
            route=route_class(path),
            method=method,
            status=seen.status,
            duration_s=duration_s,
            received=seen.received,
            sent=seen.sent,
        )
        # Probes come every few seconds and say nothing; the metrics count them.
        write = log.debug if path in PROBES else log.info
        write(
            "request",
            method=method,
            path=path[:512],
            status=seen.status,
            duration_ms=round(duration_s * 1000, 2),
            received_bytes=seen.received,
            sent_bytes=seen.sent,
        )


def _tagging(send: Send, seen: _Seen, request_id: str) -> Send:
    async def tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            headers.append((b"x-request-id", request_id.encode()))
            message["headers"] = headers
            seen.status = message["status"]
            seen.sent = _length(headers)
        await send(message)

    return tagged


def _length(headers: list[Any]) -> int:
    # The header, not the pieces: a file that the server sends by itself passes no pieces here.
    for name, value in headers:
        if bytes(name).lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex
