"""What MemDumper takes as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from memcube import MemDumper
from memcube_protocol.errors import InvalidRecordError


@pytest.mark.parametrize("told", ["One text alone.", {"id": "one", "text": "One record alone."}])
def test_a_single_record_is_refused_and_not_taken_for_its_letters_or_keys(
    tmp_path: Path, told: Any
) -> None:
    dumper = MemDumper(tmp_path / "agent", name="alice/agent")

    with pytest.raises(InvalidRecordError, match="as a list") as refused:
        dumper.add_records(told)

    assert refused.value.hint == "write add_records([…])"
    assert not (tmp_path / "agent" / "plaintext").exists()


def test_what_is_neither_a_text_nor_a_mapping_is_no_record_and_none_is_added(
    tmp_path: Path,
) -> None:
    dumper = MemDumper(tmp_path / "agent", name="alice/agent")
    told: Any = ["Good.", 3]

    with pytest.raises(InvalidRecordError, match="not int"):
        dumper.add_records(told)

    assert not (tmp_path / "agent" / "plaintext").exists()
