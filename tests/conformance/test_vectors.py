"""Every vector file, to accept and to reject: what an implementation in any language must agree on.

A file holds `about`, `accept` and `reject`; each vector has a `name`, and what to refuse carries the
error's `code`. The check for a file is the function of this module that bears its name.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memcube_protocol import canonical_json, oci, paths, shards, tensors, text, timestamps
from memcube_protocol.build import Build
from memcube_protocol.config import CubeConfig
from memcube_protocol.content import (
    Blocks,
    Cell,
    Commitment,
    Expected,
    merkle_root,
    stream_verified,
)
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import OUTCOMES, MemcubeError
from memcube_protocol.fields import Fields
from memcube_protocol.governance import Governance
from memcube_protocol.oci import Descriptor, Manifest
from memcube_protocol.records import Record, parse_record, write_record
from memcube_protocol.reference import Reference, is_immutable_tag
from memcube_protocol.rules import Act, Asked, require, rulings
from memcube_protocol.vectors import VectorFile

VECTORS = Path(__file__).parent / "vectors"
Vector = dict[str, Any]


def decoded(vector: Vector, key: str = "input") -> bytes:
    return base64.b64decode(vector[key], validate=True)


def references(vector: Vector) -> None:
    reference = Reference.parse(vector["input"])
    assert str(reference) == vector.get("canonical", vector["input"])
    assert Reference.parse(str(reference)) == reference
    assert reference.host == vector["host"]
    assert reference.name == vector["repository"]
    assert reference.tag == vector["tag"]
    assert (str(reference.digest) if reference.digest else None) == vector["digest"]
    assert bool(reference.tag and is_immutable_tag(reference.tag)) == vector["immutableTag"]


def digests(vector: Vector) -> None:
    digest = Digest.parse(vector["input"])
    assert str(digest) == vector["input"]
    assert Digest.of(decoded(vector, "content"), digest.algorithm) == digest


def canonical_json_(vector: Vector) -> None:
    value = canonical_json.parse(decoded(vector))
    assert canonical_json.dump(value) == decoded(vector, "canonical")
    assert canonical_json.parse(decoded(vector, "canonical")) == value


def paths_(vector: Vector) -> None:
    assert paths.require_safe(vector["input"]) == vector["input"]


def times(vector: Vector) -> None:
    assert timestamps.require_canonical(vector["input"]) == vector["input"]
    assert timestamps.normalise(vector["input"]) == vector["input"]


def manifests(vector: Vector) -> None:
    raw = decoded(vector)
    parsed = oci.parse(raw, vector["deliveredAs"])
    assert parsed.raw == raw
    assert str(parsed.digest) == vector["digest"]
    assert parsed.media_type == vector["mediaType"]
    assert parsed.effective_artifact_type == vector["artifactType"]
    assert (str(parsed.subject.digest) if parsed.subject else None) == vector["subject"]
    if isinstance(parsed, Manifest):
        assert vector["kind"] == "manifest"
        assert [str(blob.digest) for blob in parsed.blobs] == vector["blobs"]
    else:
        assert vector["kind"] == "index"
        assert [str(child.digest) for child in parsed.manifests] == vector["manifests"]


def configs(vector: Vector) -> None:
    config = CubeConfig.parse(decoded(vector))
    assert config.write() == decoded(vector)
    assert (config.name, config.version) == (vector["cube"], vector["version"])
    assert config.created_at == timestamps.moment(vector["createdAt"])
    assert config.governance.licence == vector["licence"]
    told = [
        {"id": memory.id, "kind": memory.kind, "layers": [str(layer) for layer in memory.layers]}
        for memory in config.memories
    ]
    assert told == vector["memories"]


def cubes(vector: Vector) -> None:
    manifest = oci.parse_manifest(decoded(vector, "manifest"))
    cube = Cube.read(manifest, decoded(vector, "config"))
    assert str(cube.digest) == vector["digest"]
    told = [
        {"path": file.path, "memory": file.memory, "digest": str(file.digest)}
        for file in cube.files
    ]
    assert told == vector["files"]
    assert Cube.write(cube.config, cube.files) == cube


def builds(vector: Vector) -> None:
    manifest = oci.parse_manifest(decoded(vector, "manifest"))
    build = Build.read(manifest, decoded(vector, "config"))
    assert (str(build.digest), str(build.subject.digest)) == (vector["digest"], vector["subject"])
    assert (build.memory.id, build.memory.kind) == (vector["memory"], vector["kind"])
    told = [{"path": file.path, "digest": str(file.digest)} for file in build.files]
    assert told == vector["files"]
    assert Build.write(build.subject, build.memory, build.files, build.made) == build


def records(vector: Vector) -> None:
    record = parse_record(decoded(vector))
    assert write_record(record) == decoded(vector, "canonical")
    assert parse_record(decoded(vector, "canonical")) == record


def shards_(vector: Vector) -> None:
    layer = decoded(vector, "content")
    descriptor = Descriptor.of("application/octet-stream", layer, vector["annotations"])
    found = list(shards.read_shard(layer, descriptor))
    assert [record.id for record in found] == vector["ids"]
    assert b"".join(write_record(record) + b"\n" for record in found) == decoded(vector, "raw")


def cuts(vector: Vector) -> None:
    names = [f"note-{number:04d}" for number in range(4000)]
    made = (
        Record(id=name, text="x" * (200 + hashlib.sha256(name.encode()).digest()[0]))
        for name in names
    )
    found = list(shards.cut(made, target=vector["target"]))
    assert [shard.count for shard in found] == vector["counts"]
    assert [str(shard.digest) for shard in found] == vector["digests"]


def terms(vector: Vector) -> None:
    assert text.measured_terms(vector["input"]) == (vector["terms"], vector["length"])
    assert text.query_terms(vector["input"]) == vector["query"]
    assert list(text.query_weights(vector["input"]).values()) == vector["weights"]
    assert [text.term_id(term) for term in vector["terms"]] == vector["dimensions"]


def vectors_(vector: Vector) -> None:
    file = VectorFile.of(tensors.parse_header(decoded(vector)))
    assert (file.embedder, file.count) == (vector["embedder"], vector["count"])
    assert (file.width, file.terms) == (vector["width"], vector["terms"])


def content(vector: Vector) -> None:
    held = decoded(vector, "content")
    if "cells" in vector:
        cells = [
            Cell(c["size"], c["side"], bytes.fromhex(c["salt"]), bytes.fromhex(c["sibling"]))
            for c in vector["cells"]
        ]
        commitment = Commitment(bytes.fromhex(vector["root"]), len(cells))
        assert b"".join(stream_verified([held], Expected(commitment, cells=tuple(cells)))) == held
        return
    hashes = tuple(map(bytes.fromhex, vector["blake3"]))
    blocks = Blocks(vector["blockBytes"], vector["start"], vector["size"], hashes)
    blocks.verify(held, vector["start"])
    assert Blocks.of(held, blocks.block_bytes, blocks.start) == blocks


def rules_(vector: Vector) -> None:
    governance = Governance.from_fields(Fields(vector["governance"], "governance"))
    assert governance.to_json() == vector["governance"]
    told = dict(vector["asked"])
    now, since, made = timestamps.moment(vector["now"]), told.get("heldSince"), told.get("made")

    def asked(act: str, *, owner: bool = False) -> Asked:
        return Asked(
            Act(act),
            now,
            owner=owner,
            uses=frozenset(told.get("uses", ())),
            ceiling=told.get("ceiling", "restricted"),
            held_since=timestamps.moment(since) if since else None,
            leaves_to=tuple(told.get("leavesTo", ())),
            made=Governance.from_fields(Fields(made, "governance")) if made else None,
        )

    if "act" in vector:
        require("the cube", governance, asked(vector["act"]))
        return
    for owner, forbidden in ((False, "forbidden"), (True, "forbiddenToOwner")):
        said = {act: rulings(governance, asked(act, owner=owner)) for act in Act}
        refused = {act: [one.rule for one in said[act] if not one.allows] for act in said}
        assert [act for act in refused if refused[act]] == vector[forbidden]
        assert {rule for rules in refused.values() for rule in rules} <= {vector["rule"]}


CHECKS: dict[str, Callable[[Vector], None]] = {
    "references": references,
    "digests": digests,
    "canonical_json": canonical_json_,
    "paths": paths_,
    "times": times,
    "manifests": manifests,
    "configs": configs,
    "cubes": cubes,
    "builds": builds,
    "records": records,
    "rules": rules_,
    "shards": shards_,
    "cuts": cuts,
    "terms": terms,
    "vectors": vectors_,
    "content": content,
}


def vectors(kind: str) -> list[Any]:
    return [
        pytest.param(file.stem, vector, id=f"{file.stem}: {vector['name']}")
        for file in sorted(VECTORS.glob("*.json"))
        for vector in json.loads(file.read_text())[kind]
    ]


@pytest.mark.parametrize(("file", "vector"), vectors("accept"))
def test_what_is_right_is_accepted(file: str, vector: Vector) -> None:
    CHECKS[file](vector)


@pytest.mark.parametrize(("file", "vector"), vectors("reject"))
def test_what_is_wrong_is_rejected_with_its_code(file: str, vector: Vector) -> None:
    assert vector["code"] in OUTCOMES
    with pytest.raises(MemcubeError) as caught:
        CHECKS[file](vector)
    assert caught.value.code == vector["code"]
    assert caught.value.hint


def test_every_file_has_its_check_and_every_vector_its_own_name() -> None:
    files = {file.stem: json.loads(file.read_text()) for file in VECTORS.glob("*.json")}
    assert set(files) == set(CHECKS)
    for name, held in files.items():
        names = [vector["name"] for kind in ("accept", "reject") for vector in held[kind]]
        assert len(set(names)) == len(names), name
        assert held["about"].startswith("docs/spec/")


def test_roots_of_the_vectors_are_those_of_rfc_6962() -> None:
    leaves = [hashlib.sha256(b"\x00" + bytes([number])).digest() for number in range(2)]
    assert merkle_root(leaves) == hashlib.sha256(b"\x01" + b"".join(leaves)).digest()
