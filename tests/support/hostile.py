"""A registry that lies: our real server behind a line that answers what an attacker wants.

The honest server publishes and stores; whoever holds the line changes, withholds or replays answers.
Clients know only the address of the line.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from memcube_protocol import oci
from memcube_protocol.digest import Digest

from support.repository import IMAGE, INDEX
from support.scripted import Answer, Received, Scripted, scripted
from support.servers import MemcubeServer, memcube_server

Lie = Callable[[Received, Answer], Answer]
_HOP = frozenset({"connection", "transfer-encoding", "date", "server", "keep-alive"})


@dataclass
class Hostile:
    """The line to a real registry, and the lies that are told on it."""

    front: Scripted
    server: MemcubeServer
    lies: list[Lie] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The registry's name, as clients know it."""
        return self.front.host

    def lie(self, path: str, change: Callable[[Answer], Answer]) -> None:
        """Change every answer to a GET or HEAD of exactly `path`, queries aside."""

        def told(request: Received, honest: Answer) -> Answer:
            asked = request.method in ("GET", "HEAD") and request.path.partition("?")[0] == path
            return change(honest) if asked else honest

        self.lies.append(told)

    def serve(self, path: str, content: bytes, media_type: str, **headers: str) -> None:
        """Answer `path` with `content`."""
        given = {
            "Content-Type": media_type,
            **{name.replace("_", "-"): v for name, v in headers.items()},
        }
        self.lie(path, lambda _: Answer(200, given, content))

    def serve_manifest(self, name: str, target: str, raw: bytes, media_type: str = IMAGE) -> None:
        """Answer with the manifest `raw` wherever `target`, a tag or a digest, is asked for."""
        digest = str(Digest.of(raw))
        self.serve(f"/v2/{name}/manifests/{target}", raw, media_type, Docker_Content_Digest=digest)

    def plant(self, name: str, raw: bytes, *blobs: bytes) -> Digest:
        """Hold the manifest `raw` and `blobs` in the repository, as if somebody had pushed them."""
        digest = Digest.of(raw)
        self.serve_manifest(name, str(digest), raw)
        for blob in blobs:
            self.serve(f"/v2/{name}/blobs/{Digest.of(blob)}", blob, "application/octet-stream")
        return digest

    def show_referrers(self, name: str, subject: Digest, *manifests: oci.Manifest) -> None:
        """Say that exactly `manifests` refer to `subject`."""
        index = oci.write_index(
            replace(
                one.descriptor(),
                artifact_type=one.effective_artifact_type,
                annotations=one.annotations,
            )
            for one in manifests
        )
        self.serve(f"/v2/{name}/referrers/{subject}", index.raw, INDEX)

    def attach(self, name: str, subject: Digest, *attached: tuple[oci.Manifest, bytes]) -> None:
        """Show exactly these attestations, referrer and bundle each, with `subject`."""
        for referrer, bundle in attached:
            self.plant(name, referrer.raw, bundle)
        self.show_referrers(name, subject, *(referrer for referrer, _ in attached))

    def honest(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """What the real server answers to anybody who asks for `path`."""
        return self._forward(Received("GET", path, dict(headers or {}), b""))

    def answer(self, request: Received) -> Answer:
        """What a client is told."""
        told = self._forward(request)
        for lie in self.lies:
            told = lie(request, told)
        return told

    def _forward(self, request: Received) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k not in _HOP}
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            kept = {k: v for k, v in response.headers.items() if k.lower() not in _HOP}
            return Answer(response.status, kept, response.read())
        finally:
            connection.close()


@contextmanager
def hostile_registry(folder: Path, settings: Mapping[str, str]) -> Iterator[Hostile]:
    """A registry of ours that is reached only through a line that may lie."""
    made: list[Hostile] = []
    with scripted(lambda request: made[0].answer(request)) as front:
        external = {"MEMCUBE_REGISTRY_EXTERNAL_URL": front.url}
        with memcube_server(folder, {**settings, **external}) as server:
            # Whoever asks the server for its address is led to the line.
            made.append(Hostile(front, replace(server, url=front.url)))
            yield made[0]
