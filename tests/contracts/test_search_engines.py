"""What every engine of an index does: the one in this process, and a Qdrant server.

qdrant-client's local mode stands for the server: it answers the same calls without one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.demo.corpus import handbook
from memcube.memories.plaintext.edge import EdgeEngines
from memcube.memories.plaintext.engine import Engine, Engines, Entry, SparseVector
from memcube.memories.plaintext.filters import AtMost, Conditions, MoreThan, OneOf
from memcube.memories.plaintext.index import Filters, PlaintextIndex
from memcube.memories.plaintext.server import ServerEngines
from memcube_protocol.digest import Digest

pytest.importorskip("qdrant_edge")
qdrant_client = pytest.importorskip("qdrant_client")

EVERYTHING = Conditions()
ENTRIES = [
    Entry(0, SparseVector([1, 2], [2.0, 1.0]), [1.0, 0.0], {"tags": ["a", "b"], "from": 10.0}),
    Entry(1, SparseVector([1, 4294967295], [1.0, 3.0]), [3.0, 3.0], {"tags": ["b"]}),
    Entry(2, SparseVector([3], [1.5]), [0.0, -2.0], {"relates": ["记忆", "x"], "until": 20.5}),
    Entry(3, SparseVector([2, 3], [0.5, 0.5]), None, {"sensitivity": 2}),
]


def rarity(holding: int) -> float:
    return math.log((len(ENTRIES) - holding + 0.5) / (holding + 0.5) + 1)


@pytest.fixture(scope="module", params=["embedded", "server"])
def engines(request: pytest.FixtureRequest) -> Iterator[Engines]:
    if request.param == "embedded":
        yield EdgeEngines()
        return
    client = qdrant_client.QdrantClient(":memory:")
    yield ServerEngines(client, "qdrant.example")
    client.close()


@pytest.fixture(scope="module")
def engine(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    held = engines.build("i", folder, ENTRIES, 2)
    assert held == {"tags", "from", "relates", "until", "sensitivity"}
    engine = engines.open("i", folder)
    yield engine
    engine.close()


def test_terms_are_weighed_by_their_rarity(engine: Engine) -> None:
    found = engine.by_terms(SparseVector([2, 4294967295], [1.0, 0.5]), EVERYTHING, 10)
    assert [match.number for match in found] == [1, 0, 3]
    expected = [3 * 0.5 * rarity(1), rarity(2), 0.5 * rarity(2)]
    assert [match.score for match in found] == pytest.approx(expected, rel=1e-4)


def test_terms_that_nothing_holds_find_nothing(engine: Engine) -> None:
    assert engine.by_terms(SparseVector([77], [1.0]), EVERYTHING, 10) == []


def test_vectors_are_compared_by_their_direction(engine: Engine) -> None:
    found = engine.by_vector([0.0, 5.0], EVERYTHING, 2)
    assert [match.number for match in found] == [1, 0]
    assert [match.score for match in found] == pytest.approx([math.sqrt(0.5), 0.0], abs=1e-5)


def test_an_entry_without_a_vector_is_not_found_by_one(engine: Engine) -> None:
    assert {match.number for match in engine.by_vector([1.0, 1.0], EVERYTHING, 10)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        (Conditions(), [0, 1, 2, 3]),
        (Conditions(must=(OneOf("tags", ("b",)),)), [0, 1]),
        (Conditions(must=(OneOf("tags", ("a", "c")),)), [0]),
        (Conditions(must=(OneOf("tags", ("a",)), OneOf("tags", ("b",)))), [0]),
        (Conditions(must=(OneOf("relates", ("记忆",)),)), [2]),
        (Conditions(must=(OneOf("tags", ("nothing",)),)), []),
        (Conditions(must_not=(MoreThan("from", 9.5),)), [1, 2, 3]),
        (Conditions(must_not=(MoreThan("from", 10.0),)), [0, 1, 2, 3]),
        (Conditions(must_not=(AtMost("until", 20.5),)), [0, 1, 3]),
        (Conditions(must_not=(AtMost("until", 20.25),)), [0, 1, 2, 3]),
        (Conditions(must_not=(MoreThan("sensitivity", 1),)), [0, 1, 2]),
        (Conditions((OneOf("tags", ("b",)),), (MoreThan("from", 1),)), [1]),
    ],
)
def test_conditions_hold_in_every_search(
    engine: Engine, conditions: Conditions, wanted: list[int]
) -> None:
    assert engine.holding(conditions, 10) == wanted
    terms = SparseVector([1, 2, 3], [1.0, 1.0, 1.0])
    assert sorted(one.number for one in engine.by_terms(terms, conditions, 10)) == wanted
    with_vectors = [number for number in wanted if number != 3]
    found = engine.by_vector([1.0, 1.0], conditions, 10)
    assert sorted(match.number for match in found) == with_vectors


def test_no_more_is_found_than_was_asked_for(engine: Engine) -> None:
    assert len(engine.by_terms(SparseVector([1, 2, 3], [1.0] * 3), EVERYTHING, 2)) == 2
    assert engine.holding(EVERYTHING, 2) == [0, 1]


def test_an_index_of_nothing_finds_nothing(engines: Engines, tmp_path: Path) -> None:
    assert engines.build("none", tmp_path, [], 0) == frozenset()
    engine = engines.open("none", tmp_path)
    assert engine.by_terms(SparseVector([1], [1.0]), EVERYTHING, 10) == []
    assert engine.holding(EVERYTHING, 10) == []
    engine.close()


def test_a_build_that_fails_is_not_opened(engines: Engines, tmp_path: Path) -> None:
    def broken() -> Iterator[Entry]:
        yield ENTRIES[0]
        raise ValueError("the shard is damaged")

    with pytest.raises(ValueError, match="damaged"):
        engines.build("broken", tmp_path, broken(), 2)
    assert not engines.has("broken")


def test_questions_to_the_handbook_find_their_records(engines: Engines, tmp_path: Path) -> None:
    cube = Digest.of(b"handbook")
    for _ in range(2):
        with PlaintextIndex.open(tmp_path, cube, handbook, server=engines) as index:
            found = index.search("clean the radar antenna", 3)
            assert found[0].record.id == "gauge/radar/clean"
            assert index.search("雷达水位计")[0].record.id == "zh/radar"
            assert [
                hit.record.id for hit in index.search("storm", filters=Filters(types=["event"]))
            ] == ["storm/1993", "tide/highest"]
