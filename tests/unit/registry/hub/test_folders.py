"""The canonical folder: safe to write, or empty; remembered within bounds."""

from __future__ import annotations

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.oci import Descriptor
from memcube_registry.hub.folders import Folder, Folders, folder_of


def manifest_of(*titles: str | None) -> oci.Manifest:
    layers = [
        Descriptor.of(
            "text/plain", str(number).encode(), {media_types.TITLE: title} if title else {}
        )
        for number, title in enumerate(titles)
    ]
    return oci.write_manifest(artifact_type="application/x", config=oci.EMPTY, layers=layers)


def read(folders: Folders, manifest: oci.Manifest) -> Folder:
    return folders.of(str(manifest.digest), manifest.media_type, lambda: manifest.raw)


def test_layers_with_titles_are_its_files() -> None:
    made = manifest_of("b/x.txt", None, "a.txt")
    assert list(folder_of(made)) == ["a.txt", "b/x.txt"]
    found, layer = folder_of(made)["a.txt"], made.layers[2]
    assert (found.media_type, found.digest, found.size) == (
        layer.media_type,
        layer.digest,
        layer.size,
    )


@pytest.mark.parametrize(
    "titles",
    [
        ("../x", "ok"),
        ("/etc/passwd",),
        ("a/./b",),
        ("a\\b",),
        ("same", "same"),
        ("A.txt", "a.txt"),
        ("a", "a/b"),
        ("line\nbreak",),
    ],
)
def test_titles_that_no_folder_can_have_leave_it_empty(titles: tuple[str, ...]) -> None:
    assert folder_of(manifest_of(*titles)) == {}


def test_an_index_has_no_files() -> None:
    assert folder_of(oci.write_index([manifest_of("a").descriptor()])) == {}


def test_a_folder_is_read_once() -> None:
    folders, made = Folders(), manifest_of("a")
    assert read(folders, made) is read(folders, made)


def test_what_was_not_asked_for_lately_is_forgotten() -> None:
    folders = Folders(files_kept=6)
    first, second, third = (manifest_of(f"{name}1", f"{name}2") for name in "abc")
    held = read(folders, first)
    read(folders, second)
    assert read(folders, first) is held
    read(folders, third)
    assert read(folders, first) is held
    assert folders._held <= 6
