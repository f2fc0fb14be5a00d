"""`oci:FOLDER[:TAG]`: how places in folders are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.copying.oci_layout import LayoutPlace
from memcube_protocol.errors import InvalidReferenceError

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
