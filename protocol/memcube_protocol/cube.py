"""A cube as files: a manifest, its config, and one layer a file (docs/spec/cube.md).

A layer says its path in `org.opencontainers.image.title` and `org.cncf.model.filepath`, and the id
of the memory that it belongs to in `org.memcube.memory` (`cube` for the card and attachments). The
config names the layers of each memory by digest; both must agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final, Self

from memcube_protocol import content, media_types, paths
from memcube_protocol.config import ACTIVATION, CUBE_MEMORY, PARAMETRIC, PLAINTEXT, CubeConfig
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ForbiddenMediaTypeError,
    InvalidManifestError,
    UnsafePathError,
)
from memcube_protocol.fields import write_moment
from memcube_protocol.oci import Descriptor, Manifest, write_manifest
from memcube_protocol.values import frozen

CONTENT_TYPES: Final[Mapping[str, frozenset[str]]] = {
    PLAINTEXT: frozenset({media_types.RECORDS, media_types.VECTORS, media_types.ATTACHMENT}),
    ACTIVATION: frozenset({media_types.KV, media_types.KV_TOKENS, media_types.KV_MANIFEST}),
    PARAMETRIC: frozenset({media_types.LORA, media_types.LORA_CONFIG}),
    CUBE_MEMORY: frozenset({media_types.CARD, media_types.ATTACHMENT}),
}
"""Media types of the layers that a memory of each kind may have, and the cube as a whole."""

ATTACHMENT_TYPES: Final[Mapping[str, str]] = {
    ".csv": "text/csv",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".md": "text/markdown",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".txt": "text/plain",
    ".wav": "audio/wav",
    ".webp": "image/webp",
}
"""What an attachment may be, by the suffix of its name: nothing that a viewer would run."""

_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    media_types.RECORDS: (".jsonl.zst",),
    media_types.VECTORS: (".safetensors",),
    media_types.KV: (".safetensors",),
    media_types.KV_TOKENS: (".u32",),
    media_types.KV_MANIFEST: (".json",),
    media_types.LORA: (".safetensors",),
    media_types.LORA_CONFIG: (".json",),
    media_types.CARD: (".md",),
    media_types.ATTACHMENT: tuple(ATTACHMENT_TYPES),
}
"""How the names of files end. Other programs go by the name: a pickle stays one whatever its type says."""

_STRUCTURE: Final = frozenset({media_types.TITLE, media_types.FILEPATH, media_types.MEMORY})


@frozen
class CubeFile:
    """One file of a cube: its path below the cube's folder, content, and the memory it belongs to.

    `details` are the layer's further annotations, such as the digest of an uncompressed shard.

    Raises:
        UnsafePathError: the path is not safe to create in a folder, or a part of it is hidden.
        ForbiddenMediaTypeError: a media type that is not on the list of MIP 1.0, or that the name
            belies.
    """

    path: str
    media_type: str
    digest: Digest
    size: int
    memory: str = CUBE_MEMORY
    details: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        paths.require_safe(self.path)
        if self.media_type not in media_types.LAYERS:
            raise ForbiddenMediaTypeError(
                f"{self.path[:200]} has the media type {self.media_type[:140]!r}, "
                "which no cube may hold",
                hint="docs/spec/media-types.md lists what a cube may hold",
            )
        self._require_fitting_name()

    def _require_fitting_name(self) -> None:
        """Refuse names that other programs would take for something else than the file's type."""
        if self.path.startswith(".") or "/." in self.path:
            raise UnsafePathError(
                f"path {self.path[:200]!r} is refused: a part of it is hidden",
                hint="rename the file: no component may start with a dot",
            )
        if not self.path.lower().endswith(_SUFFIXES[self.media_type]):
            raise ForbiddenMediaTypeError(
                f"{self.path[:200]} is not how a file of type {self.media_type} may be called",
                hint=f"its name ends with {' or '.join(_SUFFIXES[self.media_type])}",
            )

    @classmethod
    def of(cls, layer: Descriptor) -> Self:
        """File that `layer` holds.

        Raises:
            InvalidManifestError: the layer does not say its path and memory.
            UnsafePathError, ForbiddenMediaTypeError: see the class.
        """
        path = layer.annotations.get(media_types.TITLE)
        memory = layer.annotations.get(media_types.MEMORY)
        if not path or not memory or layer.annotations.get(media_types.FILEPATH) != path:
            raise _invalid(f"layer {layer.digest} does not say its path and memory")
        details = {name: text for name, text in layer.annotations.items() if name not in _STRUCTURE}
        return cls(path, layer.media_type, layer.digest, layer.size, memory, details)

    def descriptor(self) -> Descriptor:
        """The layer that holds this file."""
        annotations = {
            **self.details,
            media_types.TITLE: self.path,
            media_types.FILEPATH: self.path,
            media_types.MEMORY: self.memory,
        }
        return Descriptor(self.media_type, self.digest, self.size, annotations)


@frozen
class Cube:
    """A manifest with the config and the files that it names, all of which agree."""

    manifest: Manifest
    config: CubeConfig
    files: tuple[CubeFile, ...]

    @classmethod
    def write(cls, config: CubeConfig, files: Iterable[CubeFile]) -> Self:
        """The cube of `config` and `files`, in their order: the same parts give the same bytes.

        Raises:
            InvalidManifestError: the config and the files disagree.
            UnsafePathError: two paths collide.
            LimitExceededError: more than 8192 files, or too many bytes of config or manifest.
        """
        raw = config.write()
        manifest = write_manifest(
            artifact_type=media_types.CUBE,
            config=Descriptor.of(media_types.CONFIG, raw),
            layers=(file.descriptor() for file in files),
            annotations=_annotations(config),
        )
        return cls.read(manifest, raw)

    @classmethod
    def read(cls, manifest: Manifest, config_raw: bytes) -> Self:
        """The cube that `manifest` and the content of its config describe.

        Raises:
            InvalidManifestError: not a cube, or config and layers disagree.
            SizeMismatchError, DigestMismatchError: `config_raw` is not the config that the manifest names.
            InvalidConfigError, UnsafePathError, ForbiddenMediaTypeError: a part breaks its rules.
        """
        require_cube(manifest)
        content.verify(config_raw, manifest.config.digest, manifest.config.size)
        config = CubeConfig.parse(config_raw)
        files = tuple(CubeFile.of(layer) for layer in manifest.layers)
        paths.require_distinct(file.path for file in files)
        _require_agreement(config, files)
        return cls(manifest, config, files)

    @property
    def digest(self) -> Digest:
        """Digest of the manifest: the identity of this version of the cube."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of manifest, config and all layers; a blob that stands twice counts once."""
        blobs = {blob.digest: blob.size for blob in self.manifest.blobs}
        return len(self.manifest.raw) + sum(blobs.values())

    def files_of(self, memory_id: str) -> tuple[CubeFile, ...]:
        """Files of one memory, in order; `cube` for the card and attachments."""
        return tuple(file for file in self.files if file.memory == memory_id)


def require_cube(manifest: Manifest) -> None:
    """Refuse a manifest that is not a cube's.

    Raises:
        InvalidManifestError: saying what it is instead.
    """
    if manifest.effective_artifact_type != media_types.CUBE:
        kind = manifest.effective_artifact_type or manifest.media_type
        raise _invalid(f"it is {kind[:140]}, not a cube")
    if manifest.config is None or manifest.config.media_type != media_types.CONFIG:
        raise _invalid("it names no config of a cube")
    if manifest.subject is not None:
        raise _invalid("a cube has no subject")


def _annotations(config: CubeConfig) -> dict[str, str]:
    """What registries that know nothing of cubes show to people; nothing reads it back."""
    return {
        media_types.CREATED: write_moment(config.created_at),
        "org.opencontainers.image.version": config.version,
        "org.opencontainers.image.licenses": config.governance.licence,
    }


def _require_agreement(config: CubeConfig, files: Iterable[CubeFile]) -> None:
    """Each memory's layers are those that the config names, in order and of its kind."""
    layers: dict[str, list[Digest]] = defaultdict(list)
    kinds = {memory.id: memory.kind for memory in config.memories} | {CUBE_MEMORY: CUBE_MEMORY}
    for file in files:
        if file.memory not in kinds:
            raise _invalid(f"{file.path!r} belongs to {file.memory[:80]!r}, which is no memory")
        if file.media_type not in CONTENT_TYPES[kinds[file.memory]]:
            raise _invalid(
                f"{file.path!r} of type {file.media_type} has no place in the "
                f"{kinds[file.memory]} memory {file.memory!r}"
            )
        layers[file.memory].append(file.digest)
    for memory in config.memories:
        if tuple(layers[memory.id]) != memory.layers:
            raise _invalid(f"the config names other layers of {memory.id!r} than the manifest")


def _invalid(why: str) -> InvalidManifestError:
    return InvalidManifestError(f"not an acceptable cube: {why}", hint="see docs/spec/cube.md")
