"""The folder of a new memory: of an id that a cube can be packed with, and of none that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from memcube.memories.making import new_folder
from memcube_protocol.errors import ConflictError, InvalidConfigError


@pytest.mark.parametrize("name", ["bad id!", "", "a/b", "..", "Handbook", "a\nb", "a" * 65, "a-"])
def test_an_id_that_no_cube_could_be_packed_with_is_refused_before_anything_is_computed(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError, match="is not the id of a memory") as refused:
        new_folder(tmp_path, name)
    assert "lower-case letters" in str(refused.value.hint)


def test_a_memory_that_is_there_is_named_with_its_folder(tmp_path: Path) -> None:
    target = new_folder(tmp_path, "handbook")
    assert not target.exists()
    target.mkdir()
    with pytest.raises(ConflictError, match="'handbook' exists") as refused:
        new_folder(tmp_path, "handbook")
    assert str(target) in str(refused.value)
