"""Questions to few records are about what they name, not about how they are put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.memories.plaintext.index import PlaintextIndex
from memcube.memories.plaintext.question import FEW, TERMS, weights_of
from memcube.overlay import Overlay
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidRequestError
from memcube_protocol.text import query_weights
from support.memories import note

NOTES = (
    "The kettle is on the left shelf.",
    "Lunch is on Friday. Who is it that comes?",
    "Ada takes the pager this week, so call her at any time of the day or the night, and Ben after her.",
)


@pytest.mark.parametrize("where", ["a cube", "an overlay"])
def test_of_a_few_notes_the_one_that_the_question_is_about_comes_first(
    tmp_path: Path, where: str
) -> None:
    if where == "a cube":
        pytest.importorskip("qdrant_edge")
        records = [note(number, text) for number, text in enumerate(NOTES)]
        with PlaintextIndex.open(tmp_path, Digest.of(b"c"), lambda: records) as index:
            hits, none = index.search("Who is on call?"), index.search("What is a quark?")
            asked = index.search("who is")
    else:
        overlay = Overlay.open(tmp_path / "own")
        for text in NOTES:
            overlay.remember(text)
        hits, none = overlay.search("Who is on call?"), overlay.search("What is a quark?")
        asked = overlay.search("who is")
    assert [hit.record.text for hit in hits] == [NOTES[2]]
    assert none == []
    assert asked[0].record.text == NOTES[1]


@pytest.mark.parametrize(
    ("question", "terms"),
    [
        ("Who is on call?", ["call"]),
        ("Which backups are there?", ["backup"]),
        ("Who runs IT for US?", ["run", "it", "us"]),
        ("to be or not to be", ["to", "be", "or", "not"]),
        ("谁在值班?", ["谁在", "在值", "值班"]),
        ("", []),
    ],
)
def test_only_words_that_say_what_it_is_about_are_asked_of_few(
    question: str, terms: list[str]
) -> None:
    assert list(weights_of(question, FEW - 1)) == terms


@given(st.text(), st.integers(0, 2 * FEW))
def test_no_term_is_added_nor_any_weight_changed_and_of_many_records_all_are_asked(
    question: str, records: int
) -> None:
    weights, all_of_them = weights_of(question, records), query_weights(question)
    assert weights.items() <= all_of_them.items()
    assert bool(weights) == bool(all_of_them)
    assert len(weights) <= TERMS
    if records >= FEW:
        assert list(weights) == list(all_of_them)[:TERMS]


@pytest.mark.parametrize("asked", [["tea", "coffee"], None], ids=["list", "none"])
def test_several_questions_at_once_are_refused_with_words(asked: Any, tmp_path: Path) -> None:
    overlay = Overlay.open(tmp_path / "own")
    overlay.remember("Ada likes tea.")
    with pytest.raises(InvalidRequestError, match="one text") as caught:
        overlay.search(asked)
    assert caught.value.hint
