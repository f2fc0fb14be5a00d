"""What the page of a cube shows: everything that the registry holds of one version and can check.

Bounded, whoever pushed what: at most `ATTACHMENTS` statements of together `BUNDLES_BYTES`, `TAGS` tags,
and the beginning of the card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.config import CubeConfig
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_protocol.reference import Reference
from memcube_signing.authority import carrier
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.document import authority_of
from memcube_signing.keys import PublicKey
from sqlmodel import Session, col, select

from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import service as blobs
from memcube_registry.catalog import statements
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.catalog.statements import Attached, Statements
from memcube_registry.delivery.service import Act, Part, authorize
from memcube_registry.log.places import Place, places
from memcube_registry.manifests import referrers
from memcube_registry.manifests import service as manifests
from memcube_registry.manifests.models import Manifest, Tag
from memcube_registry.services import Services

ATTACHMENTS: Final = 64
BUNDLES_BYTES: Final = 8 * limits.MIB
TAGS: Final = 100
CARD_BYTES: Final = 64 * 1024
_LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class Shown:
    """One version of a cube: what it holds, who states what about it, where else to look.

    `reference` names it as it was asked for, with the registry's host. `cube` is None for an artifact
    that is no cube. `registry_key` is the registry's own, with which it countersigns. `places` are those in the log, by the SHA-256 of what was signed; `authority` is
    what the namespace says about its keys, where it says anything.
    """

    reference: Reference
    digest: Digest
    artifact_type: str | None
    is_private: bool
    pushed_at: datetime
    tags: tuple[tuple[str, str], ...]
    registry_key: PublicKey
    statements: Statements = field(default_factory=Statements)
    cube: Cube | None = None
    card: str | None = None
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    authority: Authority | None = None
    builds: tuple[str, ...] = ()

    @property
    def config(self) -> CubeConfig | None:
        """What the cube says of itself."""
        return self.cube.config if self.cube else None


def show(services: Services, principal: Principal, wanted: Reference) -> Shown:
    """The version of a cube that `wanted` names, as `principal` may see it.

    Raises:
        NotFoundError, UnauthenticatedError, ForbiddenError: see `authorize`; or there is no such version.
    """
    with services.database.read() as session:
        row = authorize(session, principal, wanted.name, Act.READ, part=Part.DESCRIPTION)
        return _Shower(services, session, principal, row).shown(wanted)


class _Shower:
    """One look at a repository, in one transaction."""

    def __init__(
        self, services: Services, session: Session, principal: Principal, row: Repository
    ) -> None:
        self._services = services
        self._session = session
        self._principal = principal
        self._row = row

    def shown(self, wanted: Reference) -> Shown:
        tags = self._tags()
        if not wanted.digest and not wanted.tag and tags and _LATEST not in dict(tags):
            wanted = Reference("", wanted.name, tags[0][0])
        found = manifests.get(
            self._session.connection(), self._principal, wanted.name, wanted.digest or wanted.target
        )
        digest = Digest.parse(found.digest)
        artifact_type, pushed_at = self._pushed(found.digest)
        shown = Shown(
            Reference(self._services.settings.service, wanted.name, wanted.tag, wanted.digest),
            digest,
            artifact_type,
            self._row.visibility is Visibility.PRIVATE,
            pushed_at,
            tags,
            self._services.countersigner.key,
        )
        parsed = oci.parse(found.content, found.media_type)
        return self._of_cube(shown, parsed) if isinstance(parsed, oci.Manifest) else shown

    def _of_cube(self, shown: Shown, manifest: oci.Manifest) -> Shown:
        said = statements.read(manifest, tuple(self._attached(manifest.digest)))
        cube = self._cube(manifest)
        return replace(
            shown,
            statements=said,
            places=places(
                self._session, self._row.name, {one.signed_sha256 for one in said.said if one.key}
            ),
            cube=cube,
            card=self._card(cube) if cube else None,
            authority=self._authority(said),
            builds=tuple(self._builds(manifest.digest)),
        )

    def _tags(self) -> tuple[tuple[str, str], ...]:
        """Tags and what they lead to, the newest first."""
        query = (
            select(Tag.name, Manifest.digest)
            .join(Manifest, col(Manifest.id) == Tag.manifest_id)
            .where(Tag.repository_id == self._row.id)
            .order_by(col(Tag.updated_at).desc(), col(Tag.name).desc())
            .limit(TAGS)
        )
        return tuple((name, digest) for name, digest in self._session.exec(query))

    def _pushed(self, digest: str) -> tuple[str | None, datetime]:
        """The type of the artifact, and since when it is there."""
        query = select(Manifest.artifact_type, Manifest.created_at).where(
            Manifest.repository_id == self._row.id, Manifest.digest == digest
        )
        return self._session.exec(query).one()

    def _attached(self, subject: Digest) -> Iterator[Attached]:
        taken = 0
        for one in self._referrers(subject, media_types.SIGSTORE_BUNDLE):
            if taken + one.size_bytes > BUNDLES_BYTES:
                continue
            try:
                manifest = oci.parse_manifest(one.content(self._session))
                size = manifest.layers[0].size if manifest.layers else 0
                both = one.size_bytes + size
                if taken + both > BUNDLES_BYTES or size > limits.BUNDLE_BYTES:
                    continue
                yield Attached(manifest, self._content(manifest.layers[0], size))
                taken += both
            except (MemcubeError, LookupError):
                continue  # what nobody can read states nothing

    def _builds(self, subject: Digest) -> Iterator[str]:
        return (one.digest for one in self._referrers(subject, media_types.BUILD))

    def _referrers(self, subject: Digest, artifact_type: str) -> list[referrers.Attachment]:
        return referrers.attachments(
            self._session, self._row.id, subject, artifact_type, ATTACHMENTS
        )

    def _cube(self, manifest: oci.Manifest) -> Cube | None:
        if manifest.effective_artifact_type != media_types.CUBE or manifest.config is None:
            return None
        try:
            return Cube.read(manifest, self._content(manifest.config, limits.CONFIG_BYTES))
        except MemcubeError:
            return None

    def _card(self, cube: Cube) -> str | None:
        for file in cube.files:
            if file.media_type == media_types.CARD:
                return self._text(file)
        return None

    def _text(self, file: CubeFile) -> str | None:
        try:
            raw = self._content(file.descriptor(), CARD_BYTES)
        except MemcubeError:
            return None
        more = "\n…" if file.size > CARD_BYTES else ""
        return raw.decode("utf-8", "replace") + more

    def _content(self, descriptor: oci.Descriptor, stop: int) -> bytes:
        """The first `stop` bytes of a blob that the caller may read."""
        found = blobs.find(
            self._session.connection(), self._principal, self._row.name, descriptor.digest
        )
        stop = min(stop, found.size_bytes)
        return b"".join(self._services.blobs.read(found.location, stop=stop))

    def _authority(self, said: Statements) -> Authority | None:
        """What the namespace publishes about its keys, if the releases have their origin here."""
        here = {f"{self._services.settings.service}/{self._row.name}"}
        if {one.value.origin for one in said.releases} != here:
            return None
        name = authority_of(here.pop())
        repository = carrier.repository_of(name)
        try:
            found = manifests.get(
                self._session.connection(), self._principal, repository, carrier.TAG
            )
            layers = carrier.read(oci.parse(found.content, found.media_type))
            bundles = [self._bundle(repository, layer) for layer in layers[:ATTACHMENTS]]
            return resolve(name, bundles)
        except MemcubeError:
            return None

    def _bundle(self, repository: str, layer: oci.Descriptor) -> bytes:
        found = blobs.find(self._session.connection(), self._principal, repository, layer.digest)
        if found.size_bytes > limits.BUNDLE_BYTES:
            raise NotFoundError("no key document", hint="see docs/spec/keys.md")
        return b"".join(self._services.blobs.read(found.location))
