"""The safetensors header: what is written is read back, by us and by the official library."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import limits, tensors
from memcube_protocol.errors import (
    InvalidTensorsError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
)
from memcube_protocol.tensors import Header, Rejection

DTYPES = st.sampled_from(sorted(tensors.DTYPE_BYTES))
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != tensors.METADATA_KEY
)
SPECS = st.dictionaries(NAMES, st.tuples(DTYPES, SHAPES), max_size=6)


def file_of(specs: dict[str, tuple[str, tuple[int, ...]]], **options: object) -> bytes:
    header = tensors.write_header([(n, d, s) for n, (d, s) in specs.items()], **options)
    return header + bytes(sum(tensors.size_bytes(d, s) for d, s in specs.values()))


@settings(max_examples=60)
@given(SPECS, st.sampled_from([8, 64, 4096]))
def test_reads_back_what_it_writes(specs, alignment) -> None:
    content = file_of(specs, alignment=alignment, metadata={"format": "pt"})
    header = tensors.parse_header(content)
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == specs
    assert header.metadata == {"format": "pt"}
    assert header.file_bytes == len(content)
    assert header.data_start % alignment == 0


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(content) -> None:
    with pytest.raises(MemcubeError):
        tensors.parse_header(content)


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
    )
)
def test_random_json_is_read_or_refused_by_name(value) -> None:
    text = json.dumps({"x": value} if not isinstance(value, dict) else value).encode()
    with contextlib.suppress(InvalidTensorsError):
        header = tensors.parse_header(struct.pack("<Q", len(text)) + text)
        assert isinstance(header, Header)


def test_the_official_library_reads_our_padded_header(tmp_path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "x.safetensors"
    header = tensors.write_header([("b", "F32", (2,)), ("a", "I8", (3,))], alignment=4096)
    file.write_bytes(header + struct.pack("<2f", 1.0, 2.0) + b"\x01\x02\x03")
    loaded = safetensors.load_file(file)
    assert loaded["b"].tolist() == [1.0, 2.0]
    assert loaded["a"].tolist() == [1, 2, 3]


def test_we_read_what_the_official_library_writes() -> None:
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    content = safetensors.save(
        {"x": numpy.zeros((2, 3), numpy.float16), "empty": numpy.zeros((0, 4), numpy.int64)},
        {"format": "np"},
    )
    header = tensors.parse_header(content)
    assert header.tensor("x").shape == (2, 3)
    assert header.tensor("empty").size_bytes == 0
    assert header.metadata == {"format": "np"}


def test_a_tensor_that_is_not_there_is_not_found() -> None:
    header = tensors.parse_header(file_of({"a": ("U8", (1,))}))
    with pytest.raises(NotFoundError):
        header.tensor("b")
    assert header.range_of(header.tensor("a")) == (header.data_start, header.data_start + 1)


def test_a_header_above_the_limit_is_refused_before_it_is_read() -> None:
    first = struct.pack("<Q", limits.SAFETENSORS_HEADER_BYTES + 1)
    with pytest.raises(LimitExceededError):
        tensors.header_length(first, 2**40)


@pytest.mark.parametrize(
    "pair", [[("a", "U8", (1,))] * 2, [("", "U8", (1,))], [("__metadata__", "U8", ())]]
)
def test_a_name_twice_or_none_at_all_is_not_written(pair) -> None:
    with pytest.raises(InvalidTensorsError) as refusal:
        tensors.write_header(pair)
    assert refusal.value.rejection == Rejection.NAME
