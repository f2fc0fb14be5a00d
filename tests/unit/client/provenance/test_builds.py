"""Build provenance is made from what a dump recorded, and from nothing that a statement cannot hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from memcube.provenance.builds import MEMORIES, builds_of
from memcube_protocol import media_types
from memcube_protocol.activation import KvManifest, encode_tokens
from memcube_protocol.config import CubeConfig, Lineage, Memory, Parent
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_signing.predicates import provenance
from memcube_signing.predicates.provenance import BUILD_TYPES, Provenance
from support.kv import IDS, kv_file, kv_manifest

NOW = datetime(2026, 1, 31, tzinfo=UTC)
NAME = "registry.example/alice/notes"
PARENT = Parent("registry.example/bob/notes", Digest.of(b"parent"))


def built(manifests: dict[str, KvManifest], *adapters: Memory) -> tuple[Provenance, ...]:
    contents, files, memories = [encode_tokens(IDS), kv_file()], [], []
    for memory_id, manifest in manifests.items():
        raw = manifest.to_bytes()
        contents.append(raw)
        own = [
            CubeFile(
                f"activation/{memory_id}/{name}", kind, Digest.of(content), len(content), memory_id
            )
            for name, kind, content in (
                ("manifest.json", media_types.KV_MANIFEST, raw),
                ("tokens.u32", media_types.KV_TOKENS, contents[0]),
                ("kv.safetensors", media_types.KV, contents[1]),
            )
        ]
        files += own
        layers = tuple(file.digest for file in own)
        memories.append(Memory(memory_id, "activation", layers))
    for adapter in adapters:
        own = [
            CubeFile(f"parametric/{adapter.id}/{name}", kind, digest, 9, adapter.id)
            for digest, (name, kind) in zip(adapter.layers, LORA_FILES, strict=True)
        ]
        files += own
        memories.append(adapter)
    config = CubeConfig(
        "alice/notes", "1.0.0", NOW, memories=tuple(memories), lineage=Lineage((PARENT,))
    )
    found = builds_of(Cube.write(config, files), MemoryBlobs(contents), name=NAME)
    for one in found:
        assert provenance.read(one.to_statement()) == one
    return found


LORA_FILES = (
    ("adapter_config.json", media_types.LORA_CONFIG),
    ("adapter_model.safetensors", media_types.LORA),
)


def adapter(training: Any, base: Any = None) -> Memory:
    return Memory(
        "style",
        "parametric",
        (Digest.of(b"config"), Digest.of(b"weights")),
        compatibility={
            "base": base or {"model": "acme/base", "identity": "mip1-base:" + "0" * 64},
            "rank": 2,
            "alpha": 4,
            "adapter": "mip1-adapter:" + "1" * 64,
            "modules": {"a": [2, 8, 8]},
            "training": training,
        },
    )


def cache(**information: Any) -> KvManifest:
    return replace(kv_manifest("a text"), information=information)


def test_a_cache_names_its_model_its_text_and_the_programs() -> None:
    versions = {"builder": {"memcube": "1.2.3"}, "libraries": {"torch": "2.13.0"}}
    how = {"device": "cpu", "attention": "sdpa", "from": "live", "chatTemplate": "sha256:00"}
    (one,) = built({"intro": cache(**versions, **how)})
    assert one.build_type == BUILD_TYPES["activation"]
    told = {item.uri: item.digest for item in one.dependencies}
    assert told[f"oci://{PARENT.origin}"] == PARENT.digest
    assert told["text:intro"] == Digest.of(b"a text")
    assert any(uri.startswith("base:mip1-base:") for uri in told)
    assert one.builder_version == {"memcube": "1.2.3", "torch": "2.13.0"}
    recipe = one.recipe["memories"]["intro"]
    assert recipe["tokens"]["count"] == len(IDS)
    assert (recipe["device"], recipe["textKept"]) == ("cpu", True)
    assert (recipe["from"], recipe["chatTemplate"]) == ("live", "sha256:00")


def test_an_adapter_names_its_base_its_inputs_and_its_parameters() -> None:
    digest = str(Digest.of(b"train"))
    dump = {"builder": {"memcube": "1.2.3", "peft": "0.21"}, "inputs": {"train.jsonl": digest}}
    (one,) = built({}, adapter({"steps": 7, "dump": dump}))
    assert one.build_type == BUILD_TYPES["parametric"]
    told = {item.uri: item.digest for item in one.dependencies}
    assert told["input:train.jsonl"] == Digest.of(b"train")
    assert "base:mip1-base:" + "0" * 64 in told
    recipe = one.recipe["memories"]["style"]
    assert recipe["training"] == {"steps": 7}
    assert recipe["rank"] == 2


def test_nobody_states_how_that_was_made_which_does_not_say_so() -> None:
    assert built({"intro": cache(device="cpu")}, adapter({"steps": 7})) == ()


def test_of_very_many_caches_the_rest_is_counted() -> None:
    manifest = cache(builder={"memcube": "1"})
    (one,) = built({f"m{number:04}": manifest for number in range(MEMORIES + 3)})
    assert len(one.recipe["memories"]) == MEMORIES
    assert one.recipe["omitted"] == 3


@pytest.mark.parametrize(
    "dump",
    [
        {"builder": {"memcube": "1\n2"}},
        {"builder": "memcube"},
        {"builder": {"memcube": "x" * 5000}},
        [],
        "x",
        None,
    ],
)
def test_versions_that_no_statement_can_hold_are_none(dump: Any) -> None:
    assert built({}, adapter({"dump": dump})) == ()


def test_hostile_details_of_a_dump_stay_out() -> None:
    inputs = {
        "a\nb": str(Digest.of(b"x")),
        "y" * 5000: str(Digest.of(b"x")),
        "no digest": "sha256:zz",
        "a number": 7,
        "a list": [],
        "good": str(Digest.of(b"good")),
    }
    dump = {"builder": {"memcube": "1", "bad\u202e": "2"}, "inputs": inputs}
    (one,) = built({}, adapter({"blob": "x" * 100_000, "dump": dump}, base={"model": "\x1b[2J"}))
    assert [item.uri for item in one.dependencies if item.uri.startswith("input:")] == [
        "input:good"
    ]
    assert not [item for item in one.dependencies if item.uri.startswith("base:")]
    assert one.builder_version == {"memcube": "1"}
    assert "training" not in one.recipe["memories"]["style"]
