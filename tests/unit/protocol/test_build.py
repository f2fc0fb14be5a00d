"""Builds: manifests that refer to a cube and hold one memory for one more model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.build import Build, Made
from memcube_protocol.config import Memory
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidManifestError,
    MemcubeError,
    SizeMismatchError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.recipe import Evaluation, Recipe, Training

CUBE = Descriptor.of(media_types.OCI_MANIFEST, b"the cube's manifest")
FILES = tuple(
    CubeFile(f"parametric/lora/{name}", kind, Digest.of(name.encode()), len(name), "lora")
    for name, kind in (
        ("adapter_config.json", media_types.LORA_CONFIG),
        ("adapter_model.safetensors", media_types.LORA),
    )
)
MEMORY = Memory("lora", "parametric", tuple(f.digest for f in FILES), compatibility={"rank": 8})


def config_of(memory: Memory = MEMORY, version: str = "1.0") -> bytes:
    from memcube_protocol import canonical_json

    return canonical_json.dump({"mipVersion": version, "memory": memory.to_json()})


def manifest_of(raw: bytes, **changes: object) -> oci.Manifest:
    parts = {
        "artifact_type": media_types.BUILD,
        "config": Descriptor.of(media_types.BUILD_CONFIG, raw),
        "layers": [file.descriptor() for file in FILES],
        "subject": CUBE,
    }
    return oci.write_manifest(**{**parts, **changes})


def test_a_build_reads_back_and_leaves_the_cube_alone() -> None:
    build = Build.write(CUBE, MEMORY, FILES)
    again = Build.read(oci.parse_manifest(build.manifest.raw), config_of())
    assert again == build
    assert again.subject.digest == CUBE.digest
    assert again.files == FILES
    assert Build.write(CUBE, MEMORY, FILES).digest == build.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact_type": media_types.CUBE},
        {"subject": None},
        {"config": Descriptor.of(media_types.CONFIG, config_of())},
        {"layers": [FILES[0].descriptor()]},
        {"layers": [replace(file, memory="other").descriptor() for file in FILES]},
        {
            "layers": [
                replace(FILES[0], path="a.safetensors", media_type=media_types.KV).descriptor()
            ]
        },
    ],
    ids=[
        "a cube",
        "no subject",
        "a cube's config",
        "a layer less",
        "another memory",
        "another kind",
    ],
)
def test_a_manifest_that_is_no_build_is_refused(changes) -> None:
    with pytest.raises(InvalidManifestError):
        Build.read(manifest_of(config_of(), **changes), config_of())


def test_another_config_than_the_named_one_is_refused() -> None:
    with pytest.raises(SizeMismatchError):
        Build.read(manifest_of(config_of()), config_of(replace(MEMORY, title="other")))
    with pytest.raises(DigestMismatchError):
        Build.read(manifest_of(config_of()), config_of().replace(b'"rank":8', b'"rank":9'))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", config_of(version="2.0"), config_of()[:-1] + b',"x":1}']
)
def test_a_malformed_config_is_refused(raw) -> None:
    with pytest.raises(MemcubeError):
        Build.read(manifest_of(raw), raw)


def test_a_plaintext_memory_without_a_recipe_is_no_build() -> None:
    memory = Memory("notes", "plaintext", (), records=0)
    with pytest.raises(InvalidManifestError, match="no recipe"):
        Build.write(CUBE, memory, ())


RECIPE = Recipe(
    method="distil",
    parent=CUBE.digest,
    source="plaintext",
    memory="lora",
    as_of=datetime(2026, 11, 27, tzinfo=UTC),
    training=Training(),
)
MADE = Made(RECIPE, Evaluation(8, 1, 8, 8, 0, (3.5, 3.6)), {"torch": "2.13.0", "device": "cpu"})


def test_how_a_build_was_made_is_part_of_it() -> None:
    build = Build.write(CUBE, MEMORY, FILES, MADE)
    assert Build.read(build.manifest, build.config) == build
    assert build.made == MADE
    assert build.digest != Build.write(CUBE, MEMORY, FILES).digest


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, parent=Digest.of(b"another cube")),
        replace(RECIPE, memory="other"),
        replace(RECIPE, method="encode", training=None),
    ],
    ids=["another cube", "another id", "another kind"],
)
def test_a_recipe_of_something_else_is_refused(recipe) -> None:
    with pytest.raises(InvalidManifestError, match="recipe"):
        Build.write(CUBE, MEMORY, FILES, Made(recipe))


@pytest.mark.parametrize(
    "environment",
    [{"torch": ""}, {"a\nb": "1"}, {"torch": "2\u202e"}, {str(n): "1" for n in range(33)}],
)
def test_an_environment_that_does_not_show_as_it_reads_is_refused(environment) -> None:
    with pytest.raises(MemcubeError):
        Build.write(CUBE, MEMORY, FILES, Made(RECIPE, None, environment))
