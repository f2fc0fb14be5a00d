"""Routing: the adapter whose cube speaks of what the question speaks of, in any language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.memories.parametric.routing import TERMS, by_words, choose, description_of
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError
from memcube_protocol.governance import Descriptive

EXPERTS = {
    "law": "Contract law of Estonia: contracts, leases, claims. An expert for the courts.",
    "heart": "Cardiology: arrhythmia, heart failure, drugs. An expert for the ward.",
    "cooking": "烹饪与食谱:川菜、面条、家常菜。",
}


@pytest.mark.parametrize(
    ("query", "expert"),
    [
        ("Which drugs help against an arrhythmia?", "heart"),
        ("Is a verbal contract a contract? What of leases?", "law"),
        ("面条怎么做?", "cooking"),
    ],
)
def test_a_question_finds_its_expert(query, expert) -> None:
    (choice,) = choose(query, EXPERTS)
    assert (choice.name, choice.share) == (expert, 1.0)


def test_several_experts_share_a_question_by_their_scores() -> None:
    choices = choose("Drugs, contracts, claims, leases", EXPERTS, limit=3)
    assert [choice.name for choice in choices] == ["law", "heart"]
    assert math.isclose(sum(choice.share for choice in choices), 1)
    assert choices[0].share / choices[1].share == pytest.approx(choices[0].score / choices[1].score)


QUESTIONS = (
    "Which drugs help against an arrhythmia?",
    "Is a verbal contract a contract? What of leases?",
    "What claims can I bring to the courts?",
)
WORDS = "which what who how why can should does help against bring verbal " + " ".join(
    f"subject{n} drugs{n} matter{n}" for n in range(600)
)


@pytest.mark.parametrize("query", QUESTIONS)
@pytest.mark.parametrize(
    "stuffed",
    [
        f"{WORDS} drugs arrhythmia contract leases claims courts heart law",
        "drugs arrhythmia contract leases claims courts heart law " * 200 + WORDS,
        f"drugs arrhythmia contract leases claims courts heart law {WORDS}",
        "what which of is a the to an how i can help against",
    ],
)
def test_a_description_that_speaks_of_everything_does_not_draw_the_questions(
    query: str, stuffed: str
) -> None:
    honest = choose(query, EXPERTS)[0].name
    assert choose(query, {**EXPERTS, "greedy": stuffed})[0].name == honest


def test_saying_a_word_again_says_no_more() -> None:
    once = by_words("leases", {"law": "leases and claims", "heart": "the ward"})
    often = by_words("leases", {"law": "leases leases leases and claims", "heart": "the ward"})
    assert once == often


def test_of_a_long_description_the_beginning_counts() -> None:
    many = " ".join(f"word{n}" for n in range(TERMS))
    assert by_words("leases", {"law": f"leases {many}", "x": "y"})["law"] > 0
    assert by_words("leases", {"law": f"{many} leases", "x": "y"})["law"] == 0


@pytest.mark.parametrize("query", ["", "?!", "Who won the cup?", "an expert"])
def test_where_nothing_speaks_for_an_expert_none_is_chosen(query) -> None:
    two = {name: EXPERTS[name] for name in ("law", "heart")}
    assert choose(query, two) == ()


def test_a_single_expert_is_found_by_any_of_its_words_and_no_other() -> None:
    assert choose("the courts", {"law": EXPERTS["law"]})[0].name == "law"
    assert choose("the ward", {"law": "contracts"}) == ()
    assert choose("anything", {}) == ()


def directions(texts: Sequence[str]) -> list[list[float]]:
    """An embedder that knows two subjects."""
    return [[1.0 * ("sue" in t or "law" in t), 1.0 * ("pulse" in t or "heart" in t)] for t in texts]


def test_an_embedder_finds_what_shares_no_word() -> None:
    assert choose("Can I sue?", EXPERTS) == ()
    assert choose("Can I sue?", EXPERTS, embed=directions)[0].name == "law"
    assert choose("My pulse races", EXPERTS, embed=directions)[0].name == "heart"


@pytest.mark.parametrize(
    "embed",
    [
        lambda texts: [[1.0]],
        lambda texts: [[1.0] * (1 + len(t) % 2) for t in texts],
        lambda texts: [[float("nan")] for _ in texts],
        lambda texts: [[1e308, 1e308] for _ in texts],
    ],
)
def test_vectors_that_are_none_are_refused(embed) -> None:
    with pytest.raises(InvalidError):
        choose("law", EXPERTS, embed=embed)


def test_fewer_than_one_cannot_be_chosen() -> None:
    with pytest.raises(InvalidError):
        choose("law", EXPERTS, limit=0)


@given(st.text(max_size=60), st.dictionaries(st.text(max_size=4), st.text(max_size=60), max_size=5))
def test_any_text_gives_finite_scores_that_no_order_changes(query, descriptions) -> None:
    scores = by_words(query, descriptions)
    assert all(math.isfinite(score) and score >= 0 for score in scores.values())
    assert scores == pytest.approx(by_words(query, dict(reversed(descriptions.items()))))
    assert choose(query, descriptions, limit=5) == choose(
        query, dict(reversed(descriptions.items())), limit=5
    )


def test_the_description_is_what_the_cube_says_of_itself_and_of_the_memory() -> None:
    memory = Memory("style", "parametric", (Digest.of(b"a"),), title="Plain words")
    config = CubeConfig(
        "alice/law",
        "1.0.0",
        datetime(2026, 11, 1, tzinfo=UTC),
        title="Contracts",
        summary="Claims and leases",
        descriptive=Descriptive(domains=("law",), tags=("estonia",)),
        memories=(memory,),
    )
    words = description_of(config, memory).split("\n")
    assert {"Contracts", "Claims and leases", "Plain words", "style", "law", "estonia"} <= set(
        words
    )
