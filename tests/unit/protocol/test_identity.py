"""Identities: independent of order and tied copies, dependent on everything else."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidDigestError, InvalidTensorsError
from memcube_protocol.identity import AdapterIdentity, BaseIdentity, TensorIdentity


def part(name: str, content: bytes = b"1234", dtype: str = "F32", shape=(1,)) -> TensorIdentity:
    return TensorIdentity(name, dtype, shape, blake3(content).digest())


PARTS = st.lists(
    st.builds(part, st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary()),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.name,
)


@settings(max_examples=50)
@given(PARTS, st.randoms())
def test_the_order_of_tensors_does_not_matter(parts, random) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert AdapterIdentity.of(parts) == AdapterIdentity.of(shuffled)
    assert BaseIdentity.of(parts) == BaseIdentity.of(iter(shuffled))


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32))
def test_the_written_form_reads_back(root) -> None:
    assert BaseIdentity.parse(str(BaseIdentity(root))) == BaseIdentity(root)
    assert AdapterIdentity.parse(str(AdapterIdentity(root))) == AdapterIdentity(root)


@settings(max_examples=50)
@given(st.text())
def test_another_form_is_refused(text) -> None:
    with pytest.raises(InvalidDigestError):
        BaseIdentity.parse(text)


def test_a_base_is_not_an_adapter() -> None:
    with pytest.raises(InvalidDigestError):
        BaseIdentity.parse(str(AdapterIdentity(bytes(32))))
    assert BaseIdentity(bytes(32)) != AdapterIdentity(bytes(32))


@pytest.mark.parametrize(
    "other",
    [part("b"), part("a", b"4321"), part("a", dtype="I32"), part("a", shape=(1, 1))],
    ids=["name", "bytes", "dtype", "shape"],
)
def test_every_property_of_a_tensor_counts(other) -> None:
    assert BaseIdentity.of([part("a")]) != BaseIdentity.of([other])


def test_a_tied_head_counts_once() -> None:
    embedding, head = part("model.embed_tokens.weight"), part("lm_head.weight")
    assert BaseIdentity.of([embedding, head]) == BaseIdentity.of([embedding])
    other_head = part("lm_head.weight", b"untied")
    assert BaseIdentity.of([embedding, other_head]) != BaseIdentity.of([embedding])


def test_equal_tensors_that_are_no_head_all_count() -> None:
    assert BaseIdentity.of([part("norm1"), part("norm2")]) != BaseIdentity.of([part("norm1")])


def test_a_name_twice_and_nothing_at_all_are_refused() -> None:
    with pytest.raises(InvalidTensorsError, match="twice"):
        BaseIdentity.of([part("a"), part("a", b"other")])
    with pytest.raises(InvalidTensorsError, match="no tensors"):
        BaseIdentity.of([])


def test_one_tensor_gives_its_leaf_as_root() -> None:
    text = f'["memcube-tensor-v1","a","F32",[1],"{blake3(b"1234").hexdigest()}"]'
    assert BaseIdentity.of([part("a")]).root == hashlib.sha256(b"\x00" + text.encode()).digest()
