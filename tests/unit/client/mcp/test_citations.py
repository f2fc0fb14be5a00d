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
    if not record_id.startswith("memcube://") and record_id.partition("#")[0] not in CUBES:
        assert Citation.parse(record_id, CUBES) == Citation(record_id)


@pytest.mark.parametrize("cube", CUBES)
def test_a_cube_has_an_address(cube: str) -> None:
    assert cube_of_address(cube_address(cube)) == cube


def test_other_addresses_are_none_of_a_cube() -> None:
    with pytest.raises(NotFoundError):
        cube_of_address("https://acme.example")
