"""Vectors of records: made, carried by a cube, found again, used or passed over, and always told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from memcube.demo.corpus import handbook
from memcube.memories.plaintext.embedders import FunctionEmbedder, is_alike, probe
from memcube.memories.plaintext.index import PlaintextIndex
from memcube.memories.plaintext.lsa import LsaEmbedder
from memcube.memories.plaintext.vectors import CarriedVectors, write_vectors
from memcube_protocol import vectors
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, MissingDependencyError
from memcube_protocol.records import Record
from memcube_protocol.vectors import PROBES, indexed_text
from support.memories import note

pytest.importorskip("qdrant_edge")
np = pytest.importorskip("numpy")
pytest.importorskip("scipy")

CUBE = Digest.of(b"a cube")
MEANINGS = ("ship ferry boat vessel", "tea drink cup coffee", "ice snow winter cold")


def meaning(texts: Sequence[str]) -> list[list[float]]:
    """A model that knows three things, and a little of everything."""
    return [
        [0.1, *(float(any(word in text.lower() for word in known.split())) for known in MEANINGS)]
        for text in texts
    ]


def letters(texts: Sequence[str]) -> list[list[float]]:
    """Another model: how often each of four letters occurs."""
    return [[text.count(letter) + 0.1 for letter in "aeio"] for text in texts]


RECORDS = [
    note(1, "The ferry to Hiiumaa leaves at nine."),
    note(2, "Coffee is in the cupboard."),
    note(3, "In January the road over the sea is frozen: ice."),
    note(4, "The vessel is called Terna."),
]


def ids(index: PlaintextIndex, query: str, limit: int = 10) -> list[str]:
    return [hit.record.id[-1] for hit in index.search(query, limit)]


@pytest.fixture(scope="module")
def lsa() -> LsaEmbedder:
    return LsaEmbedder.fit(handbook())


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory, lsa: LsaEmbedder) -> Iterator[PlaintextIndex]:
    folder = tmp_path_factory.mktemp("station")
    path = folder / "lsa.safetensors"
    assert write_vectors(path, lsa, map(indexed_text, handbook())) == len(list(handbook()))
    with PlaintextIndex.open(folder / "indexes", CUBE, handbook, vectors=[path]) as index:
        yield index


def test_words_alone_are_searched_where_there_are_no_vectors(tmp_path: Path) -> None:
    with PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS) as index:
        assert index.searched_with == (
            "BM25 alone: the cube carries no vectors, and no embedder is named"
        )
        assert ids(index, "boat") == []


def test_an_embedder_finds_what_shares_no_word_with_the_question(tmp_path: Path) -> None:
    embedder = FunctionEmbedder(meaning, name="meaning")
    with PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS, embedder=embedder) as index:
        assert set(ids(index, "a boat", 2)) == {"1", "4"}
        assert ids(index, "any drink", 1) == ["2"]
        assert index.searched_with == (
            "BM25 and vectors by meaning, made here: the cube carries none"
        )


def test_vectors_of_the_cube_are_used_if_the_embedder_makes_the_same_of_the_probes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "meaning.safetensors"
    write_vectors(path, FunctionEmbedder(meaning, name="meaning"), map(indexed_text, RECORDS))
    asked: list[str] = []

    def counted(texts: Sequence[str]) -> list[list[float]]:
        asked.extend(texts)
        return meaning(texts)

    own = FunctionEmbedder(counted, name="by another name")
    with PlaintextIndex.open(
        tmp_path / "indexes", CUBE, lambda: RECORDS, vectors=[path], embedder=own
    ) as index:
        assert index.searched_with == (
            "BM25 and vectors: the cube's own, by the embedder named (by another name)"
        )
        assert set(ids(index, "a boat", 2)) == {"1", "4"}
    assert set(asked) == {*PROBES, "a boat"}


def test_records_that_changed_since_the_vectors_were_made_are_embedded_anew(tmp_path: Path) -> None:
    path = tmp_path / "meaning.safetensors"
    embedder = FunctionEmbedder(meaning, name="meaning")
    write_vectors(path, embedder, map(indexed_text, RECORDS))
    edited = [*RECORDS[:3], note(4, "The vessel is called Sterna now.")]
    with PlaintextIndex.open(
        tmp_path / "indexes", CUBE, lambda: edited, vectors=[path], embedder=embedder
    ) as index:
        assert index.searched_with.endswith(
            "; 1 records were embedded here, the cube has no vectors of them"
        )
        assert set(ids(index, "a boat", 2)) == {"1", "4"}


def test_vectors_by_another_embedder_are_passed_over_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "letters.safetensors"
    write_vectors(path, FunctionEmbedder(letters, name="letters"), map(indexed_text, RECORDS))
    with PlaintextIndex.open(tmp_path / "a", CUBE, lambda: RECORDS, vectors=[path]) as index:
        assert index.searched_with == (
            "BM25 alone: the cube's vectors are by letters, and that embedder is not named"
        )
    embedder = FunctionEmbedder(meaning, name="meaning")
    with PlaintextIndex.open(
        tmp_path / "b", CUBE, lambda: RECORDS, vectors=[path], embedder=embedder
    ) as index:
        assert index.searched_with == (
            "BM25 and vectors by meaning, made here: the cube's are by letters, which embeds otherwise"
        )
        assert set(ids(index, "a boat", 2)) == {"1", "4"}


def test_an_index_is_built_anew_when_the_embedder_of_that_name_has_changed(tmp_path: Path) -> None:
    first = FunctionEmbedder(letters, name="model")
    PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS, embedder=first).close()
    second = FunctionEmbedder(meaning, name="model")
    with PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS, embedder=second) as index:
        assert set(ids(index, "a boat", 2)) == {"1", "4"}


def test_indexes_of_two_embedders_lie_side_by_side(tmp_path: Path) -> None:
    with (
        PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS) as words,
        PlaintextIndex.open(
            tmp_path, CUBE, lambda: RECORDS, embedder=FunctionEmbedder(meaning, name="meaning")
        ) as meanings,
    ):
        assert ids(words, "boat") == []
        assert ids(meanings, "boat") != []
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_a_cube_that_carries_its_embedder_needs_nothing_else(station: PlaintextIndex) -> None:
    assert station.searched_with == "BM25 and vectors: the cube's own (lsa)"
    assert station.search("clean the radar antenna")[0].record.id == "gauge/radar/clean"
    assert station.search("雷达水位计")[0].record.id == "zh/radar"
    assert all(0 <= hit.score <= 1.000001 for hit in station.search("radar"))
    assert station.search("zzzzz") == []


def test_lsa_can_be_fitted_where_the_index_is_built_and_is_kept_with_it(tmp_path: Path) -> None:
    read: list[int] = []

    def records() -> Iterator[Record]:
        read.append(1)
        return handbook()

    for _ in range(2):
        with PlaintextIndex.open(tmp_path, CUBE, records, embedder="lsa") as index:
            assert index.searched_with == ("BM25 and vectors: LSA, fitted here to these records")
            assert index.search("clean the radar antenna")[0].record.id == "gauge/radar/clean"
    assert len(read) == 3


def test_records_that_teach_lsa_nothing_are_searched_by_words(tmp_path: Path) -> None:
    for _ in range(2):
        with PlaintextIndex.open(tmp_path, CUBE, lambda: [note(1, "tea")], embedder="lsa") as index:
            assert index.searched_with == (
                "BM25 alone: the records share too few words to fit LSA to"
            )
            assert ids(index, "tea") == ["1"]


def test_lsa_of_the_same_records_is_the_same(lsa: LsaEmbedder) -> None:
    again = LsaEmbedder.fit(handbook())
    assert (again.terms == lsa.terms).all()
    assert np.allclose(again.weights, lsa.weights)


def test_lsa_learns_words_of_two_languages_from_records_of_one_subject() -> None:
    pages = [
        note(10 * n + place, words, subject=f"command {n}")
        for n, pair in enumerate(
            [
                ("copy a folder", "复制目录"),
                ("delete a folder", "删除目录"),
                ("copy text", "复制文本"),
            ]
        )
        for place, words in enumerate(pair)
    ]
    lsa = LsaEmbedder.fit([*pages, note(90, "the folder text"), note(91, "目录和文本")])
    question = lsa.query("folder")[0]
    about, other = lsa.texts(["目录", "文本"])
    assert question @ about > question @ other


def test_lsa_of_records_that_share_no_word_is_refused() -> None:
    with pytest.raises(InvalidError, match="too few"):
        LsaEmbedder.fit([note(1, "alpha"), note(2, "beta")])


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    with pytest.raises(MissingDependencyError) as caught:
        LsaEmbedder.fit(handbook())
    assert "memcube[plaintext]" in str(caught.value.hint)


def test_what_is_written_is_read_back(tmp_path: Path, lsa: LsaEmbedder) -> None:
    path = tmp_path / "lsa.safetensors"
    texts = [indexed_text(record) for record in handbook()]
    assert write_vectors(path, lsa, [*texts, texts[0], "zzzzz"]) == len(texts)
    with CarriedVectors(path) as carried:
        again = carried.embedder()
        assert carried.name == "lsa"
        assert carried.find("zzzzz") is None
        assert again is not None
        for text, expected in zip(texts, lsa.texts(texts), strict=True):
            assert np.allclose(carried.find(text), expected, atol=1e-3)
        assert is_alike(again.texts(texts[:3]), lsa.texts(texts[:3]))


def test_keys_that_end_in_zeros_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hash in 256 does; an array of strings would leave the zeros out."""
    monkeypatch.setattr(vectors, "key_of", lambda text: bytes.fromhex(text).ljust(16, b"\0"))
    texts = ["", "00" * 15 + "01", "03", "0300", "0301", "03" * 16, "ff" * 16]
    path = tmp_path / "numbers.safetensors"
    made = dict(zip(texts, range(1, len(texts) + 1), strict=True))
    embedder = FunctionEmbedder(lambda asked: [[1.0, made.get(text, 0)] for text in asked])
    assert write_vectors(path, embedder, texts) == len(texts) - 1, "two keys are the same"
    with CarriedVectors(path) as carried:
        for text in texts:
            found = carried.find(text)
            assert found is not None
            assert found[1] == made["0300" if text == "03" else text]
        assert carried.find("02") is None
        assert carried.find("0302") is None
        assert carried.find("ff" * 15 + "fe") is None


def test_embedders_are_told_apart_by_what_they_make_of_the_probes() -> None:
    one, other = FunctionEmbedder(meaning), FunctionEmbedder(letters)
    nearly = FunctionEmbedder(lambda texts: [[x * 1.0001 for x in row] for row in meaning(texts)])
    assert is_alike(probe(one), probe(nearly))
    assert not is_alike(probe(one), probe(other))
    assert not is_alike(probe(one), probe(FunctionEmbedder(lambda texts: [[1.0]] * len(texts))))


def test_a_probe_of_which_both_make_nothing_decides_nothing() -> None:
    def english(texts: Sequence[str]) -> list[list[float]]:
        return [[0.0, 0.0] if "\u5907" in text else [1.0, len(text)] for text in texts]

    one = probe(FunctionEmbedder(english))
    assert not one[1].any()
    assert is_alike(one, one)
    assert not is_alike(one, one * 0)
    assert not is_alike(one * 0, one * 0)
    assert not is_alike(one, one + np.float32([[0], [1], [0]]))


def test_large_numbers_make_no_two_embedders_alike() -> None:
    one = np.full((3, 2), 1e30, np.float32)
    assert is_alike(one, one)
    assert not is_alike(one, one * np.float32([1, 0]))


def test_an_embedder_of_one_language_is_taken_though_it_makes_nothing_of_a_probe(
    tmp_path: Path,
) -> None:
    def english(texts: Sequence[str]) -> list[list[float]]:
        return [[0.0, 0.0] if "\u5907" in text else [1.0, len(text)] for text in texts]

    for _ in range(2):  # built, then opened again
        with PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS, embedder=english) as index:
            assert "vectors by" in index.searched_with
            assert ids(index, "a boat")


def test_an_embedder_that_says_nothing_or_something_else_each_time_is_refused_by_name(
    tmp_path: Path,
) -> None:
    def zeros(texts: Sequence[str]) -> list[list[float]]:
        return [[0.0, 0.0] for _ in texts]

    calls = iter(range(100))

    def fickle(texts: Sequence[str]) -> list[list[float]]:
        call = next(calls)
        return [[1.0, float(call % 7)] for _ in texts]

    for embedder, why in ((zeros, "zeros of every text"), (fickle, "each time")):
        with pytest.raises(InvalidError, match=why):
            PlaintextIndex.open(tmp_path, CUBE, lambda: RECORDS, embedder=embedder)
    with pytest.raises(InvalidError, match="zeros of every text"):
        write_vectors(tmp_path / "v", FunctionEmbedder(zeros), [])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
