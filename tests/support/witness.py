"""A small witness (C2SP tlog-witness): cosigns what grows, refuses what shrinks or forks."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from memcube_protocol.errors import MemcubeError
from memcube_signing.keys import PrivateKey
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle
from memcube_signing.transparency.checkpoint import Checkpoint, NoteKey


class Witness:
    """What one witness has seen of one log."""

    def __init__(self, name: str, signer: PrivateKey, log: NoteKey) -> None:
        self.key = NoteKey(name, signer.public_key, cosigns=True)
        self.signer, self.log = signer, log
        self.seen = Checkpoint(log.name, 0, merkle.EMPTY_ROOT)
        self.lock = threading.Lock()

    def add(self, body: str) -> tuple[int, str]:
        """Status and answer to `add-checkpoint`."""
        head, _, note = body.partition("\n\n")
        first, *lines = head.split("\n")
        try:
            signed = checkpoints.parse(note)
            new = checkpoints.verify(signed, self.log)
        except MemcubeError:
            return 403, "not a checkpoint of the log"
        old = int(first.removeprefix("old "))
        with self.lock:
            if old > new.size:
                return 400, "backwards"
            if old != self.seen.size:
                return 409, f"{self.seen.size}\n"
            proof = [base64.b64decode(line) for line in lines]
            try:
                merkle.verify_consistency(old, self.seen.root, new.size, new.root, proof)
            except MemcubeError:
                return 422, "a fork"
            self.seen = new
        return 200, str(checkpoints.cosign(new, self.key.name, self.signer, datetime.now(UTC)))


@contextmanager
def serving(witness: Witness, port: int = 0) -> Iterator[str]:
    """The witness on a loopback port, by default a free one; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status, answer = witness.add(body)
            self.send_response(status)
            kind = "text/x.tlog.size" if status == 409 else "text/plain"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer.encode())))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing: tests read no log."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
