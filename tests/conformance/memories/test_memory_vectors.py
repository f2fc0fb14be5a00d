"""The vectors of tensors, identities, KV and LoRA memories: this reader agrees, and they never change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from blake3 import blake3
from conformance.memories.generate import FILES, FOLDER, check_kv, check_lora, refusal, text_of
from memcube_protocol import activation, tensors
from memcube_protocol.compatibility import CompatibilityKey
from memcube_protocol.fields import Fields
from memcube_protocol.identity import AdapterIdentity, BaseIdentity, TensorIdentity


def cases(name: str, kind: str) -> list[Any]:
    values = json.loads((FOLDER / name).read_text("utf-8"))[kind]
    return [pytest.param(value, id=value.get("name")) for value in values]


def content(case: dict[str, Any], key: str = "content") -> bytes:
    return base64.b64decode(case[key])


def expected_refusal(case: dict[str, Any]) -> dict[str, str]:
    return {key: case[key] for key in ("code", "rejection") if key in case}


@pytest.mark.parametrize("name", FILES)
def test_the_vectors_are_what_the_code_writes_today(name) -> None:
    """Change them only with a new version of the format, and then keep the old ones."""
    assert (FOLDER / name).read_text("utf-8") == text_of(name)


@pytest.mark.parametrize("case", cases("tensors.json", "accept"))
def test_a_file_of_tensors_is_read(case) -> None:
    header = tensors.parse_header(content(case))
    assert header.data_start == case["dataStart"]
    read = {
        t.name: {"dtype": t.dtype, "shape": list(t.shape), "offsets": [t.start, t.stop]}
        for t in header.tensors
    }
    assert read == case["tensors"]


@pytest.mark.parametrize("case", cases("tensors.json", "accept"))
def test_the_official_library_accepts_what_we_accept(case) -> None:
    safetensors = pytest.importorskip("safetensors")
    read = dict(safetensors.deserialize(content(case)))
    assert {name: (value["dtype"], value["shape"]) for name, value in read.items()} == {
        name: (value["dtype"], value["shape"]) for name, value in case["tensors"].items()
    }


@pytest.mark.parametrize("case", cases("tensors.json", "reject"))
def test_a_file_of_tensors_is_refused_by_name(case) -> None:
    assert refusal(tensors.parse_header, content(case)) == expected_refusal(case)


@pytest.mark.parametrize("case", cases("identity.json", "accept"))
def test_tensors_have_this_identity(case) -> None:
    parts = [
        TensorIdentity(t["name"], t["dtype"], tuple(t["shape"]), blake3(content(t)).digest())
        for t in case["tensors"]
    ]
    assert str(BaseIdentity.of(parts)) == case["base"]
    assert str(AdapterIdentity.of(parts)) == case["adapter"]


@pytest.mark.parametrize("case", cases("identity.json", "reject"))
def test_an_identity_is_refused(case) -> None:
    assert refusal(BaseIdentity.parse, case["input"]) == expected_refusal(case)


@pytest.mark.parametrize("case", cases("activation.json", "chains"))
def test_tokens_have_this_chain(case) -> None:
    ids = activation.decode_tokens(content(case, "tokens"))
    assert [link.hex() for link in activation.token_chain(ids)] == case["chain"]


@pytest.mark.parametrize("case", cases("activation.json", "keys"))
def test_a_key_has_this_digest(case) -> None:
    key = CompatibilityKey.from_fields(Fields(case["key"], "key"))
    assert str(key.digest()) == case["digest"]


@pytest.mark.parametrize("case", cases("activation.json", "accept"))
def test_the_files_of_a_kv_memory_agree(case) -> None:
    kv = content(case, "kv")
    parts = content(case, "manifest"), content(case, "tokens")
    manifest = check_kv(*parts, kv, case["kvBytes"])
    assert str(manifest.key.digest()) == case["key"]
    assert [link.hex() for link in manifest.chain] == case["chain"]
    header = tensors.parse_header(kv, case["kvBytes"])
    ranges = activation.prefix_ranges(header, 10)
    assert {name: list(span) for name, span in ranges.items()} == case["prefix"]


@pytest.mark.parametrize("case", cases("activation.json", "reject"))
def test_the_files_of_a_kv_memory_are_refused(case) -> None:
    parts = content(case, "manifest"), content(case, "tokens"), content(case, "kv")
    assert refusal(check_kv, *parts, case["kvBytes"]) == expected_refusal(case)


@pytest.mark.parametrize("case", cases("parametric.json", "accept"))
def test_an_adapter_is_read(case) -> None:
    adapter = check_lora(content(case, "config"), content(case, "tensors"))
    assert adapter.base.to_json() == case["base"]
    modules = {m.path: [m.rank, m.outputs, m.inputs] for m in adapter.modules}
    assert modules == case["modules"]
    assert {path: adapter.config.scale_of(path) for path in modules} == case["scales"]
    assert {path: list(bias.shape) for path, bias in adapter.biases.items()} == case["biases"]


@pytest.mark.parametrize("case", cases("parametric.json", "reject"))
def test_an_adapter_is_refused(case) -> None:
    parts = content(case, "config"), content(case, "tensors")
    assert refusal(check_lora, *parts) == expected_refusal(case)
