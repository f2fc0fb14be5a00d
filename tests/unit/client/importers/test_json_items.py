from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.importers import json_items
from memcube.importers.foreign import record_id, storable, without_secrets
from memcube.importers.json_items import items
from memcube.importers.report import ImportReport
from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidJsonError, LimitExceededError, NotFoundError
from memcube_protocol.records import require_id

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@settings(max_examples=100)
@given(
    st.lists(VALUES, max_size=5) | st.dictionaries(st.text(max_size=5), VALUES, max_size=5),
    st.integers(1, 9),
)
def test_items_are_those_of_the_whole_document(
    tmp_path_factory: pytest.TempPathFactory, value: object, piece: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_items, "_PIECE_CHARS", piece)
        found = list(items(path))
    if isinstance(value, list):
        assert found == [("", item) for item in value]
    else:
        assert isinstance(value, dict)
        expected = [
            (key, item)
            for key, inner in value.items()
            for item in (inner if isinstance(inner, list) else [inner])
        ]
        assert found == expected


def test_an_item_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "ITEM_CHARS", 1000)
    monkeypatch.setattr(json_items, "_PIECE_CHARS", 100)
    path = tmp_path / "a.json"
    path.write_text('["' + "x" * 10_000)
    with pytest.raises(LimitExceededError):
        list(items(path))


def test_other_encodings_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(InvalidJsonError):
        list(items(path))
    with pytest.raises(NotFoundError):
        list(items(tmp_path / "b.json"))


@settings(max_examples=200)
@given(st.text(min_size=1, max_size=300))
def test_any_text_becomes_one_valid_id(text: str) -> None:
    identity = record_id(text)
    require_id(identity)
    assert record_id(identity) == identity or len(identity) > 150
    assert record_id(text) == identity


@settings(max_examples=100)
@given(VALUES | st.floats() | st.integers(2**53, 2**80))
def test_whatever_json_gave_can_be_stored_canonically(value: object) -> None:
    line = canonical_json.dump({"x": storable(value)})
    assert canonical_json.parse_object(line)


def test_a_million_colons_behind_an_address_are_no_password_and_take_no_hours() -> None:
    report = ImportReport("test")
    value = ["https://" + "a:" * 500_000, "https://ann:secret@example.org/"]
    assert without_secrets(value, report, "r-1") == [value[0], "https://example.org/"]
