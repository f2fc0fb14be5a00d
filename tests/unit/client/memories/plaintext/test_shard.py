"""A shard that is filled in portions answers as one that was filled at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.memories.plaintext import shard as plaintext_shard
from memcube.memories.plaintext.edge import EdgeEngine, EdgeEngines
from memcube.memories.plaintext.engine import Entry, SparseVector
from memcube.memories.plaintext.filters import Conditions, OneOf
from memcube.memories.plaintext.shard import Filling

pytest.importorskip("qdrant_edge")

WIDTH = 8
COUNT = 1050


def entries() -> Iterator[Entry]:
    chosen = random.Random(7)
    for number in range(COUNT):
        terms = chosen.sample(range(60), 20)
        weights = SparseVector(terms, [chosen.random() + 0.1 for _ in terms])
        vector = [chosen.gauss(0, 1) for _ in range(WIDTH)]
        # One field is seen late, when a portion has been written without it.
        fields = {"tags": [f"t{number % 7}"]} | ({"subject": ["late"]} if number >= 900 else {})
        yield Entry(number, weights, vector, fields)


def segments(folder: Path) -> int:
    return len(list((folder / "segments").iterdir()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeEngine]:
    folder = tmp_path_factory.mktemp("whole")
    EdgeEngines().build("i", folder, entries(), WIDTH)
    assert segments(folder) == 1
    engine = EdgeEngine(folder)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def portions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeEngine]:
    folder = tmp_path_factory.mktemp("portions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plaintext_shard, "_PORTION_RECORDS", 300)
        patch.setattr(plaintext_shard, "_WRITTEN_FROM_KB", 1)
        patch.setattr("memcube.memories.plaintext.edge._BATCH", 100)
        held = EdgeEngines().build("i", folder, entries(), WIDTH)
    assert held == {"tags", "subject"}
    assert segments(folder) == 5, "four portions, and one that could be added to"
    engine = EdgeEngine(folder)
    yield engine
    engine.close()


@pytest.mark.parametrize("tag", [None, "t3"])
def test_words_and_vectors_rank_alike(
    whole: EdgeEngine, portions: EdgeEngine, tag: str | None
) -> None:
    conditions = Conditions((OneOf("tags", (tag,)),)) if tag else Conditions()
    asked = SparseVector([1, 17, 42], [1.0, 0.5, 1.0])
    for found, wanted in (
        (portions.by_terms(asked, conditions, 40), whole.by_terms(asked, conditions, 40)),
        (
            portions.by_vector([1.0] * WIDTH, conditions, 40),
            whole.by_vector([1.0] * WIDTH, conditions, 40),
        ),
    ):
        assert len(wanted) == 40
        assert [match.number for match in found] == [match.number for match in wanted]
        assert [match.score for match in found] == pytest.approx(
            [match.score for match in wanted], rel=1e-4
        )


def test_a_field_that_comes_late_is_found_by(portions: EdgeEngine) -> None:
    late = Conditions((OneOf("subject", ("late",)),))
    assert portions.holding(late, 1000) == list(range(900, COUNT))


def test_a_portion_ends_by_its_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of many terms fill memory before there are many of them."""
    monkeypatch.setattr(plaintext_shard, "_PORTION_BYTES", 16 * 20 * 10)
    monkeypatch.setattr(plaintext_shard, "_WRITTEN_FROM_KB", 1)
    some = [entry for entry, _ in zip(entries(), range(20), strict=False)]
    with Filling(tmp_path, WIDTH) as filling:
        for start in range(0, 20, 10):
            filling.add(some[start : start + 10], {"tags"})
        assert segments(tmp_path) == 3
        filling.finish({"tags"})
    engine = EdgeEngine(tmp_path)
    assert len(engine.holding(Conditions(), 100)) == 20
    engine.close()
