"""Gathering what a release at this registry is judged by: its bundle, the others, key documents, history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidManifestError, MemcubeError, NotFoundError
from memcube_signing.authority import carrier
from memcube_signing.authority.document import authority_of
from sqlmodel import Session, col, select

from memcube_registry.blobs.models import Blob, BlobLink
from memcube_registry.catalog.models import Repository
from memcube_registry.countersigning.judging import Attached, Evidence
from memcube_registry.database import Database
from memcube_registry.log.models import LoggedRelease
from memcube_registry.manifests import referrers
from memcube_registry.manifests.models import Manifest, Tag
from memcube_registry.storage import BlobStore

BUNDLES: Final = 64
"""As many bundles on one manifest are looked at, as clients do."""
BUNDLES_BYTES: Final = 8 * limits.MIB
"""And no more bytes: they are in memory together, for each release that is judged."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Manifests with the places of the bundles that they name, in the blob store."""

    manifest: oci.Manifest
    locations: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of the manifest and the bundles that it names."""
        return len(self.manifest.raw) + sum(layer.size for layer in self.manifest.layers)


def gather(
    database: Database, store: BlobStore, host: str, repository_id: int, referrer: str
) -> Evidence:
    """The evidence about the release that the manifest `referrer` attaches.

    Raises:
        NotFoundError: it, or the manifest that it is about, is gone.
        InvalidManifestError: it attaches no bundle, or its key documents are none.
        StorageError, UnavailableError: it cannot be read now.
    """
    with database.read() as session:
        repository = session.get_one(Repository, repository_id)
        own = _manifest(session, repository_id, referrer)
        if own.subject is None:
            raise InvalidManifestError("it has no subject", hint="push a referrer")
        subject = own.subject.digest
        _manifest(session, repository_id, str(subject))
        release = _located(session, repository_id, own)
        others = _others(session, repository_id, subject, referrer)
        documents = _key_documents(session, repository.name.partition("/")[0])
        name = f"{host}/{repository.name}"
        first = _first_history(session, authority_of(name))
    return Evidence(
        name=name,
        subject=subject,
        release=_read(store, release),
        others=tuple(_read(store, one) for one in others),
        key_documents=tuple(_content(store, one) for one in documents),
        first_history=first,
    )


def _manifest(session: Session, repository_id: int, digest: str) -> oci.Manifest:
    content = session.exec(
        select(Manifest.content).where(
            Manifest.repository_id == repository_id, Manifest.digest == digest
        )
    ).one_or_none()
    if content is None:
        raise NotFoundError(f"the manifest {digest} is gone", hint="push it again")
    return oci.parse_manifest(content)


def _located(session: Session, repository_id: int, manifest: oci.Manifest) -> _Found:
    """Where the one bundle of `manifest` lies."""
    layers = manifest.layers
    if len(layers) != 1 or layers[0].media_type != media_types.SIGSTORE_BUNDLE:
        raise InvalidManifestError("it does not attach exactly one bundle", hint="push it anew")
    return _Found(manifest, _locations(session, repository_id, layers))


def _locations(
    session: Session, repository_id: int, layers: Sequence[oci.Descriptor]
) -> tuple[str, ...]:
    return tuple(_location(session, repository_id, layer.digest) for layer in layers)


def _location(session: Session, repository_id: int, digest: Digest) -> str:
    row = session.exec(
        select(Blob.location, Blob.size_bytes)
        .join(BlobLink, col(BlobLink.blob_id) == Blob.id)
        .where(
            BlobLink.repository_id == repository_id,
            Blob.digest == str(digest),
            col(Blob.lost_at).is_(None),
        )
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"the blob {digest} is gone", hint="push it again")
    limits.require_at_most("bundle", row[1], limits.BUNDLE_BYTES)
    return row[0]


def _others(session: Session, repository_id: int, subject: Digest, referrer: str) -> list[_Found]:
    """Further bundles on the same manifest; one that cannot be read does not count."""
    bundles = referrers.attachments(
        session, repository_id, subject, media_types.SIGSTORE_BUNDLE, BUNDLES + 1
    )
    found: list[_Found] = []
    taken_bytes = 0
    for each in [one for one in bundles if one.digest != referrer][:BUNDLES]:
        if taken_bytes + each.size_bytes > BUNDLES_BYTES:
            continue
        try:
            one = _located(session, repository_id, oci.parse_manifest(each.content(session)))
        except MemcubeError:
            continue
        if taken_bytes + one.size_bytes <= BUNDLES_BYTES:
            found.append(one)
            taken_bytes += one.size_bytes
    return found


def _key_documents(session: Session, namespace: str) -> tuple[str, ...]:
    """Where the bundles of the namespace's key documents lie; nothing where it has none."""
    row = session.exec(
        select(Repository.id, Manifest.content)
        .join(Tag, col(Tag.repository_id) == Repository.id)
        .join(Manifest, col(Manifest.id) == Tag.manifest_id)
        .where(Repository.name == f"{namespace}/{carrier.NAME}", Tag.name == carrier.TAG)
    ).one_or_none()
    if row is None or row[0] is None:
        return ()
    return _locations(session, row[0], carrier.read(oci.parse_manifest(row[1])))


def _first_history(session: Session, namespace: str) -> str | None:
    """Who published the first release of the namespace (`host/namespace`) in the log."""
    query = (
        select(LoggedRelease.publishers)
        .where(col(LoggedRelease.origin).startswith(f"{namespace}/", autoescape=True))
        .order_by(col(LoggedRelease.number))
        .limit(1)
    )
    return session.exec(query).one_or_none()


def _read(store: BlobStore, found: _Found) -> Attached:
    return Attached(found.manifest, _content(store, found.locations[0]))


def _content(store: BlobStore, location: str) -> bytes:
    return b"".join(store.read(location))
