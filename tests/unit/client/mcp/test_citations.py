"""Citations: every record of every cube has one name, and every name leads back to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.mcp.citations import Citation, cube_address, cube_of_address
from memcube_protocol.errors import NotFoundError

CUBES = ["acme/a:1.0.0", "localhost:5000/acme/a:1.0.0@sha256:" + "0" * 64, "notes"]
record_ids = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters='"<>[]\\^`{|}'), min_size=1
)


@given(record_ids, st.sampled_from(CUBES))
def test_both_spellings_of_a_citation_lead_back_to_it(record_id: str, cube: str) -> None:
    citation = Citation(record_id, cube)
    assert Citation.parse(str(citation), CUBES) == citation
    assert Citation.parse(citation.address, CUBES) == citation


@given(record_ids)
def test_a_bare_id_names_no_cube(record_id: str) -> None:
    if not record_id.startswith("memcube://") and "#" not in record_id:
        assert Citation.parse(record_id, CUBES) == Citation(record_id)


@pytest.mark.parametrize(
    "name", ["notes/day#plan", "day.md#plan", "#plan", "https://acme.example/#plan"]
)
def test_a_bare_id_may_hold_a_hash(name: str) -> None:
    assert Citation.parse(name, CUBES) == Citation(name)


@pytest.mark.parametrize(
    "cube", ["acme/b:1.0.0", f"acme/b@sha256:{'0' * 64}", "localhost:5000/b:1"]
)
def test_what_cites_a_cube_that_is_not_mounted_is_no_bare_id(cube: str) -> None:
    assert Citation.parse(f"{cube}#plan", CUBES) == Citation("plan", cube)


@pytest.mark.parametrize("cube", CUBES)
def test_a_cube_has_an_address(cube: str) -> None:
    assert cube_of_address(cube_address(cube)) == cube


def test_other_addresses_are_none_of_a_cube() -> None:
    with pytest.raises(NotFoundError):
        cube_of_address("https://acme.example")
