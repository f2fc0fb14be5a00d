from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.importers import read_jsonl
from memcube_protocol.errors import (
    InvalidJsonError,
    InvalidRecordError,
    MemcubeError,
    NotFoundError,
)
from memcube_protocol.records import Record, parse_record, write_record
from support.attempts import attempt
from support.memories import note


def test_records_are_read_as_they_are(tmp_path: Path) -> None:
    records = [note(1, tags=("a",)), note(2, confidence=0.5)]
    (tmp_path / "b.jsonl").write_bytes(write_record(records[0]) + b"\n\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.jsonl").write_bytes(write_record(records[1]))
    imported = read_jsonl(tmp_path)
    assert list(imported.records) == records
    assert imported.report.records == 2
    assert imported.report.notes == []


def test_objects_of_other_making_become_records(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        '{"content":"Tea is green.","id":7,"type":"opinion","score":3,"created_at":"2026-01-01T00:00:00+01:00"}\n'
        '{"memory":"No id.","confidence":80,"api_key":"sk-very-secret","big":123456789012345678901}\n'
    )
    imported = read_jsonl(file)
    one, two = imported.records
    assert one == Record(
        id="7",
        text="Tea is green.",
        created_at="2025-12-31T23:00:00Z",
        extensions={"jsonl": {"score": 3, "type": "opinion"}},
    )
    assert two.id.startswith("sha256-")
    assert two.confidence == 0.8
    assert two.extensions == {"jsonl": {"confidence": 80, "big": "123456789012345678901"}}
    assert imported.report.secrets == [f"{two.id}.api_key"]
    assert "sk-very-secret" not in repr(imported.report)
    assert "content is taken for the text" in imported.report.notes


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"id":"a"}', InvalidRecordError),
        ('["text"]', InvalidJsonError),
        ("not json", InvalidJsonError),
        ('{"text":"a","id":[1]}', InvalidRecordError),
    ],
)
def test_a_line_that_cannot_become_a_record_is_named(
    tmp_path: Path, line: str, error: type[Exception]
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text":"fine"}}\n{line}\n')
    with pytest.raises(error, match=r"a\.jsonl, line 2"):
        list(read_jsonl(file).records)


def test_an_empty_folder_is_no_import(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_jsonl(tmp_path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"text":"a secret"}')
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(NotFoundError):
        read_jsonl(folder)


FIELDS = st.sampled_from(
    [
        "id",
        "text",
        "content",
        "type",
        "tags",
        "source",
        "confidence",
        "created_at",
        "extensions",
        "x",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3),
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(FIELDS, VALUES, max_size=7))
def test_any_object_becomes_a_valid_record_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]
) -> None:
    file = tmp_path_factory.mktemp("lines") / "a.jsonl"
    file.write_text(json.dumps(value))
    records = attempt(lambda: list(read_jsonl(file).records))
    if not isinstance(records, MemcubeError):
        for record in records:
            assert parse_record(write_record(record)) == record
