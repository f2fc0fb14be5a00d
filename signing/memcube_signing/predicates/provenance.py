"""Build provenance (SLSA provenance v1): from which cube, on which base model, by which recipe.

For KV caches and adapters: the parent cube, the base model and every further input are resolved
dependencies with digests, the recipe is the external parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, Final

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

from memcube_signing.predicates.kind import Kind
from memcube_signing.predicates.reading import Reader, digest_set
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPES: Final[Mapping[str, str]] = {
    "activation": "https://memcube.org/build/activation/v1",
    "parametric": "https://memcube.org/build/parametric/v1",
    "plaintext": "https://memcube.org/build/plaintext/v1",
}
"""How a memory of each kind is made; the page of the build type says what its recipe holds."""


@frozen
class Dependency:
    """Something that a build was made from: its URI (`oci://…`, `base:…`), digest, and what it is."""

    uri: str
    digest: Digest | None = None
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The ResourceDescriptor of in-toto."""
        value: dict[str, Any] = {"uri": self.uri}
        if self.digest:
            value["digest"] = digest_set(self.digest)
        if self.name:
            value["name"] = self.name
        return value


@frozen
class Provenance:
    """How the build `subject`, called `name`, was made.

    `recipe` holds what a person chose (SLSA: external parameters), `internal` what the builder did on
    its own; `builder` is the URI of the program with its version.
    """

    subject: Digest
    name: str
    build_type: str
    recipe: Mapping[str, Any]
    dependencies: tuple[Dependency, ...]
    builder: str
    builder_version: Mapping[str, str] = field(default_factory=dict[str, str])
    started_at: datetime | None = None
    finished_at: datetime | None = None
    internal: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_statement(self) -> Statement:
        """The in-toto statement of this provenance."""
        builder: dict[str, Any] = {"id": self.builder}
        if self.builder_version:
            builder["version"] = dict(self.builder_version)
        times = {"startedOn": self.started_at, "finishedOn": self.finished_at}
        definition: dict[str, Any] = {
            "buildType": self.build_type,
            "externalParameters": dict(self.recipe),
            "resolvedDependencies": [item.to_json() for item in self.dependencies],
        }
        if self.internal:
            definition["internalParameters"] = dict(self.internal)
        metadata = {
            name: timestamps.write_seconds(moment) for name, moment in times.items() if moment
        }
        details = {"builder": builder, **({"metadata": metadata} if metadata else {})}
        predicate = {"buildDefinition": definition, "runDetails": details}
        return Statement(self.name, self.subject, PREDICATE_TYPE, predicate)


def read(said: Statement) -> Provenance:
    """The provenance in a statement of its predicate type; unknown fields are ignored.

    Raises:
        InvalidStatementError: a field that SLSA requires is missing or broken.
    """
    fields = Reader(said.predicate, "provenance")
    definition, details = fields.table("buildDefinition"), fields.table("runDetails")
    builder, metadata = details.table("builder"), details.table("metadata")
    versions = builder.table("version")
    return Provenance(
        subject=said.subject,
        name=said.name,
        build_type=definition.text("buildType"),
        recipe=definition.mapping("externalParameters"),
        dependencies=tuple(map(_dependency, definition.tables("resolvedDependencies"))),
        builder=builder.text("id"),
        builder_version={name: versions.text(name) for name in builder.mapping("version")},
        started_at=metadata.optional_moment("startedOn"),
        finished_at=metadata.optional_moment("finishedOn"),
        internal=definition.mapping("internalParameters"),
    )


def _dependency(fields: Reader) -> Dependency:
    return Dependency(
        fields.text("uri"),
        fields.digest_set() if fields.mapping("digest") else None,
        fields.optional_text("name"),
    )


KIND: Final = Kind(PREDICATE_TYPE, read)
