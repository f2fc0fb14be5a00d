from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidManifestError, LimitExceededError, MemcubeError
from memcube_protocol.oci import Descriptor, Index, Manifest
from support.attempts import attempt

TEXTS = st.text(max_size=8)
DESCRIPTORS = st.builds(
    Descriptor.of,
    st.sampled_from(sorted(media_types.LAYERS)),
    st.binary(max_size=8),
    st.dictionaries(TEXTS, TEXTS, max_size=3),
)
MANIFESTS = st.builds(
    oci.write_manifest,
    artifact_type=st.sampled_from([media_types.CUBE, media_types.BUILD]),
    config=DESCRIPTORS,
    layers=st.lists(DESCRIPTORS, max_size=4),
    subject=st.none() | DESCRIPTORS,
    annotations=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)
FIELDS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations"]


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=100)
@given(MANIFESTS)
def test_a_manifest_keeps_its_bytes_and_is_read_back(manifest: Manifest) -> None:
    again = oci.parse_manifest(manifest.raw, media_types.OCI_MANIFEST)
    assert again == manifest
    assert again.digest == Digest.of(manifest.raw)
    assert again.descriptor() == Descriptor.of(media_types.OCI_MANIFEST, manifest.raw)
    spaced = json.dumps(json.loads(manifest.raw), indent=1).encode()
    assert oci.parse_manifest(spaced).raw == spaced


@settings(max_examples=100)
@given(st.lists(DESCRIPTORS, max_size=4), st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2))
def test_an_index_is_read_back(children: list[Descriptor], annotations: dict[str, str]) -> None:
    index = oci.write_index(children, annotations)
    assert oci.parse(index.raw) == index
    assert list(index.manifests) == children
    assert index.effective_artifact_type is None
    with pytest.raises(InvalidManifestError):
        oci.parse_manifest(index.raw)


@settings(max_examples=150)
@given(st.binary(max_size=100) | st.dictionaries(st.sampled_from(FIELDS), JSON).map(encode))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    result = attempt(lambda: oci.parse(raw))
    assert isinstance(result, MemcubeError) or result.raw == raw


@settings(max_examples=150)
@given(MANIFESTS, st.sampled_from(FIELDS), JSON)
def test_a_manifest_with_one_field_replaced_raises_only_our_errors(
    manifest: Manifest, key: str, value: object
) -> None:
    raw = encode(json.loads(manifest.raw) | {key: value})
    result = attempt(lambda: oci.parse(raw))
    assert isinstance(result, MemcubeError) or result.raw == raw


def sample(**changes: Any) -> bytes:
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": oci.EMPTY.to_json(),
        "layers": [],
    }
    return encode({key: item for key, item in (value | changes).items() if item is not ...})


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        sample(schemaVersion=1),
        sample(schemaVersion=True),
        sample(mediaType="text/plain"),
        sample(manifests=[]),
        sample(layers={}),
        sample(layers=[1]),
        sample(config=[]),
        sample(annotations={"a": 1}),
        sample(annotations=[]),
        sample(subject={"mediaType": "a/b"}),
        sample(config={**oci.EMPTY.to_json(), "size": -1}),
        sample(config={**oci.EMPTY.to_json(), "size": True}),
        sample(config={**oci.EMPTY.to_json(), "size": 1.5}),
        sample(config={**oci.EMPTY.to_json(), "size": "1"}),
        sample(config={**oci.EMPTY.to_json(), "mediaType": "no type"}),
        sample(config={**oci.EMPTY.to_json(), "mediaType": "a/b\n"}),
        sample(config={**oci.EMPTY.to_json(), "digest": "sha256:00"}),
        sample(mediaType=media_types.OCI_INDEX),
        sample(artifactType=1),
        sample(artifactType="no type"),
        sample(artifactType="a/b\0"),
        sample(artifactType="a/" + "b" * 200),
        encode({"schemaVersion": 2, "manifests": [], "artifactType": "a\0b/c"}),
    ],
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(MemcubeError) as caught:
        oci.parse(raw)
    assert caught.value.code in ("invalid-manifest", "invalid-json", "invalid-digest")


def test_a_manifest_delivered_under_another_type_is_refused() -> None:
    with pytest.raises(InvalidManifestError, match="delivered as"):
        oci.parse(sample(), media_types.OCI_INDEX)
    assert isinstance(oci.parse(sample(mediaType=...), media_types.OCI_MANIFEST), Manifest)
    assert isinstance(oci.parse(sample(mediaType=...)), Manifest)
    assert isinstance(oci.parse(encode({"schemaVersion": 2, "manifests": []})), Index)


def test_docker_manifests_are_read_as_their_twins() -> None:
    assert (
        oci.parse_manifest(sample(mediaType=oci.DOCKER_MANIFEST)).media_type in oci.MANIFEST_TYPES
    )


def test_the_limits_hold() -> None:
    layer = oci.EMPTY.to_json()
    full = oci.parse_manifest(sample(layers=[layer] * limits.MANIFEST_LAYERS))
    assert len(full.layers) == limits.MANIFEST_LAYERS
    with pytest.raises(LimitExceededError, match="8193"):
        oci.parse(sample(layers=[layer] * (limits.MANIFEST_LAYERS + 1)))
    with pytest.raises(LimitExceededError):
        oci.parse(b" " * limits.MANIFEST_BYTES + b"{}")


def test_blobs_and_artifact_type_are_those_of_the_specification() -> None:
    manifest = oci.parse_manifest(sample(layers=[oci.EMPTY.to_json()]))
    assert manifest.blobs == (oci.EMPTY, oci.EMPTY)
    assert manifest.effective_artifact_type == media_types.OCI_EMPTY
    assert oci.parse_manifest(sample(artifactType="a/b")).effective_artifact_type == "a/b"
