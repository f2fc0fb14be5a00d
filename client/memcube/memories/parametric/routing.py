"""Which adapters a question is for, by what their cubes say of themselves.

Each description is a short document, the question a query: BM25 over the tokenizer of search, or the
cosine of vectors that an embedder gives. A publisher writes its own description, so that one cannot win
by saying much: English function words of a question count nothing; of a long description the beginning
counts, a word once, and the more words it has beside those of the others, the less each says. Several
adapters chosen this way, each with its share as the factor on its effect, are a mixture of experts with
one gate for a whole question.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from memcube_protocol import text
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.errors import InvalidError

from memcube.memories.plaintext.question import weights_of

Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Gives a vector for each text, all of one length."""

_K1: Final = 1.2
_B: Final = 0.75
TERMS: Final = 128
"""Different terms of a description that count: about a hundred words, or sixty signs of Chinese."""


class Choice(NamedTuple):
    """An adapter chosen for a question: its score, and its share among those chosen (all add up to 1)."""

    name: str
    score: float
    share: float


def description_of(config: CubeConfig, memory: Memory) -> str:
    """What a cube says of itself and of one of its memories, as one text."""
    about = config.descriptive
    words = (config.title, config.summary, memory.title, memory.id, config.name)
    listed = (*about.domains, *about.tags, *about.semantic_types)
    return "\n".join(word for word in (*words, *listed) if word)


def choose(
    query: str, descriptions: Mapping[str, str], *, limit: int = 1, embed: Embedder | None = None
) -> tuple[Choice, ...]:
    """The adapters for `query`, best first, at most `limit`; none where nothing speaks for any.

    Raises:
        InvalidError: `limit` is less than one, or the embedder's vectors are no vectors.
    """
    if limit < 1:
        raise InvalidError(f"{limit} adapters cannot be chosen", hint="choose at least one")
    scores = by_meaning(query, descriptions, embed) if embed else by_words(query, descriptions)
    found = sorted(
        ((score, name) for name, score in scores.items() if score > 0),
        key=lambda pair: (-pair[0], pair[1]),
    )[:limit]
    total = sum(score for score, _ in found)
    return tuple(Choice(name, score, score / total) for score, name in found)


def by_words(query: str, descriptions: Mapping[str, str]) -> dict[str, float]:
    """The BM25 score of each description, in which a word counts once; one that all of several have says nothing."""
    held = {name: _first_terms(words) for name, words in descriptions.items()}
    total = sum(map(len, held.values()))
    holders = Counter(term for terms in held.values() for term in terms)
    asked = [term for term in weights_of(query, len(held)) if not holders[term] == len(held) > 1]
    scores = dict.fromkeys(held, 0.0)
    for name, terms in held.items():
        # Beside the mean of the others: a description does not move what it is measured by.
        usual = (total - len(terms)) / (len(held) - 1) if len(held) > 1 else len(terms)
        damping = _K1 * (1 - _B + _B * len(terms) / (usual or 1.0))
        for term in asked:
            if term in terms:
                rarity = math.log(1 + (len(held) - holders[term] + 0.5) / (holders[term] + 0.5))
                scores[name] += rarity * (_K1 + 1) / (1 + damping)
    return scores


def _first_terms(words: str) -> frozenset[str]:
    return frozenset(islice(dict.fromkeys(text.terms(words)), TERMS))


def by_meaning(query: str, descriptions: Mapping[str, str], embed: Embedder) -> dict[str, float]:
    """The cosine between the vector of `query` and that of each description.

    Raises:
        InvalidError: the embedder gave other than one vector for each text, or not of one length.
    """
    vectors: list[list[float]] = [
        [float(value) for value in vector] for vector in embed([query, *descriptions.values()])
    ]
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != len(descriptions) + 1 or len(lengths) != 1:
        raise InvalidError(
            f"the embedder gave {len(vectors)} vectors of lengths {sorted(lengths)[:8]} "
            f"for {len(descriptions) + 1} texts",
            hint="it has to give one vector for each text, all of one length",
        )
    asked, *others = vectors
    return {name: _cosine(asked, other) for name, other in zip(descriptions, others, strict=True)}


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    value = sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
    if not math.isfinite(value):
        raise InvalidError(
            "the embedder gave NaN or infinity", hint="look at the texts that it was given"
        )
    return value
