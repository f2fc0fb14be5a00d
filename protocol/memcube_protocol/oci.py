"""OCI descriptors, manifests and indexes that keep their exact bytes.

Follows the OCI image specification 1.1 (`manifest.md`, `image-index.md`, `descriptor.md`). Fields
that it does not name are kept in the bytes and ignored here. Docker's schema 2 is read as its twin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Final, Self

from memcube_protocol import canonical_json, limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidManifestError
from memcube_protocol.values import frozen

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES: Final = frozenset({media_types.OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({media_types.OCI_INDEX, DOCKER_INDEX})
_MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
)


@frozen
class Descriptor:
    """What a manifest says of one blob or manifest: type, digest, size in bytes, annotations."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        if not _MEDIA_TYPE.fullmatch(self.media_type):
            raise _invalid(f"{self.media_type[:140]!r} is not a media type")
        if self.size < 0:
            raise _invalid(f"descriptor of {self.digest} has the negative size {self.size}")

    @classmethod
    def of(
        cls, media_type: str, content: bytes, annotations: Mapping[str, str] | None = None
    ) -> Self:
        """Descriptor of `content`."""
        return cls(media_type, Digest.of(content), len(content), annotations or {})

    @classmethod
    def from_json(cls, value: object, what: str = "descriptor") -> Self:
        """Descriptor held by parsed JSON; `what` names it in errors.

        Raises:
            InvalidManifestError: a field is missing or of the wrong type.
            InvalidDigestError: the digest is malformed.
        """
        fields = _object(value, what)
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool):
            raise _invalid(f"{what} has no integer size")
        return cls(
            _string(fields, "mediaType", what),
            Digest.parse(_string(fields, "digest", what)),
            size,
            _annotations(fields, what),
            _optional_string(fields, "artifactType", what),
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this descriptor; empty fields are left out."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


EMPTY: Final = Descriptor.of(media_types.OCI_EMPTY, b"{}")
"""The descriptor of the empty JSON object, `{}` (image specification, "Guidance for an Empty Descriptor")."""


@frozen
class Manifest:
    """An image manifest: a config, layers, and perhaps the subject that it refers to.

    `raw` holds the bytes as they came; a digest is always taken over them.
    """

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything in the blob store that this manifest needs: config and layers."""
        return (self.config, *self.layers)

    @property
    def effective_artifact_type(self) -> str | None:
        """`artifactType`, else the config's media type (distribution specification, "Listing Referrers")."""
        return self.artifact_type or self.config.media_type

    @property
    def digest(self) -> Digest:
        """SHA-256 digest of the exact bytes."""
        return Digest.of(self.raw)

    def descriptor(self) -> Descriptor:
        """Descriptor of this manifest, as a tag or a subject names it."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


@frozen
class Index:
    """An image index: a list of manifests, and perhaps a subject. `raw` holds the bytes as they came."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def effective_artifact_type(self) -> str | None:
        """`artifactType`: an index has no config to fall back on."""
        return self.artifact_type

    @property
    def digest(self) -> Digest:
        """SHA-256 digest of the exact bytes."""
        return Digest.of(self.raw)

    def descriptor(self) -> Descriptor:
        """Descriptor of this index."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


def parse(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """The manifest or index that `raw` holds; `media_type` is the one it was delivered under.

    Raises:
        LimitExceededError: more than 4 MiB, or more than 8192 layers or entries.
        InvalidJsonError: not strict JSON.
        InvalidManifestError: neither a manifest nor an index, or the two media types disagree.
        InvalidDigestError: a descriptor holds a malformed digest.
    """
    limits.require_at_most("manifest", len(raw), limits.MANIFEST_BYTES)
    fields = canonical_json.parse_object(raw, what="manifest")
    if fields.get("schemaVersion") != 2:
        raise _invalid("its schemaVersion is not 2")
    own_type = _optional_string(fields, "mediaType", "manifest")
    if own_type and media_type and own_type != media_type:
        raise _invalid(f"it says {own_type[:140]!r} and was delivered as {media_type[:140]!r}")
    kind = own_type or media_type or _guess(fields)
    if kind in INDEX_TYPES:
        return _index(raw, kind, fields)
    if kind in MANIFEST_TYPES:
        return _manifest(raw, kind, fields)
    raise _invalid(f"media type {kind[:140]!r} is neither an OCI manifest nor an index")


def parse_manifest(raw: bytes, media_type: str | None = None) -> Manifest:
    """`parse`, where only an image manifest will do.

    Raises:
        InvalidManifestError: an index; and all that `parse` raises.
    """
    manifest = parse(raw, media_type)
    if not isinstance(manifest, Manifest):
        raise _invalid("it is an index, an image manifest is wanted")
    return manifest


def write_manifest(
    *,
    artifact_type: str,
    config: Descriptor,
    layers: Iterable[Descriptor],
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A new manifest in canonical JSON (RFC 8785): the same parts give the same bytes.

    Raises:
        LimitExceededError: more than 8192 layers or 4 MiB.
    """
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if subject:
        value["subject"] = subject.to_json()
    if annotations:
        value["annotations"] = dict(annotations)
    return parse_manifest(canonical_json.dump(value))


def write_index(
    manifests: Iterable[Descriptor], annotations: Mapping[str, str] | None = None
) -> Index:
    """A new index in canonical JSON."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [manifest.to_json() for manifest in manifests],
    }
    if annotations:
        value["annotations"] = dict(annotations)
    index = parse(canonical_json.dump(value))
    assert isinstance(index, Index)
    return index


def _guess(fields: Mapping[str, Any]) -> str:
    """Type of a manifest that names none; one that could be both is refused (CVE-2021-41190)."""
    if "manifests" in fields:
        return media_types.OCI_INDEX
    return media_types.OCI_MANIFEST


def _manifest(raw: bytes, kind: str, fields: Mapping[str, Any]) -> Manifest:
    if "manifests" in fields:
        raise _invalid("an image manifest must not hold a list of manifests (CVE-2021-41190)")
    return Manifest(
        raw,
        kind,
        Descriptor.from_json(fields.get("config"), "config"),
        _descriptors(fields, "layers"),
        _subject(fields),
        _artifact_type(fields, "manifest"),
        _annotations(fields, "manifest"),
    )


def _index(raw: bytes, kind: str, fields: Mapping[str, Any]) -> Index:
    if "layers" in fields or "config" in fields:
        raise _invalid("an index must not hold layers or a config (CVE-2021-41190)")
    return Index(
        raw,
        kind,
        _descriptors(fields, "manifests"),
        _subject(fields),
        _artifact_type(fields, "index"),
        _annotations(fields, "index"),
    )


def _descriptors(fields: Mapping[str, Any], key: str) -> tuple[Descriptor, ...]:
    if key not in fields:
        raise _invalid(f"it has no {key}")
    values = fields[key]
    if values is None:  # how Go writes an empty list
        values = []
    if not isinstance(values, list):
        raise _invalid(f"{key} is not a list")
    limits.require_at_most("manifest", len(values), limits.MANIFEST_LAYERS, unit=key)
    return tuple(
        Descriptor.from_json(value, f"{key}[{position}]") for position, value in enumerate(values)
    )


def _subject(fields: Mapping[str, Any]) -> Descriptor | None:
    value = fields.get("subject")
    return Descriptor.from_json(value, "subject") if value is not None else None


def _artifact_type(fields: Mapping[str, Any], what: str) -> str | None:
    """The type of the artifact, a media type (image specification, "artifactType")."""
    found = _optional_string(fields, "artifactType", what)
    if found is not None and not _MEDIA_TYPE.fullmatch(found):
        raise _invalid(f"the artifactType {found[:140]!r} of {what} is not a media type")
    return found


def _annotations(fields: Mapping[str, Any], what: str) -> dict[str, str]:
    value = fields.get("annotations")
    if value is None:
        return {}
    annotations = _object(value, f"annotations of {what}")
    if not all(isinstance(text, str) for text in annotations.values()):
        raise _invalid(f"an annotation of {what} is not a string")
    return annotations


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{what} is not an object")
    return value


def _string(fields: Mapping[str, Any], key: str, what: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise _invalid(f"{what} has no string {key}")
    return value


def _optional_string(fields: Mapping[str, Any], key: str, what: str) -> str | None:
    return _string(fields, key, what) if fields.get(key) not in (None, "") else None


def _invalid(why: str) -> InvalidManifestError:
    return InvalidManifestError(
        f"not an acceptable manifest: {why}",
        hint="see the OCI image specification 1.1 and docs/spec/cube.md",
    )
