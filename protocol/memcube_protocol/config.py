"""The config of a cube: its signed self-description (docs/spec/config.md).

    {"createdAt":"2026-11-20T09:30:00Z","governance":{"licence":"CC-BY-4.0"},
     "memories":[{"id":"plaintext","kind":"plaintext","layers":["sha256:…"],"records":12}],
     "mipVersion":"1.0","name":"alice/notes","version":"1.0.0"}

Written as canonical JSON (RFC 8785) of at most 1 MiB; fields at their default are left out, so one
config has one form. Each value reads itself from `Fields` and checks itself by the same rules when
it is made in code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, Final, Self

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError, MemcubeError
from memcube_protocol.fields import Described, Fields, write_moment
from memcube_protocol.governance import Descriptive, Governance
from memcube_protocol.reference import Reference, is_name, tag_of_version
from memcube_protocol.values import frozen

MIP_VERSION: Final = "1.0"
PLAINTEXT: Final = "plaintext"
ACTIVATION: Final = "activation"
PARAMETRIC: Final = "parametric"
KINDS: Final = (PLAINTEXT, ACTIVATION, PARAMETRIC)
CUBE_MEMORY: Final = "cube"
"""The memory id on layers that belong to the cube as a whole: its card, its attachments."""
RELATIONS: Final = (
    "derived-from",
    "forked-from",
    "merged-from",
    "subset-of",
    "translated-from",
    "distilled-from",
)
MEMORIES: Final = 1024
MEMORY_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""The form of a memory's id, of at most 64 characters."""


@frozen
class Parent(Described):
    """A cube that this one was made from: its origin `host/namespace/name`, digest and relation."""

    origin: str
    digest: Digest
    relation: str = "derived-from"

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "origin": _origin(fields),
            "digest": Digest.parse(fields.text("digest")),
            "relation": fields.choice("relation", RELATIONS, "derived-from"),
        }
        fields.finish()
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this parent."""
        return {"origin": self.origin, "digest": str(self.digest), "relation": self.relation}


@frozen
class Lineage(Described):
    """Where a cube comes from: its parents, and the manifest digest that it replaces."""

    parents: tuple[Parent, ...] = ()
    supersedes: Digest | None = None

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        supersedes = fields.optional_text("supersedes")
        values: dict[str, Any] = {
            "parents": tuple(map(Parent.from_fields, fields.tables("parents", count=256))),
            "supersedes": Digest.parse(supersedes) if supersedes else None,
        }
        fields.finish()
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this lineage; what is absent is left out."""
        value: dict[str, Any] = {}
        if self.parents:
            value["parents"] = [parent.to_json() for parent in self.parents]
        if self.supersedes:
            value["supersedes"] = str(self.supersedes)
        return value


@frozen
class Memory(Described):
    """One memory of a cube: what it is, which layers hold it (in order), which model it fits.

    `records` counts the records of a plaintext memory; `shape` and `compatibility` describe a KV
    cache or an adapter as docs/spec/activation.md and docs/spec/parametric.md define them.
    """

    id: str
    kind: str
    layers: tuple[Digest, ...]
    title: str | None = None
    records: int | None = None
    shape: Mapping[str, Any] = field(default_factory=dict[str, Any])
    compatibility: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def _what(self) -> str:
        return f"memory {self.id[:64]!r}"

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "id": fields.text("id", chars=64, pattern=MEMORY_ID),
            "kind": fields.choice("kind", KINDS, ""),
            "title": fields.optional_text("title"),
            "layers": tuple(map(Digest.parse, _digests(fields))),
            "records": fields.integer("records"),
            "shape": fields.object("shape"),
            "compatibility": fields.object("compatibility"),
        }
        fields.finish()
        if values["id"] == CUBE_MEMORY:
            raise fields.refuse("id", f"is {CUBE_MEMORY!r}, which is kept for the cube itself")
        if (values["kind"] == PLAINTEXT) != (values["records"] is not None):
            raise fields.refuse("records", "belongs to a plaintext memory, and only there")
        if values["kind"] == PLAINTEXT and (values["shape"] or values["compatibility"]):
            raise fields.refuse("shape", "and compatibility belong to memories of one model")
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this memory; what is absent is left out."""
        value: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "layers": [str(layer) for layer in self.layers],
            "title": self.title,
            "records": self.records,
            "shape": dict(self.shape) or None,
            "compatibility": dict(self.compatibility) or None,
        }
        return {key: item for key, item in value.items() if item is not None}


@frozen
class CubeConfig(Described):
    """Everything that a cube says of itself. `name` has no host; `version` is SemVer 2.0."""

    name: str
    version: str
    created_at: datetime
    title: str | None = None
    summary: str | None = None
    descriptive: Descriptive = field(default_factory=Descriptive)
    governance: Governance = field(default_factory=Governance)
    lineage: Lineage = field(default_factory=Lineage)
    memories: tuple[Memory, ...] = ()
    extensions: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def _what(self) -> str:
        return "config"

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Config held by canonical JSON.

        Raises:
            InvalidConfigError: a field is unknown, missing or out of bounds, or the JSON is strict
                but not in its canonical form.
            InvalidJsonError: not strict JSON.
            LimitExceededError: more than 1 MiB.
        """
        limits.require_at_most("config", len(raw), limits.CONFIG_BYTES)
        fields = Fields(canonical_json.parse_object(raw, what="config"), "config")
        try:
            config = cls.from_fields(fields)
            canonical = config.write()
        except InvalidConfigError:
            raise
        except MemcubeError as error:
            raise InvalidConfigError(f"config: {error}", hint=error.hint) from None
        if canonical != raw:
            raise InvalidConfigError(
                "config is not in its canonical form",
                hint="write it as RFC 8785 JSON and leave out fields at their default",
            )
        return config

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        _require_mip_version(fields)
        created_at = fields.moment("createdAt")
        if created_at is None:
            raise fields.refuse("createdAt", "is missing")
        values: dict[str, Any] = {
            "name": _name(fields),
            "version": _version(fields),
            "created_at": created_at,
            "title": fields.optional_text("title"),
            "summary": fields.optional_text("summary", chars=2000),
            "descriptive": Descriptive.from_fields(fields.table("descriptive")),
            "governance": Governance.from_fields(fields.table("governance")),
            "lineage": Lineage.from_fields(fields.table("lineage")),
            "memories": tuple(
                map(Memory.from_fields, fields.tables("memories", count=MEMORIES)),
            ),
            "extensions": fields.object("extensions"),
        }
        fields.finish()
        _require_distinct(values["memories"], fields)
        return values

    def memory(self, memory_id: str) -> Memory | None:
        """The memory of this id, or None."""
        return next((memory for memory in self.memories if memory.id == memory_id), None)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this config; what is absent or at its default is left out."""
        value: dict[str, Any] = {
            "mipVersion": MIP_VERSION,
            "name": self.name,
            "version": self.version,
            "createdAt": write_moment(self.created_at),
            "title": self.title,
            "summary": self.summary,
            "descriptive": self.descriptive.to_json() or None,
            "governance": self.governance.to_json() or None,
            "lineage": self.lineage.to_json() or None,
            "memories": [memory.to_json() for memory in self.memories] or None,
            "extensions": dict(self.extensions) or None,
        }
        return {key: item for key, item in value.items() if item is not None}

    def write(self) -> bytes:
        """The canonical bytes of this config.

        Raises:
            InvalidJsonError: `extensions`, a shape or a compatibility holds what JSON cannot.
            LimitExceededError: more than 1 MiB.
        """
        raw = canonical_json.dump(self.to_json())
        limits.require_at_most("config", len(raw), limits.CONFIG_BYTES)
        return raw


def _require_mip_version(fields: Fields) -> None:
    version = fields.text("mipVersion")
    if version != MIP_VERSION:
        raise InvalidConfigError(
            f"this cube follows MIP {version[:20]}, this memcube reads MIP {MIP_VERSION}",
            hint="update memcube",
        )


def _name(fields: Fields) -> str:
    name = fields.text("name", chars=limits.NAME_CHARS)
    if not is_name(name):
        raise fields.refuse("name", f"is {name[:80]!r}, not a name such as alice/notes")
    return name


def _origin(fields: Fields) -> str:
    origin = fields.text("origin", chars=limits.NAME_CHARS)
    try:
        reference = Reference.parse(origin)
    except MemcubeError:
        reference = None
    if not reference or not reference.host or str(reference) != reference.location:
        raise fields.refuse("origin", f"is {origin[:80]!r}, not host/namespace/name")
    return origin


def _version(fields: Fields) -> str:
    version = fields.text("version", chars=limits.TAG_CHARS)
    try:
        tag_of_version(version)
    except MemcubeError as error:
        raise fields.refuse("version", f"is not usable: {error}") from None
    return version


def _digests(fields: Fields) -> list[str]:
    layers = fields.take("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise fields.refuse("layers", "is not a list of digests")
    return layers


def _require_distinct(memories: tuple[Memory, ...], fields: Fields) -> None:
    for memory_id, count in Counter(memory.id for memory in memories).items():
        if count > 1:
            raise fields.refuse("memories", f"holds {memory_id!r} {count} times")
