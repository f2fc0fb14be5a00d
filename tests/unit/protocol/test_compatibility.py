"""The compatibility key: it reads back, and every single field is able to refuse a mount."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.compatibility import (
    ActiveAdapter,
    CompatibilityKey,
    compare,
    incompatible,
)
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.fields import Fields
from memcube_protocol.identity import AdapterIdentity, BaseIdentity

ADAPTER = ActiveAdapter(AdapterIdentity(b"a" * 32), "2")
OTHER_ADAPTER = ActiveAdapter(AdapterIdentity(b"b" * 32), "0.5")
KEY = CompatibilityKey(
    base=BaseIdentity(b"m" * 32),
    compute_dtype="BF16",
    weight_quantisation="none",
    architecture=Digest.of(b"architecture"),
    rope='{"rope_theta":10000}',
    kv_dtype="BF16",
    kv_quantisation="none",
    adapters=(ADAPTER,),
    tokenizer=Digest.of(b"tokenizer"),
    special_tokens="added:1",
    tokens=Digest.of(b"tokens"),
    token_count=300,
)
CHANGES = {
    "base": BaseIdentity(b"n" * 32),
    "compute_dtype": "F32",
    "weight_quantisation": "sha256:00",
    "architecture": Digest.of(b"another"),
    "rope": '{"rope_theta":20000}',
    "kv_dtype": "F16",
    "kv_quantisation": "int8-token",
    "adapters": (),
    "tokenizer": Digest.of(b"another"),
    "special_tokens": "bare",
    "tokens": Digest.of(b"others"),
    "token_count": 301,
    "position_offset": 1,
    "post_rope": False,
}


def test_every_field_has_a_change_here() -> None:
    assert set(CHANGES) == {field.name for field in fields(CompatibilityKey)}


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_one_field_is_a_mismatch_of_this_field_with_a_remedy(field) -> None:
    model = replace(KEY, **{field: CHANGES[field]})
    (mismatch,) = compare(KEY, model)
    assert mismatch.field == field
    assert mismatch.memory != mismatch.model
    assert mismatch.remedy
    assert model.digest() != KEY.digest()
    refusal = incompatible([mismatch])
    assert field in str(refusal)
    assert refusal.hint == mismatch.remedy


def test_every_difference_is_listed_at_once() -> None:
    mismatches = compare(KEY, replace(KEY, **CHANGES))
    assert [mismatch.field for mismatch in mismatches] == [f.name for f in fields(KEY)]


def test_equal_keys_are_compatible() -> None:
    assert compare(KEY, replace(KEY)) == ()


@pytest.mark.parametrize(
    ("memory", "model", "remedy"),
    [
        ((ADAPTER,), (), "mount the LoRA memory"),
        ((), (ADAPTER,), "unmount the adapter"),
        (
            (ADAPTER,),
            (OTHER_ADAPTER,),
            "mount the LoRA memory that it was made under first; unmount",
        ),
        ((ADAPTER, OTHER_ADAPTER), (OTHER_ADAPTER, ADAPTER), "same order"),
        ((ADAPTER,), (replace(ADAPTER, scale="1"),), "same scale"),
    ],
)
def test_the_remedy_for_adapters_says_what_to_do(memory, model, remedy) -> None:
    (mismatch,) = compare(replace(KEY, adapters=memory), replace(KEY, adapters=model))
    assert remedy in mismatch.remedy


def test_the_json_object_reads_back() -> None:
    assert CompatibilityKey.from_fields(Fields(KEY.to_json(), "key")) == KEY
    assert all(value is not None for value in KEY.to_json().values())


@pytest.mark.parametrize(
    "name", [name for name in KEY.to_json() if name not in ("adapters", "rope")]
)
def test_a_field_that_is_missing_is_refused(name) -> None:
    value = KEY.to_json()
    del value[name]
    with pytest.raises(MemcubeError):
        CompatibilityKey.from_fields(Fields(value, "key"))


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(KEY.to_json())),
    st.none() | st.integers() | st.text() | st.lists(st.integers()),
)
def test_a_field_of_another_kind_raises_only_our_errors(name, value) -> None:
    with contextlib.suppress(MemcubeError):
        CompatibilityKey.from_fields(Fields({**KEY.to_json(), name: value}, "key"))


@pytest.mark.parametrize(
    "change",
    [
        {"compute_dtype": "float"},
        {"kv_quantisation": "None!"},
        {"special_tokens": "added:x"},
        {"token_count": 0},
        {"position_offset": -1},
        {"rope": '{"b": 1}'},
    ],
)
def test_an_impossible_key_is_refused(change) -> None:
    with pytest.raises(MemcubeError):
        replace(KEY, **change)


@pytest.mark.parametrize("scale", ["", "2.", "nan", "+1", "01"])
def test_a_scale_has_one_way_to_be_written(scale) -> None:
    with pytest.raises(MemcubeError):
        ActiveAdapter(AdapterIdentity(bytes(32)), scale)
