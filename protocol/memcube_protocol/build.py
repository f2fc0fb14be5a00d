"""A build: one more memory made from those of a cube (docs/spec/build.md).

An image manifest with `artifactType` `application/vnd.memcube.build.v1+json` whose subject is the
cube, so that adding one leaves the cube's digest as it is. Its config describes the one memory as
the cube's config describes its own, and how it was made and judged; its layers are that memory's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Final, Self

from memcube_protocol import canonical_json, content, limits, media_types, paths
from memcube_protocol.config import MIP_VERSION, PLAINTEXT, Memory
from memcube_protocol.cube import CONTENT_TYPES, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError, InvalidManifestError
from memcube_protocol.fields import Fields
from memcube_protocol.oci import Descriptor, Manifest, write_manifest
from memcube_protocol.recipe import Evaluation, Recipe
from memcube_protocol.values import frozen

_ENVIRONMENT: Final = 32


@frozen
class Made:
    """How a build was made, what it was measured to do, and with which programs, by name."""

    recipe: Recipe
    evaluation: Evaluation | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """What `fields` tell of a build."""
        has_evaluation = fields.has("evaluation")
        evaluation = fields.table("evaluation")
        environment = fields.table("environment")
        made = cls(
            Recipe.from_fields(fields.table("recipe")),
            Evaluation.from_fields(evaluation) if has_evaluation else None,
            environment.lines(count=_ENVIRONMENT),
        )
        fields.finish()
        return made

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this; what is absent is left out."""
        value: dict[str, Any] = {
            "recipe": self.recipe.to_json(),
            "evaluation": self.evaluation.to_json() if self.evaluation else None,
            "environment": dict(self.environment) or None,
        }
        return {key: item for key, item in value.items() if item is not None}


@frozen
class Build:
    """A manifest with the memory and the files that it names, all of which agree.

    `made` says how; absent where whoever made it does not tell.
    """

    manifest: Manifest
    memory: Memory
    files: tuple[CubeFile, ...]
    made: Made | None = None

    @classmethod
    def write(
        cls,
        subject: Descriptor,
        memory: Memory,
        files: Iterable[CubeFile],
        made: Made | None = None,
    ) -> Self:
        """The build of `memory` for the cube `subject`: the same parts give the same bytes.

        Raises:
            InvalidManifestError: memory, files and recipe disagree, or it is a plaintext memory
                without a recipe.
            UnsafePathError: two paths collide.
            LimitExceededError: more than 8192 files, or too many bytes of config or manifest.
        """
        raw = _config(memory, made)
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
            SizeMismatchError, DigestMismatchError: `config_raw` is not the config that the manifest names.
            InvalidJsonError, InvalidConfigError, InvalidDigestError, LimitExceededError,
            UnsafePathError, ForbiddenMediaTypeError: a part breaks its rules.
        """
        config = require_build(manifest)
        content.verify(config_raw, config.digest, config.size)
        memory, made = read_config(config_raw)
        files = tuple(CubeFile.of(layer) for layer in manifest.layers)
        paths.require_distinct(file.path for file in files)
        _require_agreement(memory, files)
        assert manifest.subject
        _require_recipe(memory, made, manifest.subject.digest)
        return cls(manifest, memory, files, made)

    @property
    def subject(self) -> Descriptor:
        """The cube that this build was made from."""
        assert self.manifest.subject
        return self.manifest.subject

    @property
    def digest(self) -> Digest:
        """Digest of the manifest."""
        return self.manifest.digest

    @property
    def config(self) -> bytes:
        """The content of the config that the manifest names."""
        return _config(self.memory, self.made)


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


def read_config(raw: bytes) -> tuple[Memory, Made | None]:
    """The memory that the config of a build describes, and how it was made.

    Raises:
        InvalidConfigError, InvalidJsonError, LimitExceededError, InvalidDigestError: it breaks a rule.
    """
    limits.require_at_most("config of a build", len(raw), limits.CONFIG_BYTES)
    fields = Fields(canonical_json.parse_object(raw, what="config of a build"), "config of a build")
    version: Any = fields.take("mipVersion")
    if version != MIP_VERSION:
        raise fields.refuse("mipVersion", f"is {version!r}, this memcube reads {MIP_VERSION}")
    memory = Memory.from_fields(fields.table("memory"))
    made = Made.from_fields(fields.table("made")) if fields.has("made") else None
    fields.finish()
    if _config(memory, made) != raw:
        raise InvalidConfigError(
            "the config of the build is not in its canonical form", hint="build it anew"
        )
    return memory, made


def _config(memory: Memory, made: Made | None) -> bytes:
    value: dict[str, Any] = {"mipVersion": MIP_VERSION, "memory": memory.to_json()}
    if made:
        value["made"] = made.to_json()
    return canonical_json.dump(value)


def _require_recipe(memory: Memory, made: Made | None, subject: Digest) -> None:
    if made is None:
        if memory.kind == PLAINTEXT:
            raise _invalid("a plaintext memory fits every model, and no recipe says what it is of")
        return
    recipe = made.recipe
    if (recipe.kind, recipe.memory) != (memory.kind, memory.id):
        raise _invalid(f"its recipe makes the {recipe.kind} memory {recipe.memory!r}")
    if recipe.parent != subject:
        raise _invalid(f"its recipe is for the cube {recipe.parent}")


def _require_agreement(memory: Memory, files: Iterable[CubeFile]) -> None:
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
