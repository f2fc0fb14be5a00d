"""`oci:FOLDER[:TAG]`: how places in folders are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.client import Client
from memcube.copying.oci_layout import LayoutPlace
from memcube.settings import Settings
from memcube_protocol.errors import InvalidReferenceError, NotFoundError

TAGS = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,20}\Z")
FOLDERS = st.from_regex(r"\A/?[a-z0-9 ._-]+(/[a-z0-9 ._-]+){0,3}\Z")


@pytest.mark.parametrize(
    ("text", "folder", "tag"),
    [
        ("oci:notes", "notes", None),
        ("oci:/media/stick/notes", "/media/stick/notes", None),
        ("oci:/media/stick:1.0.0", "/media/stick", "1.0.0"),
        ("oci:a:b/c", "a:b/c", None),
        ("oci:a:b/c:latest", "a:b/c", "latest"),
    ],
)
def test_what_follows_the_last_colon_is_a_tag_if_it_can_be_one(
    text: str, folder: str, tag: str | None
) -> None:
    assert LayoutPlace.parse(text) == LayoutPlace(Path(folder), tag)


@given(FOLDERS, TAGS)
def test_a_place_is_read_as_it_is_written(folder: str, tag: str) -> None:
    place = LayoutPlace(Path(folder), tag)
    assert LayoutPlace.parse(str(place)) == place


@pytest.mark.parametrize("text", ["oci:", "oci::1.0.0", "notes", "OCI:notes", ""])
def test_what_names_no_folder_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        LayoutPlace.parse(text)


def test_a_folder_that_is_absent_is_told_from_an_empty_one(tmp_path: Path) -> None:
    with Client(Settings.load({"MEMCUBE_HOME": str(tmp_path / "home")})) as client:
        with pytest.raises(NotFoundError, match="there is no folder"):
            client.cp(f"oci:{tmp_path / 'absent'}", "localhost:9/alice/notes")
        with pytest.raises(InvalidReferenceError, match="holds no cubes"):
            client.cp(f"oci:{tmp_path}", "localhost:9/alice/notes")
