"""A build: a KV cache or an adapter made from a cube for one more model (docs/spec/build.md, MIP 1.0 section 2).

An image manifest with `artifactType` `application/vnd.memcube.build.v1+json` whose subject is the
cube, so that adding one leaves the cube's digest as it is. Its config describes the one memory as
the cube's config describes its own; its layers are that memory's files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from memcube_protocol import canonical_json, limits, media_types, paths
from memcube_protocol.config import ACTIVATION, MIP_VERSION, PARAMETRIC, Memory
from memcube_protocol.cube import CONTENT_TYPES, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DigestMismatchError, InvalidJsonError, InvalidManifestError
from memcube_protocol.fields import Fields
from memcube_protocol.oci import Descriptor, Manifest, write_manifest


@dataclass(frozen=True, slots=True)
class Build:
    """A manifest with the memory and the files that it names, all of which agree."""

    manifest: Manifest
    memory: Memory
    files: tuple[CubeFile, ...]

    @classmethod
    def write(cls, subject: Descriptor, memory: Memory, files: Iterable[CubeFile]) -> Self:
        """The build of `memory` for the cube `subject`: the same parts give the same bytes.

        Raises:
            InvalidManifestError: memory and files disagree, or it is a plaintext memory.
            UnsafePathError: two paths collide.
            LimitExceededError: more than 8192 files, or too many bytes of config or manifest.
        """
        raw = _config(memory)
        manifest = write_manifest(
            artifact_type=media_types.BUILD,
            config=Descriptor.of(media_types.BUILD_CONFIG, raw),
            layers=(file.descriptor() for file in files),
            subject=Descriptor(subject.media_type, subject.digest, subject.size),
        )
        return cls.read(manifest, raw)

    @classmethod
    def read(cls, manifest: Manifest, config_raw: bytes) -> Self:
        """The build that `manifest` and the content of its config describe.

        Raises:
            InvalidManifestError: not a build, or config and layers disagree.
            DigestMismatchError: `config_raw` is not the config that the manifest names.
            InvalidJsonError, InvalidConfigError, InvalidDigestError, LimitExceededError,
            UnsafePathError, ForbiddenMediaTypeError: a part breaks its rules.
        """
        config = require_build(manifest)
        if Digest.of(config_raw, config.digest.algorithm) != config.digest:
            raise DigestMismatchError(
                f"the config is not the content of {config.digest}",
                hint="delete the blob and fetch it again",
            )
        memory = _memory(config_raw)
        files = tuple(CubeFile.of(layer) for layer in manifest.layers)
        paths.require_distinct(file.path for file in files)
        _require_agreement(memory, files)
        return cls(manifest, memory, files)

    @property
    def subject(self) -> Descriptor:
        """The cube that this build was made from."""
        assert self.manifest.subject
        return self.manifest.subject

    @property
    def digest(self) -> Digest:
        """Digest of the manifest."""
        return self.manifest.digest


def require_build(manifest: Manifest) -> Descriptor:
    """The config of `manifest`, if it is a build's.

    Raises:
        InvalidManifestError: saying what it is instead.
    """
    if manifest.effective_artifact_type != media_types.BUILD:
        kind = manifest.effective_artifact_type or manifest.media_type
        raise _invalid(f"it is {kind[:140]}")
    if manifest.config is None or manifest.config.media_type != media_types.BUILD_CONFIG:
        raise _invalid("it names no config of a build")
    if manifest.subject is None:
        raise _invalid("it does not say which cube it was made from")
    return manifest.config


def _memory(raw: bytes) -> Memory:
    limits.require_at_most("config of a build", len(raw), limits.CONFIG_BYTES)
    fields = Fields(canonical_json.parse(raw, what="config of a build"), "config of a build")
    version: Any = fields.take("mipVersion")
    if version != MIP_VERSION:
        raise fields.refuse("mipVersion", f"is {version!r}, this memcube reads {MIP_VERSION}")
    memory = Memory.from_fields(fields.table("memory"))
    fields.finish()
    if _config(memory) != raw:
        raise InvalidJsonError(
            "the config of the build is not in its canonical form", hint="build it anew"
        )
    return memory


def _config(memory: Memory) -> bytes:
    return canonical_json.dump({"mipVersion": MIP_VERSION, "memory": memory.to_json()})


def _require_agreement(memory: Memory, files: Iterable[CubeFile]) -> None:
    if memory.kind not in (ACTIVATION, PARAMETRIC):
        raise _invalid(f"a {memory.kind} memory needs no build: it fits every model")
    layers = []
    for file in files:
        if file.memory != memory.id:
            raise _invalid(f"{file.path!r} belongs to {file.memory[:80]!r}, not {memory.id!r}")
        if file.media_type not in CONTENT_TYPES[memory.kind]:
            raise _invalid(f"{file.path!r} has no place in a memory of kind {memory.kind}")
        layers.append(file.digest)
    if tuple(layers) != memory.layers:
        raise _invalid(f"the config names other layers of {memory.id!r} than the manifest")


def _invalid(why: str) -> InvalidManifestError:
    return InvalidManifestError(f"not an acceptable build: {why}", hint="see docs/spec/build.md")
