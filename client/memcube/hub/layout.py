"""Where the parts of a cube lie in a repository of the Hub (docs/spec/hub-repository.md).

README.md                      the card, with metadata for the Hub before it
plaintext/…  parametric/…      the cube's files at their paths, byte for byte
.memcube/manifest.json         the manifest of the cube in this commit, its exact bytes
.memcube/config.json           its config
.memcube/index.json            every release of the repository, and everything attached to one
.memcube/blobs/<alg>/<hex>     whatever has no path of its own, by its digest
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from memcube_protocol import media_types, oci
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor, Index, Manifest
from memcube_protocol.values import frozen

FOLDER: Final = ".memcube"
CARD_TAG: Final = "memcube"
"""What the card of every cube is tagged with, by which the Hub finds them."""
MANIFEST: Final = f"{FOLDER}/manifest.json"
CONFIG: Final = f"{FOLDER}/config.json"
INDEX: Final = f"{FOLDER}/index.json"
CARD: Final = "README.md"
SUBJECT: Final = "org.memcube.subject"
"""Annotation of an entry of the index: the digest of the cube that it is attached to."""
VERSION_TAG: Final = "org.opencontainers.image.ref.name"
"""Annotation of an entry of the index: the tag of the version that a cube is."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def is_commit(text: str) -> bool:
    """Whether `text` is the full name of a commit."""
    return _COMMIT.fullmatch(text) is not None


def blob_path(digest: Digest) -> str:
    """Where a blob lies that has no path of its own."""
    return f"{FOLDER}/blobs/{digest.algorithm}/{digest.hex}"


def file_path(layer: Descriptor) -> str:
    """Where the content of a cube's layer lies.

    The card's place is taken: there stands what the Hub shows, with metadata before it.

    Raises:
        InvalidManifestError, UnsafePathError, ForbiddenMediaTypeError: the layer is none of a cube.
    """
    path = CubeFile.of(layer).path
    return blob_path(layer.digest) if path.casefold() == CARD.casefold() else path


def places_of(manifest: Manifest) -> dict[Digest, str]:
    """Where each blob of `manifest` lies: of a cube by its path, of anything else by its digest.

    Raises:
        InvalidManifestError, UnsafePathError, ForbiddenMediaTypeError: see `file_path`.
    """
    if not is_cube(manifest):
        return {blob.digest: blob_path(blob.digest) for blob in manifest.blobs}
    places = {layer.digest: file_path(layer) for layer in manifest.layers}
    return {**places, manifest.config.digest: CONFIG}


def is_cube(manifest: Manifest) -> bool:
    """Whether `manifest` is a cube's, and no build's or statement's."""
    return manifest.effective_artifact_type == media_types.CUBE and manifest.subject is None


@frozen
class Catalogue:
    """The entries of `.memcube/index.json`: releases by version tag, attached manifests by subject."""

    entries: tuple[Descriptor, ...] = ()

    @classmethod
    def of(cls, index: Index) -> Catalogue:
        """The catalogue that `index` holds."""
        return cls(index.manifests)

    def attached_to(self, subject: Digest) -> list[Descriptor]:
        """What is attached to `subject`, as the referrers API would list it."""
        return [
            replace(entry, annotations=_without(entry, SUBJECT))
            for entry in self.entries
            if entry.annotations.get(SUBJECT) == str(subject)
        ]

    def tag_of(self, cube: Digest) -> str | None:
        """The version tag under which the manifest `cube` was released; None: it was not."""
        for entry in self.entries:
            if entry.digest == cube and SUBJECT not in entry.annotations:
                return entry.annotations.get(VERSION_TAG)
        return None

    def with_release(self, manifest: Manifest, tag: str) -> Catalogue:
        """This catalogue with a released cube."""
        return self._with(_entry(manifest, {VERSION_TAG: tag}))

    def with_attached(self, manifests: Iterable[Manifest]) -> Catalogue:
        """This catalogue with further attached manifests; what it has already stays as it is."""
        made = self
        for manifest in manifests:
            assert manifest.subject
            made = made._with(_entry(manifest, {SUBJECT: str(manifest.subject.digest)}))
        return made

    def write(self) -> bytes:
        """The bytes of the index.

        Raises:
            LimitExceededError: more than an index may hold.
        """
        return oci.write_index(self.entries).raw

    def _with(self, entry: Descriptor) -> Catalogue:
        if any(held.digest == entry.digest for held in self.entries):
            return self
        return Catalogue((*self.entries, entry))


def _entry(manifest: Manifest, more: dict[str, str]) -> Descriptor:
    """What the referrers API says of `manifest` (distribution specification), and `more`."""
    own = manifest.descriptor()
    annotations = {**manifest.annotations, **more}
    kind = manifest.effective_artifact_type
    return Descriptor(own.media_type, own.digest, own.size, annotations, kind)


def _without(entry: Descriptor, name: str) -> dict[str, str]:
    return {key: text for key, text in entry.annotations.items() if key != name}
