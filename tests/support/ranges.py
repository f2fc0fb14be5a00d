"""A server that sends blobs and parts of them, and tells what it sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube_protocol import media_types
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest

from support.scripted import Answer, Received, Scripted

KINDS = {
    "manifest.json": media_types.KV_MANIFEST,
    "tokens.u32": media_types.KV_TOKENS,
    "kv.safetensors": media_types.KV,
}
Change = Callable[[Answer, int], Answer]
"""Turns the right answer to a request for a part, which begins at an offset, into another one."""


@dataclass
class Ranges:
    """The blobs that it has, by digest; `change` alters answers to requests for parts."""

    blobs: dict[str, bytes]
    change: Change | None = None
    sent: list[tuple[str, int]] = field(default_factory=list)
    """Digest and number of bytes of every answer."""

    def __call__(self, request: Received) -> Answer:
        digest = request.path.rpartition("/")[2]
        content = self.blobs.get(digest)
        if content is None:
            return Answer(404)
        if "range" not in request.headers:
            self.sent.append((digest, len(content)))
            return Answer(200, {}, content)
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), int(last) + 1 if last else len(content)
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        answer = Answer(206, headers, content[start:stop])
        if self.change is not None:
            answer = self.change(answer, start)
        self.sent.append((digest, len(answer.body)))
        return answer


def memory_files(folder: Path, memory: str = "m") -> tuple[dict[str, CubeFile], dict[str, bytes]]:
    """The files of the KV memory in `folder` by media type, and their content by digest."""
    files, blobs = {}, {}
    for name, kind in KINDS.items():
        content = (folder / name).read_bytes()
        digest = Digest.of(content)
        files[kind] = CubeFile(f"activation/{memory}/{name}", kind, digest, len(content), memory)
        blobs[str(digest)] = content
    return files, blobs


def registry_of(server: Scripted) -> Registry:
    """A client of `server` that tries three times and does not wait."""
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    retry = RetryPolicy(attempts=3, sleep=lambda seconds: None)
    http = HttpClient(settings, find_credentials=lambda host: None, retry=retry)
    return Registry(server.host, http, settings)
