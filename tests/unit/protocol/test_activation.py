"""The activation memory's files: tokens, chain, manifest, and that they agree."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import activation, limits, tensors
from memcube_protocol.activation import KvManifest, LayerShape, Source
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidConfigError,
    InvalidJsonError,
    InvalidTensorsError,
    LimitExceededError,
    MemcubeError,
)
from support.kv import IDS, KEY, LAYERS, kv_file, kv_manifest

TOKEN_IDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=600)


@settings(max_examples=40)
@given(TOKEN_IDS)
def test_tokens_read_back(ids) -> None:
    raw = activation.encode_tokens(ids)
    assert len(raw) == 4 * len(ids)
    assert activation.decode_tokens(raw) == tuple(ids)


@pytest.mark.parametrize("ids", [[], [-1], [2**32]])
def test_tokens_that_are_none_or_no_u32_are_not_written(ids) -> None:
    with pytest.raises(InvalidConfigError):
        activation.encode_tokens(ids)


@pytest.mark.parametrize("raw", [b"", b"123", b"12345"])
def test_token_bytes_that_are_not_whole_are_refused(raw) -> None:
    with pytest.raises(InvalidConfigError):
        activation.decode_tokens(raw)


@settings(max_examples=40)
@given(TOKEN_IDS, TOKEN_IDS)
def test_equal_links_of_the_chain_mean_equal_beginnings(one, other) -> None:
    first, second = activation.token_chain(one), activation.token_chain(other)
    shared = activation.shared_tokens(one, other)
    whole = shared // limits.KV_BLOCK_TOKENS
    assert first[:whole] == second[:whole]
    assert one[:shared] == other[:shared]
    if shared < min(len(one), len(other)):
        assert first[whole] != second[whole]


def test_the_chain_is_what_the_specification_says() -> None:
    ids = list(range(300))
    raw = activation.encode_tokens(ids)
    first = hashlib.sha256(b"memcube-token-chain-v1" + raw[:1024]).digest()
    second = hashlib.sha256(b"memcube-token-chain-v1" + first + raw[1024:]).digest()
    assert activation.token_chain(ids) == (first, second)


def test_the_header_ends_at_a_page_and_names_the_layers_in_order() -> None:
    header = tensors.parse_header(kv_file())
    assert header.data_start % 4096 == 0
    assert [t.name for t in header.tensors] == ["l0.k", "l0.v", "l1.k", "l1.v"]
    assert header.tensor("l0.k").shape == (len(IDS), 2, 4)


def test_a_prefix_is_one_range_of_bytes_per_tensor() -> None:
    header = tensors.parse_header(kv_file())
    ranges = activation.prefix_ranges(header, 10)
    start, stop = ranges["l1.v"]
    assert start == header.range_of(header.tensor("l1.v"))[0]
    assert stop - start == 10 * 2 * 6 * 4


def test_the_manifest_reads_back_in_canonical_form() -> None:
    manifest = kv_manifest()
    raw = manifest.to_bytes()
    assert KvManifest.parse(raw) == manifest
    assert KvManifest.parse(raw).to_bytes() == raw


def test_files_that_agree_are_accepted() -> None:
    file = kv_file()
    raw = activation.encode_tokens(IDS)
    manifest = activation.check_folder_files(kv_manifest().to_bytes(), raw, file[:8192], len(file))
    assert manifest.key == KEY


def test_a_text_stands_for_its_own_digest_only() -> None:
    assert Source("text").to_json() == {"text": "text"}
    assert Source(None, Digest.of(b"text")).to_json() == {"digest": str(Digest.of(b"text"))}
    with pytest.raises(InvalidConfigError):
        Source("text", Digest.of(b"another"))


def test_other_tokens_than_the_key_names_are_refused() -> None:
    file = kv_file()
    with pytest.raises(DigestMismatchError):
        activation.check_folder_files(
            kv_manifest().to_bytes(), activation.encode_tokens([*IDS[:-1], 7]), file, len(file)
        )


@pytest.mark.parametrize(
    "file",
    [
        kv_file(layers=LAYERS[:1]),
        kv_file(layers=(*LAYERS, LAYERS[0])),
        kv_file(dtype="F16"),
        kv_file(tokens=len(IDS) - 1),
        kv_file(layers=tuple(LayerShape(1, 8, 12) for _ in LAYERS)),
    ],
    ids=["a layer less", "a layer more", "dtype", "tokens", "shape"],
)
def test_tensors_that_the_manifest_does_not_promise_are_refused(file) -> None:
    with pytest.raises(InvalidTensorsError):
        activation.check_folder_files(
            kv_manifest().to_bytes(), activation.encode_tokens(IDS), file, len(file)
        )


def test_tensors_off_a_page_boundary_are_refused() -> None:
    header = tensors.write_header(activation.kv_tensors(LAYERS, len(IDS), "F32"), alignment=8)
    file = header + kv_file()[8192 - 4096 :]
    with pytest.raises(InvalidTensorsError):
        activation.check_header(kv_manifest(), tensors.parse_header(file))


@pytest.mark.parametrize(
    "change",
    [
        {"layers": LAYERS[:1]},
        {"chain": ()},
        {"blocks": {}},
        {"blocks": {name: Blocks.of(b"x") for name in kv_manifest().blocks}},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change) -> None:
    with pytest.raises(MemcubeError):
        replace(kv_manifest(), **change)


@settings(max_examples=60)
@given(
    st.binary(max_size=100)
    | st.sampled_from(sorted(kv_manifest().to_json())).map(lambda name: _without(name))
)
def test_a_damaged_manifest_raises_only_our_errors(raw) -> None:
    with pytest.raises(MemcubeError):
        KvManifest.parse(raw)


def test_a_manifest_above_the_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        KvManifest.parse(b" " * (limits.KV_MANIFEST_BYTES + 1))


def _without(name: str) -> bytes:
    from memcube_protocol import canonical_json

    value = kv_manifest().to_json()
    value[name] = 7
    return canonical_json.dump(value)


@pytest.mark.parametrize("raw", [b" " + kv_manifest().to_bytes(), kv_manifest().to_bytes() + b"\n"])
def test_a_manifest_that_is_not_canonical_is_refused(raw) -> None:
    with pytest.raises(InvalidJsonError, match="canonical"):
        KvManifest.parse(raw)
