"""The JSON Schemas and the code judge alike.

From a full example of each document, every field is left out, nulled, and given other types and
values; unknown fields are added everywhere. What the code accepts, the schema accepts; what the
schema accepts, the code accepts too, but for the rules that a schema can only describe.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from memcube_protocol import activation, canonical_json, media_types, oci, records
from memcube_protocol.activation import KvManifest
from memcube_protocol.compatibility import CompatibilityKey
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError, MemcubeError
from memcube_protocol.fields import Fields
from memcube_protocol.parametric import Base
from memcube_protocol.records import Record
from memcube_signing import release as releases
from memcube_signing.release import Release
from memcube_signing.statement import Statement
from support.attempts import attempt
from support.memories import RECORDS

FOLDER = Path(__file__).parents[2] / "docs/spec/schemas"
DIGEST = str(Digest.of(b""))
HASH = "00" * 32
ROOT = "0" * 64

FULL_RECORD: dict[str, Any] = json.loads(
    records.write_record(
        Record(
            id="m-1",
            text="Ada is vegetarian.",
            type="acme:recipe",
            subject="Ada",
            created_at="2026-01-13T20:51:42.5Z",
            source=records.Source(system="chat", author="Ada"),
            tags=("diet",),
            relations=(records.Relation(type="about", target="ada"),),
            confidence=0.5,
            sensitivity="internal",
            status="active",
            version=2,
            supersedes=("m-0",),
            attachments=("attachments/ada.png",),
            extensions={"acme": {"score": 1}},
        )
    )
)
FULL_CONFIG: dict[str, Any] = {
    "mipVersion": "1.0",
    "name": "alice/notes",
    "version": "1.0.0",
    "createdAt": "2026-11-20T09:30:00Z",
    "title": "Notes",
    "summary": "What Alice knows.",
    "descriptive": {
        "languages": ["en", "zh-Hans"],
        "domains": ["computing"],
        "tags": ["command line"],
        "semanticTypes": ["procedure"],
        "sources": [{"name": "Pages", "url": "https://example.org/", "licence": "CC-BY-4.0"}],
    },
    "governance": {
        "licence": "LicenseRef-own",
        "licenceUrl": "https://example.org/licence",
        "access": "listed",
        "sensitivity": "internal",
        "personalData": "pseudonymous",
        "allowedUses": ["personal"],
        "redistribution": "forbidden",
        "expiresAt": "2027-11-20T09:30:00Z",
        "retentionDays": 30,
        "priority": "high",
        "watermark": "optional",
    },
    "lineage": {
        "parents": [
            {"origin": "example.org/bob/notes", "digest": DIGEST, "relation": "forked-from"}
        ],
        "supersedes": DIGEST,
    },
    "memories": [
        {
            "id": "plaintext",
            "kind": "plaintext",
            "layers": [DIGEST],
            "records": 2,
            "title": "Facts",
        },
        {
            "id": "kv-1",
            "kind": "activation",
            "layers": [DIGEST],
            "shape": {"tokens": 1},
            "compatibility": {"x": 1},
        },
    ],
    "extensions": {"acme": {}},
}
FULL_KEY: dict[str, Any] = {
    "baseIdentity": f"mip1-base:{ROOT}",
    "computeDtype": "F32",
    "weightQuantisation": "none",
    "architecture": DIGEST,
    "rope": {"theta": 10000},
    "kvDtype": "F32",
    "kvQuantisation": "none",
    "adapters": [{"identity": f"mip1-adapter:{ROOT}", "scale": "2.0"}],
    "tokenizer": DIGEST,
    "specialTokens": "added:1,2",
    "tokens": {"count": 2, "digest": DIGEST},
    "positionOffset": 0,
    "postRope": True,
}
FULL_ACTIVATION: dict[str, Any] = {
    "mipVersion": "1.0",
    "id": "kv-1",
    "key": FULL_KEY,
    "layers": [{"kvHeads": 1, "keyDim": 4, "valueDim": 4}],
    "tokenChain": HASH,
    "blocks": {
        name: {"blockBytes": 4096, "start": 4096, "size": 32, "blake3": HASH}
        for name in ("l0.k", "l0.v")
    },
    "source": {"text": "two words"},
    "information": {"library": "x"},
}
FULL_RELEASE: dict[str, Any] = {
    "origin": "example.org/alice/notes",
    "version": "1.0.0",
    "seq": 2,
    "previous": DIGEST,
    "licence": "MIT OR Apache-2.0",
    "lineage": [{"origin": "example.org/bob/notes", "digest": DIGEST, "relation": "derived"}],
    "publisher": {"keyIds": [ROOT]},
    "createdAt": "2026-11-20T09:30:00Z",
    "expiresAt": "2027-11-20T09:30:00Z",
    "job": {
        "issuer": "https://ci.example",
        "subject": "repo:alice/notes:ref:refs/heads/main",
        "claims": {"ref": "refs/heads/main", "sha": ROOT},
    },
}
FULL_MADE: dict[str, Any] = {
    "recipe": {
        "method": "distil",
        "parent": DIGEST,
        "source": "plaintext",
        "memory": "notes-lora",
        "asOf": "2026-11-20T09:30:00Z",
        "base": f"mip1-base:{ROOT}",
        "seed": 1,
        "threads": 2,
        "budgetTokens": 4096,
        "render": "fenced",
        "prompt": "Question: {question}\nAnswer:",
        "questions": [
            {"question": "Where?", "answer": "Here", "record": "r1", "heldOut": True},
        ],
        "unrelated": DIGEST,
        "confidence": 0.5,
        "training": {
            "alpha": 16,
            "answers": 1,
            "batch": 16,
            "rank": 8,
            "rate": 0.01,
            "retain": 1,
            "steps": 64,
        },
    },
    "evaluation": {
        "asked": 8,
        "without": 1,
        "with": 8,
        "source": 8,
        "heldOut": 2,
        "perplexity": {"without": 3.5, "with": 3.6},
    },
    "environment": {"torch": "2.13.0", "device": "cpu"},
}
FULL_METADATA: dict[str, Any] = {
    "model": "acme/base",
    "revision": "main",
    "identity": f"mip1-base:{ROOT}",
    "form": "BF16",
}


def read_config(value: Any) -> object:
    """The config by its fields, whether or not in canonical form, which no schema can judge."""
    return CubeConfig(**CubeConfig._read(Fields(value, "config")))


def read_key(value: Any) -> object:
    """The key, with no field left out, as the canonical form of its manifest wants."""
    key = CompatibilityKey.from_fields(Fields(value, "key"))
    if key.to_json() != value:
        raise InvalidConfigError("a field is left out", hint="write every field")
    return key


def read_release(value: Any) -> object:
    name = value.get("origin") if isinstance(value, dict) else ""
    return releases.from_statement(
        Statement(str(name), Digest.of(b""), releases.PREDICATE_TYPE, value)
    )


READERS: dict[str, tuple[dict[str, Any], Callable[[Any], object]]] = {
    "record": (FULL_RECORD, lambda value: records.parse_record(json.dumps(value).encode())),
    "config": (FULL_CONFIG, read_config),
    "build-config": (
        {"mipVersion": "1.0", "memory": FULL_CONFIG["memories"][1], "made": FULL_MADE},
        lambda value: _read_build_config(value),
    ),
    "compatibility-key": (
        FULL_KEY,
        read_key,
    ),
    "activation-manifest": (
        FULL_ACTIVATION,
        lambda value: KvManifest.parse(canonical_json.dump(value)),
    ),
    "adapter-metadata": (
        {"base": FULL_METADATA, "training": {"steps": 1}},
        lambda value: _read_metadata(value),
    ),
    "release": (FULL_RELEASE, read_release),
}


def _read_build_config(value: Any) -> object:
    from memcube_protocol.build import read_config

    return read_config(canonical_json.dump(value))


def _read_metadata(value: Any) -> object:
    source = Fields(value, "memcube")
    base, training = Base.from_fields(source.table("base")), source.object("training")
    source.finish()
    return base, training


ONLY_CODE = {
    "record": {"supersedes", "id", "target", "attachments", "created_at"},
    "config": {"name", "version", "origin", "createdAt", "expiresAt", "memories", "id"},
    "build-config": {
        *("shape", "compatibility", "tokens", "x", "asOf", "prompt"),
        *("asked", "without", "with", "source", "heldOut"),
    },
    "compatibility-key": {"computeDtype", "kvDtype"},
    "activation-manifest": {
        *("count", "kvHeads", "keyDim", "valueDim", "tokenChain", "blocks", "blockBytes", "start"),
        *("size", "blake3", "l0.k", "l0.v", "layers", "computeDtype", "kvDtype"),
    },
    "adapter-metadata": set(),
    "release": {
        "origin",
        "version",
        "createdAt",
        "expiresAt",
        "keyIds",
        "issuer",
        "subject",
        "ref",
        "sha",
    },
}
"""Fields with rules that only code can judge: sums over several fields, Unicode, calendars, grammars."""

OTHERS: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 1.5, 2**53, "", "x", " ", "\u202e", "a b", "A", "x" * 3000),
    *([], ["x"], ["x", "x"], [1], [None], [[]], [{}], {}, {"x": 1}, {"x": {}}),
    *("1.0", "2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00.50Z"),
    *(
        DIGEST,
        DIGEST.upper(),
        f"md5:{'0' * 32}",
        HASH,
        "public",
        "active",
        "plaintext",
        "parametric",
    ),
)


def mutations(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Copies of `value` with one thing changed, and the name of the field where that is."""
    for other in OTHERS:
        if at:
            yield at, other
    if isinstance(value, dict):
        yield at, value | {"unknown-field": 1}
        for key in value:
            yield key, {name: item for name, item in value.items() if name != key}
            for name, changed in mutations(value[key], key):
                yield name, value | {key: changed}
    elif isinstance(value, list):
        for position, item in enumerate(value):
            for name, changed in mutations(item, at):
                yield name, [*value[:position], changed, *value[position + 1 :]]


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((FOLDER / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", sorted(READERS))
def test_code_and_schema_accept_the_full_example(name: str) -> None:
    example, read = READERS[name]
    validator(name).validate(example)
    read(example)


@pytest.mark.parametrize("name", sorted(READERS))
def test_code_and_schema_judge_every_change_alike(name: str) -> None:
    example, read = READERS[name]
    judge = validator(name)
    different: list[str] = []
    for field, changed in mutations(example):
        if isinstance(attempt(lambda held=changed: canonical_json.dump(held)), MemcubeError):
            continue
        by_code = not isinstance(
            attempt(lambda held=changed: read(copy.deepcopy(held))), MemcubeError
        )
        by_schema = judge.is_valid(changed)
        if by_code and not by_schema:
            different.append(f"{field}: only the code accepts {json.dumps(changed)[:300]}")
        if by_schema and not by_code and field not in ONLY_CODE[name]:
            different.append(f"{field}: only the schema accepts {json.dumps(changed)[:300]}")
    assert not different, "\n".join(different[:20])


@settings(max_examples=100)
@given(RECORDS)
def test_every_record_that_the_code_writes_fits_its_schema(record: Record) -> None:
    RECORD_SCHEMA.validate(json.loads(records.write_record(record)))


RECORD_SCHEMA = validator("record")


def test_fields_of_the_record_are_those_of_the_schema() -> None:
    schema = json.loads((FOLDER / "record.json").read_text())
    assert set(schema["properties"]) == set(records._NAMES)


def test_a_release_that_the_code_writes_fits_its_schema() -> None:
    release = Release(
        subject=Digest.of(b""),
        origin="example.org/alice/notes",
        version="1.0.0",
        seq=1,
        previous=None,
        licence="MIT",
        publishers=(ROOT,),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    validator("release").validate(json.loads(release.to_statement().to_bytes())["predicate"])


def test_an_activation_manifest_that_the_code_writes_fits_its_schema() -> None:
    value = json.loads(KvManifest.parse(canonical_json.dump(FULL_ACTIVATION)).to_bytes())
    validator("activation-manifest").validate(value)
    assert set(value) == set(FULL_ACTIVATION)
    assert activation.MANIFEST_FILE == "manifest.json"


def test_the_manifest_of_a_cube_fits_its_schema_and_no_other_does() -> None:
    judge = validator("manifest")
    card = CubeFile("README.md", media_types.CARD, Digest.of(b"# A"), 3)
    config = CubeConfig("alice/notes", "1.0.0", datetime(2026, 1, 1, tzinfo=UTC))
    cube = Cube.write(config, [card])
    value = json.loads(cube.manifest.raw)
    judge.validate(value)
    for changed in (
        value | {"artifactType": media_types.BUILD},
        value | {"config": oci.EMPTY.to_json()},
        value | {"layers": [value["layers"][0] | {"mediaType": "application/x-python"}]},
        value | {"layers": [{k: v for k, v in value["layers"][0].items() if k != "annotations"}]},
    ):
        assert not judge.is_valid(changed)
        raw = canonical_json.dump(changed)
        with pytest.raises(MemcubeError):
            Cube.read(oci.parse_manifest(raw), config.write())


def test_what_a_config_says_of_an_adapter_has_a_schema() -> None:
    value = {
        "base": FULL_METADATA,
        "rank": 8,
        "alpha": 16,
        "adapter": f"mip1-adapter:{ROOT}",
        "modules": {"model.layers.0.self_attn.q_proj": [8, 64, 64]},
        "tensors": {"base_model.model.x.lora_A.weight": HASH},
        "training": {},
    }
    judge = validator("adapter-compatibility")
    judge.validate(value)
    assert not judge.is_valid(value | {"modules": {"x": [8, 64]}})
    Memory("lora-1", "parametric", (Digest.of(b""),), compatibility=value)
