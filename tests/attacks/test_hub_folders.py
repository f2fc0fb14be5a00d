"""Attacks on the registry's memory through folders that its routes for the Hub's clients show."""

from __future__ import annotations

from datetime import UTC, datetime

from memcube_protocol import limits, media_types, oci
from memcube_protocol.oci import Descriptor, Manifest
from memcube_registry.hub import showing
from memcube_registry.hub.folders import FOLDERS_AT_MOST, Folders, folder_of
from memcube_registry.hub.service import Snapshot

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


def manifest_of(*titles: str, **annotations: str) -> Manifest:
    layers = [
        Descriptor.of("text/plain", b"x", {media_types.TITLE: title, **annotations})
        for title in titles
    ]
    return oci.write_manifest(artifact_type="application/x", config=oci.EMPTY, layers=layers)


def test_a_tree_of_many_times_more_folders_than_files_is_not_built() -> None:
    """A manifest of 4 MiB could name almost two million folders, which is gigabytes for one request."""
    deep = "/".join("f" * 500)
    assert folder_of(manifest_of(*(f"{n}/{deep}" for n in range(FOLDERS_AT_MOST // 500 + 1)))) == {}


def test_files_deep_in_one_folder_cost_no_more_than_their_number() -> None:
    deep = "/".join("f" * 500)
    made = manifest_of(*(f"{deep}/{n}" for n in range(200)))
    files = folder_of(made)
    snapshot = Snapshot("ada/x", made.digest, files, False, MOMENT, MOMENT)
    assert len(files) == 200
    assert len(showing.entries(snapshot, "", recursive=True)) == 200 + 500
    assert len(showing.entries_at(snapshot, ["f", f"{deep}/7", "g"])) == 2


def test_the_words_of_a_manifest_are_not_kept_once_its_files_are_known() -> None:
    made = manifest_of("a.txt", note="x" * limits.MIB)
    (layer,) = Folders().of(str(made.digest), made.media_type, lambda: made.raw).values()
    assert (layer.digest, layer.size) == (made.layers[0].digest, 1)
    assert layer.annotations == {}
