"""A registry's core without HTTP: database, store and one account, for unit tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.accounts.service import create_account
from memcube_registry.blobs import removing, uploading
from memcube_registry.blobs import service as blobs
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.database import Database
from memcube_registry.jobs.worker import Worker
from memcube_registry.manifests import service as manifests
from memcube_registry.manifests import tags
from memcube_registry.manifests.collecting import Collected, collect_garbage
from memcube_registry.storage import BlobStore, MemoryStore
from sqlmodel import select

START = datetime(2030, 1, 1, tzinfo=UTC)
GRACE = timedelta(hours=24)


@dataclass
class Core:
    """Acts of one person on a registry whose clock stands still until it is moved."""

    database: Database
    store: BlobStore = field(default_factory=MemoryStore)
    now: datetime = START
    principal: Principal = field(default_factory=Principal)

    def person(self, name: str, *, quota_bytes: int | None = None) -> Principal:
        with self.database.write() as session:
            account = create_account(session, name, quota_bytes=quota_bytes)
            return Principal(account.id, account.name, parse_scopes("pull push delete"))

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def push_blob(self, name: str, content: bytes, who: Principal | None = None) -> Digest:
        who = who or self.principal
        upload = self.database.run(lambda s: uploading.begin(s, who, name, self.now))
        sink = self.store.open(upload.id, size=0)
        sink.write([content])
        sink.close()
        digest = Digest.of(content)
        location = self.store.finish(upload.id, size=len(content))
        blob = uploading.NewBlob(digest, len(content), location)
        uploading.complete(self.database, self.store, who, upload, blob, self.now)
        self.store.abort(upload.id)
        return digest

    def push_manifest(
        self,
        name: str,
        layers: list[bytes],
        *tag_names: str,
        subject: Digest | None = None,
        who: Principal | None = None,
    ) -> Digest:
        """A manifest over `layers`, which must have been pushed."""
        self.push_blob(name, b"{}", who)
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": media_types.CUBE,
            "config": oci.EMPTY.to_json(),
            "layers": [
                {"mediaType": "text/plain", "digest": str(Digest.of(x)), "size": len(x)}
                for x in layers
            ],
        }
        if subject:
            value["subject"] = {
                "mediaType": media_types.OCI_MANIFEST,
                "digest": str(subject),
                "size": 1,
            }
        return self.put(name, value, tag_names, who)

    def push_index(self, name: str, children: list[Digest], *tag_names: str) -> Digest:
        entries = [
            {"mediaType": media_types.OCI_MANIFEST, "digest": str(child), "size": 1}
            for child in children
        ]
        value = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
        return self.put(name, value, tag_names, None)

    def put(
        self, name: str, value: object, tag_names: tuple[str, ...], who: Principal | None
    ) -> Digest:
        raw = json.dumps(value).encode()
        push = manifests.read_push(raw, None, None, tag_names)
        self.database.run(lambda s: manifests.put(s, who or self.principal, name, push, self.now))
        return push.digest

    def untag(self, name: str, tag: str) -> None:
        self.database.run(lambda s: tags.delete(s, self.principal, name, tag, self.now))

    def has_manifest(self, name: str, digest: Digest) -> bool:
        with self.database.read() as session:
            repository = session.exec(select(Repository).where(Repository.name == name)).one()
            return manifests._row(session, repository.id or 0, str(digest)) is not None

    def has_blob(self, name: str, digest: Digest, who: Principal | None = None) -> bool:
        try:
            with self.database.read() as session:
                found = blobs.find(session.connection(), who or self.principal, name, digest)
        except NotFoundError:
            return False
        return b"".join(self.store.read(found.location)) is not None

    def look(self, name: str, digest: Digest) -> None:
        blobs.look(self.database, self.principal, name, digest, self.now)

    def collect(self, grace: timedelta = GRACE) -> Collected:
        """One run, and the jobs that it leaves."""
        done = collect_garbage(self.database, self.store, self.now, grace)
        handlers = {removing.KIND: removing.remover(self.database, self.store)}
        Worker(self.database, handlers, clock=lambda _session: self.now).work_off()
        return done

    def collect_all(self) -> None:
        """Runs, days apart, until everything that nothing needs is gone."""
        for _ in range(6):
            self.wait(days=2)
            self.collect()

    def used_bytes(self, name: str) -> int:
        with self.database.read() as session:
            return session.exec(select(Account).where(Account.name == name)).one().used_bytes

    def publish(self, name: str) -> None:
        with self.database.write() as session:
            row = session.exec(select(Repository).where(Repository.name == name)).one()
            row.visibility = Visibility.PUBLIC
            session.add(row)
