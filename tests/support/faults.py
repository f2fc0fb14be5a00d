"""A loopback proxy to an S3 server that does harm: errors, resets, stalls, short bodies, stale answers.

It keeps every request that passed, so that a test can also say what was sent to the server and what
was not. Faults come as a test orders them (`order`), or by chance from a seed (`shower`).

    with faulty_proxy(server.ports["proxy"]) as proxy:
        proxy.order(Fault.RESET, when=lambda request: request.method == "PUT")
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BLOCK_BYTES = 1 << 18
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade"})
_LONGEST_STALL_S = 600.0


class Fault(Enum):
    """What goes wrong with one request."""

    ERROR = "a 500 instead of serving it"
    SLOW_DOWN = "a 503 that asks to come back later"
    RESET = "the connection ends before the request is served"
    LOST_ANSWER = "it is served, and the connection ends before the answer"
    STALL = "nothing more happens, until the client gives up"
    TRUNCATED = "the answer's body ends halfway"
    STALE = "an object that is there is said to be absent"


_ERRORS = {
    Fault.ERROR: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.STALE: (404, "NoSuchKey"),
}
_STALE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Seen:
    """A request that came to the proxy, and what was done to it."""

    method: str
    path: str
    headers: Mapping[str, str]
    fault: Fault | None = None


When = Callable[[Seen], bool]


@dataclass
class FaultyProxy:
    """What the proxy does from now on, and what it has seen. Safe to change while requests run."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    is_down: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    _orders: list[tuple[Fault, When]] = field(default_factory=list)
    _chance: random.Random | None = None
    _rate: float = 0.0
    _kinds: Sequence[Fault] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def order(self, fault: Fault, *, times: int = 1, when: When = lambda seen: True) -> None:
        """The next `times` requests for which `when` holds meet `fault`."""
        with self._lock:
            self._orders += [(fault, when)] * times

    def shower(self, seed: int, rate: float, kinds: Sequence[Fault] = tuple(Fault)) -> None:
        """Each request meets one of `kinds` with probability `rate`; 0 ends it."""
        with self._lock:
            self._chance, self._rate, self._kinds = random.Random(seed), rate, kinds

    def clear(self) -> None:
        """No more harm."""
        self.shower(0, 0.0)
        with self._lock:
            self._orders.clear()
        self.is_down = False

    def pick(self, seen: Seen) -> Fault | None:
        """What becomes of the request `seen`, which is noted."""
        with self._lock:
            fault = Fault.RESET if self.is_down else self._ordered(seen) or self._by_chance(seen)
            self.seen.append(Seen(seen.method, seen.path, seen.headers, fault))
            return fault

    def faults(self) -> list[Fault]:
        """The faults so far."""
        with self._lock:
            return [seen.fault for seen in self.seen if seen.fault]

    def _ordered(self, seen: Seen) -> Fault | None:
        for at, (fault, when) in enumerate(self._orders):
            if when(seen):
                del self._orders[at]
                return fault
        return None

    def _by_chance(self, seen: Seen) -> Fault | None:
        if self._chance is None or self._chance.random() >= self._rate:
            return None
        fault = self._chance.choice(self._kinds)
        is_wrong = fault is Fault.STALE and seen.method not in _STALE_METHODS
        return None if is_wrong else fault


@contextmanager
def faulty_proxy(target_port: int) -> Iterator[FaultyProxy]:
    """A proxy to `target_port` on loopback that does no harm until it is told to."""
    proxy = FaultyProxy()

    class Handler(_Handler):
        faults = proxy
        target = target_port

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: FaultyProxy
    target: int

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.faults.pick(Seen(self.command, self.path, headers))
        if fault in _ERRORS:
            self._refuse(*_ERRORS[fault])
        elif fault is Fault.STALL:
            self.faults.released.wait(_LONGEST_STALL_S)
            self.close_connection = True
        elif fault is Fault.RESET:
            self._reset()
        else:
            self._forward(body, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, *args: object) -> None:
        pass

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        server = http.client.HTTPConnection("127.0.0.1", self.target, timeout=120)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP | {"expect"}:
                    server.putheader(name, value)
            server.endheaders(body or None)
            answer = server.getresponse()
            if fault is Fault.LOST_ANSWER:
                answer.read()
                self._reset()
                return
            self._answer(answer, halve=fault is Fault.TRUNCATED)
        except (http.client.HTTPException, ConnectionError):
            self._reset()  # the server is not there: neither are we
        finally:
            server.close()

    def _answer(self, answer: http.client.HTTPResponse, *, halve: bool) -> None:
        self.send_response_only(answer.status, answer.reason)
        names = {name.lower() for name, _ in answer.getheaders()}
        whole = None if "content-length" in names or self.command == "HEAD" else answer.read()
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if whole is not None and answer.status != 204:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        left = len(whole) if whole is not None else int(answer.getheader("Content-Length") or 0)
        if halve and left:
            left //= 2
            self.close_connection = True
        source = [whole] if whole is not None else iter(lambda: answer.read(_BLOCK_BYTES), b"")
        for block in source:
            self.wfile.write(block[:left])
            left -= min(left, len(block))
            if halve and not left:
                return

    def _refuse(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def _reset(self) -> None:
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with suppress(OSError):
            self.connection.close()
