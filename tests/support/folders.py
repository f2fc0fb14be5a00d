"""Artifacts with files, as `oras push` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memcube_protocol import media_types
from memcube_protocol.digest import Digest

from support.repository import IMAGE, OCTETS, Repository
from support.samples import to_json

if TYPE_CHECKING:
    from conftest import Person


@dataclass(frozen=True)
class Folder:
    """An artifact with files, and the digest of its manifest."""

    repository: Repository
    digest: Digest

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def commit(self) -> str:
        return self.digest.hex[:40]


def push_files(repository: Repository, files: Mapping[str, bytes], *tags: str) -> Folder:
    """`files` as the layers of an artifact, as `oras push` makes it."""
    digests = {content: str(repository.add_blob(content)) for content in {*files.values()}}
    layers = [
        {
            "mediaType": OCTETS,
            "digest": digests[content],
            "size": len(content),
            "annotations": {media_types.TITLE: path},
        }
        for path, content in files.items()
    ]
    empty = {
        "mediaType": media_types.OCI_EMPTY,
        "digest": str(repository.add_blob(b"{}")),
        "size": 2,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.example+files",
        "config": empty,
        "layers": layers,
    }
    raw = to_json(manifest)
    digest = Digest.of(raw)
    assert repository.put_manifest(digest, raw, tags=tags).status == 201
    return Folder(repository, digest)


def publish(person: Person, name: str) -> None:
    body, headers = b'{"visibility": "public"}', {"Content-Type": "application/json"}
    reply = person.wire.put(f"/api/v1/cubes/{name}", body=body, headers=headers)
    assert reply.status == 200, reply
