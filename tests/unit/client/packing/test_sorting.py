"""Sorting records with constant memory: the order of shards, and every id once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.packing.sorting import RecordSorter
from memcube_protocol.errors import InvalidRecordError
from memcube_protocol.records import Record, parse_record

ids = st.text(alphabet="abzA09é中😀", min_size=1, max_size=12)


@settings(max_examples=50)
@given(st.lists(ids, unique=True, max_size=30))
def test_records_come_back_in_the_order_of_shards(names: list[str]) -> None:
    records = [Record(id=name, text=f"about {name}") for name in names]
    with RecordSorter() as sorter:
        sorter.add(records, origin="here")
        found = list(sorter.lines())
    assert sorter.count == len(records)
    assert sorter.size == sum(len(line) + 1 for _, line in found)
    assert [name for name, _ in found] == sorted(names)
    assert [parse_record(line).id for _, line in found] == sorted(names)
    assert sorted(names) == sorted(names, key=str.encode)


def test_an_id_twice_names_where_it_came_again() -> None:
    with RecordSorter() as sorter:
        sorter.add([Record(id="a", text="x")], origin="one.jsonl")
        with pytest.raises(InvalidRecordError, match=r"two\.jsonl holds a second record 'a'"):
            sorter.add([Record(id="a", text="y")], origin="two.jsonl")
