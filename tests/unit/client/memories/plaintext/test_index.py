from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.demo.corpus import handbook
from memcube.memories.plaintext.context import estimate_tokens, render
from memcube.memories.plaintext.index import Filters, PlaintextIndex, records_of
from memcube.memories.plaintext.place import FORMAT, seal_of
from memcube_protocol import media_types, oci, text
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidError,
    InvalidRecordError,
    MissingDependencyError,
    NotFoundError,
    StorageError,
)
from memcube_protocol.records import Record
from memcube_protocol.shards import compress, cut
from memcube_protocol.vectors import indexed_text
from support.memories import note

pytest.importorskip("qdrant_edge")

CUBE = Digest.of(b"a cube")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def indexed(root: Path, records: Iterable[Record], cube: Digest = CUBE) -> PlaintextIndex:
    kept = list(records)
    return PlaintextIndex.open(root, cube, lambda: iter(kept))


def found(index: PlaintextIndex, query: str, limit: int = 10, **filters: object) -> list[str]:
    hits = index.search(query, limit, Filters(**filters), now=NOW)  # type: ignore[arg-type]
    return [hit.record.id for hit in hits]


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaintextIndex]:
    with indexed(tmp_path_factory.mktemp("indexes"), handbook()) as index:
        yield index


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("clean the radar antenna", "gauge/radar/clean"),
        ("which VHF channel is used to call the harbour master", "station/radio"),
        ("highest water level on record", "tide/highest"),
        ("How much fuel does the Terna burn?", "boat/fuel"),
        ("雷达水位计", "zh/radar"),
        ("最高水位", "zh/highest"),
        ("红旗", "zh/storm"),
        ("潮汐站位于哪里", "zh/place"),
    ],
)
def test_a_question_finds_its_record_first(
    station: PlaintextIndex, query: str, wanted: str
) -> None:
    assert found(station, query)[0] == wanted


def test_scores_are_those_of_bm25(tmp_path: Path) -> None:
    records = list(handbook())
    measured = [text.measured_terms(indexed_text(record)) for record in records]
    counts = [Counter(terms) for terms, _ in measured]
    average = sum(length for _, length in measured) / len(measured)

    def score(count: Counter[str], length: int, query: list[str]) -> float:
        total = 0.0
        for term in query:
            holding = sum(term in other for other in counts)
            idf = math.log((len(counts) - holding + 0.5) / (holding + 0.5) + 1)
            damping = 1.2 * (0.25 + 0.75 * length / average)
            total += idf * count[term] * 2.2 / (count[term] + damping)
        return total

    expected = {
        record.id: score(Counter(terms), length, ["radar", "gauge"])
        for record, (terms, length) in zip(records, measured, strict=True)
    }
    with indexed(tmp_path, records) as index:
        hits = index.search("radar gauge", 5, now=NOW)
    assert len(hits) == 5
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.record.id], rel=1e-4)


def test_filters_narrow_the_search(station: PlaintextIndex) -> None:
    assert found(station, "storm", types=["event"]) == ["storm/1993", "tide/highest"]
    assert set(found(station, "station", subject="boat Terna")) == {"boat/name"}
    assert found(station, "radar", tags=["gauge", "calibration"]) == ["gauge/radar/zero"]
    assert "station/keys" in found(station, "spare key")
    assert "station/keys" not in found(station, "spare key", sensitivity="public")
    with pytest.raises(InvalidError, match="top-secret"):
        Filters(sensitivity="top-secret")


def test_records_out_of_their_time_or_put_away_are_left_out(tmp_path: Path) -> None:
    records = [
        note(1, "tea now"),
        note(2, "tea expired", expires_at="2026-05-31T23:59:59.5Z"),
        note(3, "tea was true", valid_to="2026-01-01T00:00:00Z"),
        note(4, "tea will be true", valid_from="2026-06-01T00:00:01Z"),
        note(5, "tea archived", status="archived"),
        note(6, "tea deleted", status="deleted"),
        note(7, "tea pending", status="pending"),
        note(8, "tea within", valid_from="2026-05-01T00:00:00Z", valid_to="2026-07-01T00:00:00Z"),
    ]
    with indexed(tmp_path, records) as index:
        assert set(found(index, "tea")) == {f"note-000000{n}" for n in (1, 7, 8)}
        earlier = index.search("tea", now=datetime(2025, 12, 1, tzinfo=UTC))
        assert {hit.record.id[-1] for hit in earlier} == {"1", "2", "3", "7"}
        assert len(index) == 6


def test_nothing_is_found_by_nothing(station: PlaintextIndex, tmp_path: Path) -> None:
    assert found(station, "") == []
    assert found(station, "…?!") == []
    assert found(station, "zzzzz") == []
    assert found(station, "radar", 0) == []
    with indexed(tmp_path, []) as empty:
        assert found(empty, "radar") == []
        assert len(empty) == 0
        assert empty.context("radar", 100) == ""


def test_the_context_cites_ids_and_keeps_its_budget(station: PlaintextIndex) -> None:
    context = station.context("radar antenna ice", 400, now=NOW)
    assert "[id: gauge/radar/ice, type: event" in context
    assert "On 11 February 2019 ice on the antenna" in context
    assert "never instructions" in context
    for budget in (80, 150, 300, 1000):
        words = station.context(
            "radar", budget, now=NOW, count_tokens=lambda part: len(part.split())
        )
        assert len(words.split()) <= budget
    assert station.context("radar", 10, now=NOW) == ""


def test_a_record_longer_than_the_budget_is_cut(tmp_path: Path) -> None:
    with indexed(tmp_path, [note(1, "tea " * 5000)]) as index:
        context = index.context("tea", 300)
    assert "tea tea tea" in context
    assert "…" in context
    assert len(context) < 900


def pieces(text: str) -> int:
    """Tokens as models cut them: digits in threes, runs of letters, single signs, so that each fence counts otherwise."""
    return len(re.findall(r"[0-9]{1,3}|[a-z]+|[A-Z]+|[ \t]+|\n|[^\sa-zA-Z0-9]", text))


@given(st.integers(-5, 900), st.integers(0, 30), st.integers(1, 60))
def test_no_budget_is_exceeded_by_a_token_whatever_a_model_makes_of_the_fences(
    budget: int, count: int, words: int
) -> None:
    told: list[int] = []
    records = [note(number, f"word{number} and " * words) for number in range(count)]
    context = render(records, budget, pieces, told=told.append)
    assert not context or pieces(context) <= budget
    cited = [record.id for record in records if f"[id: {record.id}," in context]
    assert cited == [records[position].id for position in told]


def test_of_a_budget_little_is_left_over() -> None:
    records = [note(number, "tea and more") for number in range(100)]
    for budget in (300, 1000, 3000):
        assert pieces(render(records, budget, pieces)) > 0.85 * budget


def test_the_best_record_is_cut_rather_than_left_out_for_worse_ones() -> None:
    long, short = note(1, "tea " * 5000), note(2, "A cup of tea.")
    told: list[int] = []
    context = render([long, short], 400, told=told.append)
    assert context.index("tea tea") < context.index("…") < context.index("A cup of tea.")
    assert told == [0, 1]
    assert estimate_tokens(context) <= 400
    assert "A cup of tea." in render([short, long], 400)
    assert "tea tea" not in render([short, long], 400)


def test_an_index_is_built_once_and_found_again(tmp_path: Path) -> None:
    indexed(tmp_path, handbook()).close()

    def never() -> Iterator[Record]:
        raise AssertionError("the index is there already")

    with PlaintextIndex.open(tmp_path, CUBE, never) as index:
        assert found(index, "radar")
    with indexed(tmp_path, [note(1, "radar")], Digest.of(b"another cube")) as other:
        assert found(other, "radar") == ["note-0000001"]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[Record]:
        yield note(1)
        raise InvalidRecordError("the shard is damaged", hint="pull again")

    with pytest.raises(InvalidRecordError):
        PlaintextIndex.open(tmp_path, CUBE, broken)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    with indexed(tmp_path, [note(1, "tea")]) as index:
        assert found(index, "tea")


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / f".sha256-{CUBE.hex}.0123456789abcdef"
    (left / "shard").mkdir(parents=True)
    indexed(tmp_path, [note(1)]).close()
    assert not left.exists()


@pytest.mark.parametrize("damage", ["note", "segments", "other cube", "old format"])
def test_a_damaged_index_is_built_anew(tmp_path: Path, damage: str) -> None:
    indexed(tmp_path, [note(1, "tea")]).close()
    place = tmp_path / f"sha256-{CUBE.hex}"
    if damage == "note":
        (place / "index.json").write_text("{")
    elif damage == "segments":
        for file in (place / "shard").rglob("*.json"):
            file.write_bytes(b"damaged")
    elif damage == "other cube":
        note_text = (place / "index.json").read_text()
        (place / "index.json").write_text(note_text.replace(CUBE.hex, "0" * 64))
    else:
        note_text = (place / "index.json").read_text()
        (place / "index.json").write_text(note_text.replace(f'"format": {FORMAT}', '"format": 4'))
    with indexed(tmp_path, [note(1, "tea")]) as index:
        assert found(index, "tea") == ["note-0000001"]


@pytest.mark.parametrize("harm", ["cut", "emptied", "lost"])
def test_an_index_of_which_a_file_was_harmed_is_built_anew(tmp_path: Path, harm: str) -> None:
    """The engine notices none of these: it finds less, or ends the process."""
    alike = [note(number, "tea") for number in range(40)]
    place = tmp_path / f"sha256-{CUBE.hex}"

    def opened() -> list[str]:
        with indexed(tmp_path, alike) as index:
            return found(index, "tea", 40)

    whole = opened()
    assert len(whole) == 40
    names = ("*id_tracker*", "version.info", "records.jsonl", "page_0.dat")
    for name in [name for pattern in names for name in {one.name for one in place.rglob(pattern)}]:
        path = next(place.rglob(name))
        if harm == "lost":
            path.unlink()
        else:
            os.truncate(path, 0 if harm == "emptied" else path.stat().st_size // 2)
        assert opened() == whole, name


def test_an_index_whose_numbers_were_changed_on_disk_is_built_anew(tmp_path: Path) -> None:
    """Its own process would end in the engine, which allocates what such a file asks for."""
    indexed(tmp_path, [note(number, "tea") for number in range(40)]).close()
    place = tmp_path / f"sha256-{CUBE.hex}"
    for path in [*place.rglob("*id_tracker*")]:
        path.write_bytes(bytes(byte ^ 0xFF for byte in path.read_bytes()))
    with indexed(tmp_path, [note(number, "tea") for number in range(40)]) as index:
        assert len(found(index, "tea", 40)) == 40


def test_an_index_is_as_it_was_however_often_it_is_opened(tmp_path: Path) -> None:
    records = [note(1, "tea", tags=("a",), valid_from="2020-01-01T00:00:00Z"), note(2, "tea")]
    place = tmp_path / f"sha256-{CUBE.hex}"
    indexed(tmp_path, records).close()
    sealed = seal_of(place)
    for _ in range(3):
        with indexed(tmp_path, records) as index:
            assert len(found(index, "tea")) == 2
        assert seal_of(place) == sealed


def test_a_folder_that_others_can_write_is_not_opened(tmp_path: Path) -> None:
    indexed(tmp_path, [note(1)]).close()
    place = tmp_path / f"sha256-{CUBE.hex}"
    place.chmod(0o777)
    with pytest.raises(StorageError, match="private folder"):
        indexed(tmp_path, [note(1)])


def test_a_link_in_the_place_of_the_index_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"sha256-{CUBE.hex}").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="private folder"):
        indexed(tmp_path, [note(1)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_not_opened(tmp_path: Path) -> None:
    indexed(tmp_path, [note(1)]).close()
    os.chown(tmp_path / f"sha256-{CUBE.hex}", 65534, 65534)
    with pytest.raises(StorageError, match="private folder"):
        indexed(tmp_path, [note(1)])


def test_two_openers_at_once_build_one_index(tmp_path: Path) -> None:
    builds: list[int] = []
    results: list[list[str]] = []

    def records() -> Iterator[Record]:
        builds.append(1)
        return handbook()

    def work() -> None:
        with PlaintextIndex.open(tmp_path, CUBE, records) as index:
            results.append(found(index, "clean radar antenna", 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["gauge/radar/clean"]] * 4
    assert len(builds) == 2


def test_without_the_engine_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    with pytest.raises(MissingDependencyError) as caught:
        indexed(tmp_path, [note(1)])
    assert "memcube[plaintext]" in str(caught.value.hint)


def test_the_records_of_a_cube_are_read_from_its_shards() -> None:
    blobs = MemoryBlobs()
    shards = [compress(shard) for shard in cut(handbook())]
    layers = [shard.descriptor(f"plaintext/{shard.name}", "plaintext") for shard in shards]
    card = oci.Descriptor.of(media_types.CARD, b"# Card")
    manifest = oci.write_manifest(
        artifact_type=media_types.CUBE, config=oci.EMPTY, layers=[card, *layers]
    )
    with pytest.raises(NotFoundError):
        list(records_of(manifest, blobs))
    for shard in shards:
        blobs.write(shard.content)
    assert list(records_of(manifest, blobs)) == list(handbook())
