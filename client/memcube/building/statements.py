"""What a publisher states about a build, and whether a statement is one that counts."""

from __future__ import annotations

from typing import Final

from memcube_protocol.build import Build
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import provenance as provenances
from memcube_signing.predicates.provenance import BUILD_TYPES, Dependency, Provenance

from memcube.consuming.verifying import Verified
from memcube.trust import Attestation
from memcube.trust.attested import values_of

BUILDER_URI: Final = "https://memcube.org/builder/v1"


def provenance_of(verified: Verified, build: Build) -> Provenance:
    """How `build` was made, in the words of build provenance; its recipe is bound by its digest."""
    assert build.made
    recipe, release = build.made.recipe, verified.verdict.release
    assert release
    parameters = {
        "memory": recipe.memory,
        "method": recipe.method,
        "recipe": str(recipe.digest),
        "seed": recipe.seed,
        "source": recipe.source,
    }
    dependencies = [Dependency(f"oci://{release.origin}", recipe.parent, "parent cube")]
    if recipe.base:
        dependencies.append(Dependency(f"base:{recipe.base}", name="base model"))
    versions = dict(build.made.environment)
    return Provenance(
        subject=build.digest,
        name=release.origin,
        build_type=BUILD_TYPES[recipe.kind],
        recipe=parameters,
        dependencies=tuple(dependencies),
        builder=BUILDER_URI,
        builder_version=versions,
        internal={"threads": recipe.threads},
    )


def is_stated(
    verified: Verified, build: Build, attestation: Attestation, keys: tuple[PublicKey, ...]
) -> bool:
    """Whether `attestation` is a statement by one of `keys` that `build` was made of the cube `verified`."""
    release, cube = verified.verdict.release, verified.cube.digest
    found = values_of(provenances.KIND, (attestation,), build.digest, keys)
    return release is not None and any(
        one.value.name == release.origin
        and any(item.digest == cube for item in one.value.dependencies)
        for one in found
    )


def speakers(verified: Verified) -> tuple[PublicKey, ...]:
    """The keys whose statements about builds of `verified` count: those in charge of its name."""
    verdict = verified.verdict
    return (verdict.publisher, *verdict.partners) if verdict.publisher else ()
