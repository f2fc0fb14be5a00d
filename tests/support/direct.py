"""The direct uploads of a registry's core, and a client that puts what it was told to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import urllib3
from memcube_protocol.digest import Digest
from memcube_registry.blobs.direct import Announcement, DirectUploads, Found, OpenDirect
from memcube_registry.blobs.proving import Proven, Prover, Underway
from memcube_registry.observability.metrics import Metrics
from memcube_registry.storage.s3 import S3Store

from support.registry_core import Core

NAME = "ann/notes"


def put(url: str, headers: dict[str, str], content: bytes) -> int:
    """Status of the store's answer to a `PUT`; 0 where it hung up."""
    try:
        return urllib3.request("PUT", url, body=content, headers=headers, retries=False).status
    except urllib3.exceptions.HTTPError:
        return 0


@dataclass
class DirectCore:
    """Acts of one person whose registry lets clients write to its store."""

    core: Core
    prover: Prover

    @classmethod
    def of(cls, core: Core, *, whole_bytes: int = 64 << 20) -> DirectCore:
        assert isinstance(core.store, S3Store)
        uploads = DirectUploads(core.database, core.store, core.store.direct, whole_bytes)
        return cls(core, Prover(uploads, Metrics()))

    @property
    def uploads(self) -> DirectUploads:
        return self.prover.uploads

    @property
    def store(self) -> S3Store:
        assert isinstance(self.core.store, S3Store)
        return self.core.store

    def announce(
        self, content: bytes, name: str = NAME, algorithm: str = "sha256"
    ) -> Found | OpenDirect:
        wanted = Announcement(name, Digest.of(content, algorithm), len(content))
        return self.uploads.announce(self.core.principal, wanted, self.core.now)

    def begin(self, content: bytes, algorithm: str = "sha256") -> OpenDirect:
        """The upload of content that is not there yet."""
        found = self.announce(content, algorithm=algorithm)
        assert isinstance(found, OpenDirect)
        return found

    def put(
        self, direct: OpenDirect, content: bytes, numbers: Iterable[int] | None = None
    ) -> list[int]:
        """Statuses of the store's answers to parts of `content`, by default to all of them."""
        return [
            self.put_part(direct, content, number)
            for number in numbers or range(1, direct.part_count + 1)
        ]

    def put_part(self, direct: OpenDirect, content: bytes, number: int) -> int:
        start = (number - 1) * direct.part_bytes
        part = content[start : start + direct.part_bytes]
        sha256 = hashlib.sha256(part).hexdigest()
        ((_, signed),) = self.uploads.sign(direct, {number: sha256}, self.core.now)
        return put(signed.url, dict(signed.headers), part)

    def complete(self, direct: OpenDirect) -> Proven | Underway:
        return asyncio.run(self.prover.complete(self.core.principal, direct.upload.id))

    def content(self, content: bytes) -> bytes | None:
        """What the repository holds under the digest of `content`."""
        from memcube_registry.blobs import service

        with self.core.database.read() as session:
            found = service.find(
                session.connection(), self.core.principal, NAME, Digest.of(content)
            )
        return b"".join(self.store.read(found.location))

    def reserved_bytes(self) -> int:
        """What uploads have announced."""
        from memcube_registry.blobs.models import Upload
        from sqlmodel import select

        with self.core.database.read() as session:
            return sum(row.size_bytes for row in session.exec(select(Upload)))
