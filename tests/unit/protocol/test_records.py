from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import canonical_json, limits, records
from memcube_protocol.errors import (
    InvalidJsonError,
    InvalidRecordError,
    LimitExceededError,
    MemcubeError,
)
from memcube_protocol.records import (
    Record,
    Relation,
    Source,
    parse_record,
    read_lines,
    write_record,
)
from support.attempts import attempt
from support.memories import RECORDS, VALUES, note


@settings(max_examples=300)
@given(RECORDS)
def test_a_record_is_read_back_and_its_line_is_rfc_8785(record: Record) -> None:
    line = write_record(record)
    assert parse_record(line) == parse_record(line, canonical=True) == record
    assert line == canonical_json.dump(json.loads(line))
    assert b"\n" not in line
    spaced = json.dumps(json.loads(line), indent=1, ensure_ascii=True).encode()
    assert write_record(parse_record(spaced)) == line


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_random_bytes_raise_only_our_errors(line: bytes) -> None:
    assert isinstance(attempt(lambda: parse_record(line)), MemcubeError)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*sorted(records._NAMES), "x"]), VALUES, max_size=4))
def test_any_object_is_a_record_or_raises_only_our_errors(fields: dict[str, Any]) -> None:
    line = json.dumps({"id": "a", "text": "b"} | fields).encode()
    result = attempt(lambda: parse_record(line))
    assert isinstance(result, MemcubeError) or parse_record(write_record(result)) == result
    strict = attempt(lambda: parse_record(line, canonical=True))
    if isinstance(result, Record) and write_record(result) == line:
        assert strict == result
    else:
        assert isinstance(strict, MemcubeError)


def test_the_example_of_the_specification_is_canonical() -> None:
    line = next(text.strip() for text in (records.__doc__ or "").splitlines() if "Ada" in text)
    assert write_record(parse_record(line.encode())) == line.encode()


def test_numbers_at_the_edge_of_the_fast_path_are_written_as_rfc_8785_wants() -> None:
    for confidence, written in (
        (1e-5, b"0.00001"),
        (1e-7, b"1e-7"),
        (0.0, b"0"),
        (1.0, b"1"),
        (1e-4, b"0.0001"),
    ):
        line = write_record(Record(id="a", text="b", confidence=confidence))
        assert b'"confidence":' + written + b"," in line


def test_the_fields_of_a_full_record_are_all_kept() -> None:
    record = Record(
        id="m-1",
        text="Ada is vegetarian.\nShe likes tea.",
        type="preference",
        source=Source(system="chat", conversation="c-9"),
        relations=(Relation(type="about", target="ada", valid_to="2026-01-01T00:00:00Z"),),
        extensions={"acme": {"deep": [{"er": None}]}},
        confidence=0.25,
        version=3,
    )
    value = json.loads(write_record(record))
    assert value["source"] == {"system": "chat", "conversation": "c-9"}
    assert value["relations"] == [
        {"type": "about", "target": "ada", "valid_to": "2026-01-01T00:00:00Z"}
    ]
    assert value["extensions"] == {"acme": {"deep": [{"er": None}]}}
    assert "tags" not in value


REFUSED: list[dict[str, Any]] = [
    {"id": None},
    {"id": 1},
    {"id": ""},
    {"id": "a b"},
    {"id": "a]"},
    {"id": "a" * 201},
    {"id": "a\u202eb"},
    {"id": "a\U000e0101\U000e0102"},
    {"id": "a\u3164b\u115f"},
    {"id": "m-1,\u2800cube"},
    {"id": "a\u180b\u180c"},
    {"id": "e\u0301"},
    {"text": ""},
    {"text": None},
    {"text": 1},
    {"type": "opinion"},
    {"type": "Acme:recipe"},
    {"type": "acme:"},
    {"subject": ""},
    {"created_at": "2026-01-01"},
    {"created_at": 1},
    {"source": {}},
    {"source": {"system": None}},
    {"source": {"who": "x"}},
    {"source": "chat"},
    {"source": {"system": 1}},
    {"tags": []},
    {"tags": "a"},
    {"tags": ["a", "a"]},
    {"tags": [1]},
    {"tags": [[]]},
    {"tags": [{"a": 1}]},
    {"entities": [""]},
    {"tags": ["a" * 1025]},
    {"tags": [str(n) for n in range(1025)]},
    {"relations": [{"type": "a"}]},
    {"relations": [{"type": "a", "target": "b", "weight": 1}]},
    {"relations": [{"type": "a", "target": "b", "valid_from": "now"}]},
    {"relations": [{"type": "a", "target": ["b"]}]},
    {"relations": [{"type": {}, "target": "b"}]},
    {"confidence": 1.01},
    {"confidence": -0.1},
    {"confidence": True},
    {"confidence": "1"},
    {"sensitivity": "secret"},
    {"sensitivity": []},
    {"status": "gone"},
    {"status": {}},
    {"version": 0},
    {"version": 1.5},
    {"version": True},
    {"supersedes": ["a b"]},
    {"attachments": ["../x"]},
    {"attachments": ["/x"]},
    {"extensions": []},
    {"extensions": {"Acme": {}}},
    {"extensions": {"acme": 1}},
    {"colour": "red"},
]


@pytest.mark.parametrize("fields", REFUSED, ids=json.dumps)
def test_a_field_that_breaks_its_rule_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MemcubeError) as caught:
        parse_record(json.dumps({"id": "a", "text": "b"} | fields).encode())
    assert caught.value.code in ("invalid-record", "unsafe-path")
    assert caught.value.hint


def test_an_unknown_field_is_refused_with_the_place_where_it_belongs() -> None:
    with pytest.raises(InvalidRecordError, match="colour") as caught:
        parse_record(b'{"id":"a","text":"b","colour":"red"}')
    assert "extensions.<system>" in str(caught.value.hint)


@pytest.mark.parametrize("line", [b'{"id":"a"}', b'{"text":"b"}', b"{}"])
def test_id_and_text_are_required(line: bytes) -> None:
    with pytest.raises(InvalidRecordError, match="at least an id and a text"):
        parse_record(line)


def test_a_record_refuses_invalid_states_when_made_in_code() -> None:
    with pytest.raises(InvalidRecordError):
        Record(id="a", text="b", tags=["a list"])  # type: ignore[arg-type]
    with pytest.raises(InvalidRecordError):
        Record(id="a", text="b", source="chat")  # type: ignore[arg-type]
    with pytest.raises(InvalidJsonError):
        write_record(Record(id="a", text="b", extensions={"acme": {"x": float("nan")}}))


def test_the_limit_of_a_record_holds_when_read_and_when_written() -> None:
    overhead = len(write_record(Record(id="a", text="b"))) - 1
    largest = Record(id="a", text="x" * (limits.RECORD_BYTES - overhead))
    line = write_record(largest)
    assert len(line) == limits.RECORD_BYTES
    assert parse_record(line) == largest
    with pytest.raises(LimitExceededError):
        write_record(Record(id="a", text=largest.text + "x"))
    with pytest.raises(LimitExceededError):
        parse_record(line[:-2] + b'x"}')


@settings(max_examples=60)
@given(
    st.lists(RECORDS, unique_by=lambda record: record.id, max_size=5),
    st.integers(1, 50),
    st.booleans(),
)
def test_lines_are_read_however_they_are_cut(
    expected: list[Record], piece: int, ended: bool
) -> None:
    content = b"\n".join(map(write_record, expected)) + (b"\n" if ended and expected else b"")
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
    assert list(read_lines(pieces)) == expected
    assert list(read_lines(BytesIO(content))) == expected
    assert list(read_lines(BytesIO(content.replace(b"\n", b"\r\n\n \r\n")))) == expected


def test_errors_name_the_source_and_the_line() -> None:
    content = write_record(note(1)) + b"\n\n" + b'{"id":"x"}\n'
    with pytest.raises(InvalidRecordError, match=r"notes\.jsonl, line 3: .*id and a text"):
        list(read_lines([content], what="notes.jsonl"))


def test_an_id_that_stands_twice_is_refused_with_both_lines() -> None:
    line = write_record(note(1)) + b"\n"
    with pytest.raises(InvalidRecordError, match=r"line 2: .* stands in line 1 already"):
        list(read_lines([line, line]))
    assert len(list(read_lines([line, line], unique=False))) == 2


def test_a_line_without_end_is_given_up_after_the_limit() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 65536
            yield b"x" * 65536

    with pytest.raises(LimitExceededError, match="line 1"):
        list(read_lines(endless()))
    assert taken <= limits.RECORD_BYTES + 2 * 65536


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":"a","text":"b"}',
        b'{"id":"a","text":"b","type":"fact"}\n',
        b'{"id":"a", "text":"b","type":"fact"}',
        b'{"text":"b","id":"a","type":"fact"}',
        b'{"confidence":1.0,"id":"a","text":"b","type":"fact"}',
        b'{"confidence":0.50,"id":"a","text":"b","type":"fact"}',
        b'{"confidence":1e-7,"id":"a","text":"b","type":"fact" }',
        b'{"id":"a","text":"\\u0062","type":"fact"}',
        b'{"extensions":{"a":{"x":1.0}},"id":"a","text":"b","type":"fact"}',
    ],
)
def test_another_spelling_is_a_record_but_not_a_canonical_one(line: bytes) -> None:
    parse_record(line)
    with pytest.raises(InvalidRecordError, match="canonical form"):
        parse_record(line, canonical=True)
