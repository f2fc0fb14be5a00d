"""How the KV caches and adapters of a cube were made, from what their dumps recorded in them.

One statement for each kind of memory (SLSA provenance v1, docs/spec/attestations.md): the base model,
source texts, adapters and inputs as dependencies, the parameters as the recipe. What was not dumped by
memcube, or does not say so, is left out: nobody states what they do not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from memcube_protocol import canonical_json, media_types
from memcube_protocol.activation import KvManifest
from memcube_protocol.config import ACTIVATION, PARAMETRIC, Lineage, Memory
from memcube_protocol.content import BlobReader, read_verified
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.fields import is_printable_line
from memcube_protocol.values import frozen
from memcube_signing.predicates.provenance import BUILD_TYPES, Dependency, Provenance

from memcube.memories.making import BUILDER, INPUTS, KEY

BUILDER_URI: Final = "https://memcube.org/dumper/v1"
MEMORIES: Final = 256
_NAME_CHARS: Final = 200
_TRAINING_BYTES: Final = 2048


@frozen
class _Made:
    """How one memory was made: its recipe, what it was made from, with which programs."""

    recipe: Mapping[str, Any]
    dependencies: tuple[Dependency, ...]
    versions: Mapping[str, str]


def builds_of(cube: Cube, blobs: BlobReader, *, name: str) -> tuple[Provenance, ...]:
    """The provenance of the memories in `cube`, called `name`, whose layers `blobs` holds.

    Raises:
        NotFoundError, IntegrityError: a manifest of a KV cache is not there, or damaged.
    """
    kinds = {
        ACTIVATION: dict(_caches(cube, blobs)),
        PARAMETRIC: dict(_adapters(cube)),
    }
    return tuple(_stated(cube, name, kind, made) for kind, made in kinds.items() if made)


def _stated(cube: Cube, name: str, kind: str, made: Mapping[str, _Made]) -> Provenance:
    told = dict(sorted(made.items())[:MEMORIES])
    recipe: dict[str, Any] = {"memories": {one: dict(told[one].recipe) for one in told}}
    if len(made) > len(told):
        recipe["omitted"] = len(made) - len(told)
    dependencies = [*_parents(cube.config.lineage)]
    dependencies += [found for one in told.values() for found in one.dependencies]
    first = next(iter(told.values()))
    return Provenance(
        subject=cube.digest,
        name=name,
        build_type=BUILD_TYPES[kind],
        recipe=recipe,
        dependencies=tuple(dict.fromkeys(dependencies)),
        builder=BUILDER_URI,
        builder_version=first.versions,
        internal={"versions": {one: dict(told[one].versions) for one in told}},
    )


def _parents(lineage: Lineage) -> Iterator[Dependency]:
    for parent in lineage.parents:
        yield Dependency(f"oci://{parent.origin}", parent.digest, "parent cube")


def _caches(cube: Cube, blobs: BlobReader) -> Iterator[tuple[str, _Made]]:
    for file in cube.files:
        if file.media_type == media_types.KV_MANIFEST:
            manifest = KvManifest.parse(read_verified(blobs, file.digest, file.size))
            versions = _versions(manifest.information.get(BUILDER))
            if versions:
                libraries = _versions(manifest.information.get("libraries"))
                yield file.memory, _cache(file.memory, manifest, {**libraries, **versions})


def _cache(memory_id: str, manifest: KvManifest, versions: Mapping[str, str]) -> _Made:
    key, source = manifest.key, manifest.source
    recipe = {
        "tokens": {"count": key.token_count, "digest": str(key.tokens)},
        "specialTokens": key.special_tokens,
        "computeDtype": key.compute_dtype,
        "textKept": source.text is not None,
        "device": str(manifest.information.get("device"))[:_NAME_CHARS],
        "attention": str(manifest.information.get("attention"))[:_NAME_CHARS],
    }
    for told in ("from", "chatTemplate"):
        if told in manifest.information:
            recipe[told] = str(manifest.information[told])[:_NAME_CHARS]
    dependencies = [Dependency(f"base:{key.base}", name="base model")]
    digest = Digest.of(source.text.encode()) if source.text is not None else source.digest
    if digest:
        dependencies.append(Dependency(f"text:{memory_id}", digest, "source text"))
    dependencies += [
        Dependency(f"adapter:{one.identity}", name=f"active adapter, scale {one.scale}")
        for one in key.adapters
    ]
    return _Made(recipe, tuple(dependencies), versions)


def _adapters(cube: Cube) -> Iterator[tuple[str, _Made]]:
    for memory in cube.config.memories:
        training = memory.compatibility.get("training")
        made = training.get(KEY) if isinstance(training, dict) else None
        versions = _versions(made.get(BUILDER)) if isinstance(made, dict) else {}
        if memory.kind == PARAMETRIC and versions:
            assert isinstance(training, dict)
            yield memory.id, _adapter(memory, training, versions)


def _adapter(memory: Memory, training: Mapping[str, Any], versions: Mapping[str, str]) -> _Made:
    fits = memory.compatibility
    recipe: dict[str, Any] = {
        "adapter": fits.get("adapter"),
        "rank": fits.get("rank"),
        "alpha": fits.get("alpha"),
        "modules": len(fits.get("modules", ())),
    }
    rest = {name: value for name, value in training.items() if name != KEY}
    if rest and len(canonical_json.dump(rest)) <= _TRAINING_BYTES:
        recipe["training"] = rest
    inputs = training[KEY].get(INPUTS)
    found = _inputs(inputs) if isinstance(inputs, dict) else ()
    return _Made(recipe, (*_base(fits.get("base")), *found), versions)


def _base(base: object) -> Iterator[Dependency]:
    """The base model: by its identity where that is known, else by its name."""
    if not isinstance(base, dict):
        return
    name = base.get("model")
    uri = base.get("identity") or name
    if isinstance(uri, str) and _is_line(uri):
        told = f"base model {name}" if isinstance(name, str) and _is_line(name) else "base model"
        yield Dependency(f"base:{uri}", name=told)


def _inputs(inputs: Mapping[Any, Any]) -> Iterator[Dependency]:
    for name, text in sorted(inputs.items()):
        try:
            digest = Digest.parse(text)
        except (MemcubeError, TypeError, AttributeError):
            continue  # a dump of ours writes digests only
        if _is_line(name) and digest.algorithm in ("sha256", "sha512"):
            yield Dependency(f"input:{name}", digest, "input")


def _versions(told: object) -> dict[str, str]:
    """Program versions as they were recorded, those that a statement can hold."""
    if not isinstance(told, dict):
        return {}
    return {
        name: value
        for name, value in told.items()
        if isinstance(value, str) and _is_line(name) and _is_line(value)
    }


def _is_line(text: str) -> bool:
    return 0 < len(text) <= _NAME_CHARS and is_printable_line(text)
