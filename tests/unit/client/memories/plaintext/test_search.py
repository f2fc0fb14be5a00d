"""Filters, neighbours, diversity, and the order of what is found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.memories.plaintext.build import Survey
from memcube.memories.plaintext.engine import Match
from memcube.memories.plaintext.filters import allows
from memcube.memories.plaintext.index import Diversity, Filters, PlaintextIndex
from memcube.memories.plaintext.ranking import CANDIDATES, best, fuse
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, NotFoundError
from memcube_protocol.records import Relation, Source
from support.memories import note

pytest.importorskip("qdrant_edge")

CUBE = Digest.of(b"a cube")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = datetime(2027, 6, 1, tzinfo=UTC)
WIKI = Source(system="wiki", uri="https://wiki.example/tea", author="ada")
CHAT = Source(system="chat", conversation="c-7")


def leads(target: int, kind: str = "next", **times: str) -> Relation:
    return Relation(type=kind, target=note(target).id, **times)


RECORDS = [
    note(1, "tea is green", source=WIKI, relations=(leads(2), leads(4, "cites"))),
    note(2, "tea is black", source=WIKI, relations=(leads(3),)),
    note(3, "tea is white", source=CHAT, relations=(leads(1), leads(99))),
    note(4, "tea is cold", source=CHAT, valid_from="2027-01-01T00:00:00Z"),
    note(5, "tea was dear", valid_to="2026-01-01T00:00:00Z"),
    note(6, "tea is free", expires_at="2026-12-01T00:00:00Z", sensitivity="internal"),
    note(7, "tea is a drink of leaves", relations=(leads(1, valid_to="2026-05-01T00:00:00Z"),)),
    note(8, "tea is put away", status="archived", relations=(leads(1),)),
    note(9, "coffee is strong", sensitivity="restricted", relations=(leads(2, "rival"),)),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaintextIndex]:
    with PlaintextIndex.open(tmp_path_factory.mktemp("tea"), CUBE, lambda: RECORDS) as index:
        yield index


def numbers(index: PlaintextIndex, query: str = "tea", **filters: object) -> set[int]:
    hits = index.search(query, 10, Filters(**filters), now=NOW)  # type: ignore[arg-type]
    return {int(hit.record.id[-7:]) for hit in hits}


def around(index: PlaintextIndex, start: int, **asked: object) -> list[tuple[int, str, int, bool]]:
    found = index.neighbours(note(start).id, **{"now": NOW, **asked})  # type: ignore[arg-type]
    return [(int(one.record.id[-7:]), one.relation, one.distance, one.incoming) for one in found]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, {1, 2, 3, 6, 7}),
        ({"sources": ["wiki"]}, {1, 2}),
        ({"sources": ["https://wiki.example/tea"]}, {1, 2}),
        ({"sources": ["ada"]}, {1, 2}),
        ({"sources": ["c-7", "ada"]}, {1, 2, 3}),
        ({"sources": ["nowhere"]}, set()),
        ({"tags": ["none has tags"]}, set()),
        ({"valid_at": LATER}, {1, 2, 3, 4, 6, 7}),
        ({"valid_at": datetime(2025, 1, 1, tzinfo=UTC)}, {1, 2, 3, 5, 6, 7}),
        ({"sensitivity": "public"}, {1, 2, 3, 7}),
        ({"sources": ["chat"], "valid_at": LATER}, {3, 4}),
    ],
)
def test_filters_leave_what_they_say(
    index: PlaintextIndex, filters: dict[str, object], wanted: set[int]
) -> None:
    assert numbers(index, **filters) == wanted
    asked = Filters(**filters)  # type: ignore[arg-type]
    shown = {int(record.id[-7:]) for record in index.records(asked, now=NOW)}
    assert {number for number in shown if number != 9} == wanted


def test_what_has_expired_stays_out_whatever_time_is_asked_for(index: PlaintextIndex) -> None:
    early = Filters(valid_at=NOW)
    assert 6 not in {int(hit.record.id[-7:]) for hit in index.search("tea", 10, early, now=LATER)}
    assert not allows(early, RECORDS[5], LATER)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidError, match="zone"):
        Filters(valid_at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_record_is_read_by_its_id_if_it_may_be_shown(index: PlaintextIndex) -> None:
    assert index.read(note(1).id, now=NOW) == RECORDS[0]
    for hidden in (4, 5, 8, 99):
        with pytest.raises(NotFoundError):
            index.read(note(hidden).id, now=NOW)
    with pytest.raises(NotFoundError):
        index.read(note(9).id, filters=Filters(sensitivity="public"), now=NOW)


def test_neighbours_are_found_in_both_directions(index: PlaintextIndex) -> None:
    assert around(index, 2) == [
        (3, "next", 1, False),
        (1, "next", 1, True),
        (9, "rival", 1, True),
    ]
    assert around(index, 2, types=["rival"]) == [(9, "rival", 1, True)]
    assert around(index, 2, filters=Filters(sensitivity="public"), types=["rival"]) == []
    assert len(around(index, 2, limit=1)) == 1


def test_cycles_of_relations_end_where_they_began(index: PlaintextIndex) -> None:
    found = around(index, 1, types=["next"], depth=1000)
    assert found == [(2, "next", 1, False), (3, "next", 1, True)]


def test_a_record_that_points_to_itself_is_no_neighbour(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ring = [note(n, relations=tuple(leads(m) for m in (0, 1, 2))) for n in range(3)]
    with PlaintextIndex.open(tmp_path_factory.mktemp("ring"), CUBE, lambda: ring) as index:
        assert {number for number, *_ in around(index, 0, depth=8)} == {1, 2}


def test_relations_and_records_outside_of_their_time_are_not_followed(
    index: PlaintextIndex,
) -> None:
    assert 7 not in {number for number, *_ in around(index, 1)}
    early = datetime(2026, 4, 1, tzinfo=UTC)
    assert 7 in {number for number, *_ in around(index, 1, now=early)}
    assert 4 not in {number for number, *_ in around(index, 1)}
    assert 4 in {number for number, *_ in around(index, 1, filters=Filters(valid_at=LATER))}


def test_near_duplicates_give_way_and_sources_take_turns(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    same = [
        note(n, f"backups of the station are kept in Tartu {n}", source=Source(conversation="c-1"))
        for n in range(1, 5)
    ]
    other = note(9, "the second copy of the backups lies in another town, far away from the sea")
    with PlaintextIndex.open(
        tmp_path_factory.mktemp("same"), CUBE, lambda: [*same, other]
    ) as index:
        plain = [hit.record.id for hit in index.search("backups", 3)]
        spread = [
            hit.record.id for hit in index.search("backups", 2, diversity=Diversity(weight=0.7))
        ]
        capped = [
            hit.record.id for hit in index.search("backups", 10, diversity=Diversity(per_source=1))
        ]
        context = index.context("backups", 1000, diversity=Diversity(per_source=1))
    assert other.id not in plain
    assert other.id in spread
    assert capped == [plain[0], other.id]
    assert context.count("kept in Tartu") == 1


@pytest.mark.parametrize("bounds", [{"weight": -0.1}, {"weight": 1.1}, {"per_source": 0}])
def test_a_diversity_out_of_its_bounds_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(InvalidError):
        Diversity(**bounds)  # type: ignore[arg-type]


SCORES = st.integers(1, 100_000).map(lambda thousandths: thousandths / 1000)
"""Far enough from one another that no product of them rounds two to one."""
MATCHES = st.dictionaries(st.integers(0, 200), SCORES, max_size=CANDIDATES + 10).map(
    lambda scores: [
        Match(number, score)
        for number, score in sorted(scores.items(), key=lambda one: (-one[1], one[0]))
    ]
)


@given(MATCHES, MATCHES, st.floats(0, 1))
def test_fused_rankings_hold_everything_once_with_scores_from_nothing_to_one(
    words: list[Match], meanings: list[Match], share: float
) -> None:
    fused = fuse(words, meanings, share)
    numbers = [match.number for match in fused]
    assert sorted(numbers) == sorted({match.number for match in (*words, *meanings)})
    assert all(0 <= match.score <= 1 + 1e-9 for match in fused)
    assert [m.score for m in fused] == sorted((m.score for m in fused), reverse=True)


@given(MATCHES)
def test_a_ranking_fused_with_nothing_keeps_its_order(words: list[Match]) -> None:
    distinct = {match.score: match for match in words}
    assert [m.number for m in fuse(list(distinct.values()), [], 0.25)] == [
        match.number for match in sorted(distinct.values(), key=lambda m: -m.score)
    ]


def test_of_many_records_the_average_length_is_that_of_some() -> None:
    few = Survey.of(lambda: (note(n, "one two three") for n in range(100)))
    assert few == Survey(100, 3.0)
    many = Survey.of(lambda: (note(n, "tea " * (1 + n % 9)) for n in range(20_100)))
    assert many.records == 20_100
    assert many.average_length == pytest.approx(5, abs=0.5)


def test_what_both_rankings_hold_comes_before_what_one_holds() -> None:
    words, meanings = [Match(1, 10.0), Match(2, 9.0)], [Match(2, 0.9), Match(3, 0.8)]
    assert [match.number for match in fuse(words, meanings, 0.5)] == [2, 1, 3]


@given(st.lists(st.integers(0, 3), max_size=300), st.randoms(), st.integers(1, 60))
def test_equals_come_by_number_whatever_an_engine_makes_of_them(
    scores: list[int], chance: Random, limit: int
) -> None:
    matches = [Match(number, float(score)) for number, score in enumerate(scores)]

    def engine(wide: int) -> list[Match]:
        chance.shuffle(matches)
        return sorted(matches, key=lambda match: -match.score)[:wide]

    wanted = sorted(matches, key=lambda match: (-match.score, match.number))[:limit]
    assert best(engine, limit, len(matches)) == wanted


def test_an_engine_that_never_ends_is_asked_for_no_more_than_there_is() -> None:
    asked: list[int] = []

    def endless(wide: int) -> list[Match]:
        asked.append(wide)
        return [Match(number, 1.0) for number in range(wide)]

    assert len(best(endless, 50, 1000)) == 50
    assert max(asked) == 1000


def test_records_that_answer_alike_come_in_their_order_however_many_are_wanted(
    tmp_path: Path,
) -> None:
    alike = [note(number, "The boat is blue.") for number in range(700)]
    with PlaintextIndex.open(tmp_path, CUBE, lambda: iter(alike)) as index:
        for limit in (3, 60, 500):
            found = [hit.record.id for hit in index.search("boat", limit)]
            assert found == [record.id for record in alike[:limit]]


def test_one_text_in_the_place_of_a_list_is_refused(index: PlaintextIndex) -> None:
    for field in ("tags", "types", "sources"):
        with pytest.raises(InvalidError, match="a text, not a list"):
            Filters(**{field: "drink"})  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="a text, not a list"):
        index.neighbours(note(0, "").id, types="cites")
