"""A cube's manifest, config and files agree, or it is refused."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import canonical_json, limits, media_types, oci
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    ForbiddenMediaTypeError,
    InvalidManifestError,
    InvalidRequestError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    SizeMismatchError,
    UnsafePathError,
)
from memcube_protocol.selection import Selection

RECORDS = CubeFile(
    "plaintext/a.jsonl.zst", media_types.RECORDS, Digest.of(b"records"), 7, "plaintext"
)
LORA = CubeFile("parametric/l/a.safetensors", media_types.LORA, Digest.of(b"lora"), 4, "l")
KV = CubeFile("activation/k/kv.safetensors", media_types.KV, Digest.of(b"kv"), 2, "k")
CARD = CubeFile("README.md", media_types.CARD, Digest.of(b"card"), 4)
PICTURE = CubeFile(
    "attachments/a.png",
    media_types.ATTACHMENT,
    Digest.of(b"png"),
    3,
    details={media_types.ATTACHMENT_TYPE: "image/png"},
)
FILES = (CARD, RECORDS, KV, LORA, PICTURE)
BASE = "mip1-base:" + "0" * 64


def a_config(**changes: Any) -> CubeConfig:
    memories = (
        Memory("plaintext", "plaintext", (RECORDS.digest,), records=1),
        Memory("k", "activation", (KV.digest,), compatibility={"baseIdentity": BASE}),
        Memory("l", "parametric", (LORA.digest,), compatibility={"base": {"model": "org/m"}}),
    )
    values = {"memories": memories, **changes}
    return CubeConfig("alice/notes", "1.0.0", datetime(2026, 1, 1, tzinfo=UTC), **values)


def a_cube() -> Cube:
    return Cube.write(a_config(), FILES)


def test_a_cube_reads_back_what_it_writes() -> None:
    cube = a_cube()
    again = Cube.read(oci.parse_manifest(cube.manifest.raw), cube.config.write())
    assert again == cube
    assert again.files == FILES
    assert again.files_of("plaintext") == (RECORDS,)


def test_the_same_parts_give_the_same_digest() -> None:
    assert a_cube().digest == a_cube().digest


def test_a_blob_that_stands_twice_counts_once() -> None:
    twin = CubeFile("attachments/b.png", PICTURE.media_type, PICTURE.digest, PICTURE.size)
    twice = Cube.write(a_config(), (*FILES, twin))
    one = a_cube()
    assert twice.size - len(twice.manifest.raw) == one.size - len(one.manifest.raw)


def test_every_layer_says_its_path_and_memory() -> None:
    for layer in a_cube().manifest.layers:
        assert layer.annotations[media_types.TITLE] == layer.annotations[media_types.FILEPATH]
        assert layer.annotations[media_types.MEMORY]


def test_a_config_of_other_bytes_is_refused() -> None:
    config = a_config().write()
    with pytest.raises(SizeMismatchError):
        Cube.read(a_cube().manifest, config + b" ")
    with pytest.raises(DigestMismatchError):
        Cube.read(a_cube().manifest, config[::-1])


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("../evil", UnsafePathError),
        ("/etc/passwd", UnsafePathError),
        ("a//b", UnsafePathError),
        ("con", UnsafePathError),
        ("a\\b", UnsafePathError),
        ("", UnsafePathError),
    ],
)
def test_a_file_of_an_unsafe_name_cannot_be_made(path: str, error: type[MemcubeError]) -> None:
    with pytest.raises(error):
        CubeFile(path, media_types.CARD, Digest.of(b""), 0)


def test_a_media_type_that_is_not_listed_cannot_be_made() -> None:
    with pytest.raises(ForbiddenMediaTypeError):
        CubeFile("a.pkl", "application/octet-stream", Digest.of(b""), 0)


@pytest.mark.parametrize(
    "files",
    [
        FILES[1:-1][:1],
        (*FILES, CubeFile("readme.MD", media_types.CARD, Digest.of(b"x"), 1)),
        (*FILES, CubeFile("x.safetensors", media_types.KV, Digest.of(b"x"), 1, "unknown")),
        (*FILES, CubeFile("x.safetensors", media_types.KV, Digest.of(b"x"), 1, "l")),
        (*FILES, CubeFile("x.safetensors", media_types.LORA, Digest.of(b"x"), 1)),
        (*FILES, CubeFile("x.jsonl.zst", media_types.RECORDS, Digest.of(b"x"), 1, "plaintext")),
    ],
    ids=["missing", "colliding", "no memory", "wrong kind", "wrong for the cube", "unnamed"],
)
def test_files_that_the_config_does_not_describe_are_refused(files: tuple[CubeFile, ...]) -> None:
    with pytest.raises((InvalidManifestError, UnsafePathError)):
        Cube.write(a_config(), files)


def test_more_files_than_a_manifest_may_name_are_refused() -> None:
    many = [
        CubeFile(f"attachments/{n}.png", PICTURE.media_type, PICTURE.digest, 3)
        for n in range(limits.MANIFEST_LAYERS + 1)
    ]
    with pytest.raises(LimitExceededError):
        Cube.write(a_config(memories=()), many)


def changed(**changes: Any) -> oci.Manifest:
    value = {**json.loads(a_cube().manifest.raw), **changes}
    return oci.parse_manifest(canonical_json.dump(value))


@pytest.mark.parametrize(
    "changes",
    [
        {"artifactType": media_types.BUILD},
        {"artifactType": "application/vnd.cncf.model.manifest.v1+json"},
        {"subject": a_cube().manifest.config.to_json()},  # type: ignore[union-attr]
        {"config": oci.EMPTY.to_json()},
        {"layers": []},
        {"layers": [oci.EMPTY.to_json()]},
    ],
    ids=["a build", "a model", "a subject", "no config", "no layers", "nameless layer"],
)
def test_a_manifest_that_is_no_cube_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifestError):
        Cube.read(changed(**changes), a_config().write())


def test_two_paths_of_one_layer_are_refused() -> None:
    layers = json.loads(a_cube().manifest.raw)["layers"]
    layers[0]["annotations"][media_types.FILEPATH] = "elsewhere"
    with pytest.raises(InvalidManifestError):
        Cube.read(changed(layers=layers), a_config().write())


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ([], FILES),
        (["kind=plaintext"], (CARD, RECORDS)),
        (["kind=plaintext,parametric"], (CARD, RECORDS, LORA)),
        (["kind=plaintext", "kind=attachment"], (CARD, RECORDS, PICTURE)),
        (["kind=card"], (CARD,)),
        (["memory=l"], (CARD, LORA)),
        (["memory=l", "kind=plaintext"], (CARD,)),
        (["model=org/m"], (CARD, RECORDS, LORA)),
        ([f"model={BASE}"], (CARD, RECORDS, KV)),
        (["model=other"], (CARD, RECORDS)),
        (["model=org/m", "kind=parametric"], (CARD, LORA)),
    ],
    ids=str,
)
def test_a_filter_leaves_only_what_is_wanted(
    filters: list[str], wanted: tuple[CubeFile, ...]
) -> None:
    assert Selection.parse(filters).of(a_cube()) == wanted


@pytest.mark.parametrize("text", ["", "kind", "kind=", "kind=visual", "size=1", "=x", "kind=,"])
def test_a_filter_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        Selection.parse([text])


def test_a_memory_that_the_cube_lacks_is_said_to_be_absent() -> None:
    with pytest.raises(NotFoundError, match="no memory 'x'"):
        Selection.parse(["memory=x"]).of(a_cube())


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_as_a_filter_raises_only_our_errors(text: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        Selection.parse([text])
