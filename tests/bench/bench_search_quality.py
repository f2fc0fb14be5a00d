"""How well searches find: real questions with known answers, in English, in Chinese, and from one to the other.

A page of help says what each of its examples does. One such line is taken out of the indexed copy of a
page and becomes the question; the page is what should be found. A line that stands on several pages is
nobody's question. For English questions about Chinese pages, the line comes from the English page of the
same command, and only Chinese pages are searched (`Filters(tags=["zh"])`).
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from memcube.demo.corpus import _page
from memcube.importers.foreign import record_id
from memcube.memories.plaintext.embedders import Embedder, FunctionEmbedder
from memcube.memories.plaintext.index import Filters, PlaintextIndex
from memcube.memories.plaintext.lsa import LsaEmbedder
from memcube_protocol import text
from memcube_protocol.digest import Digest
from memcube_protocol.records import Record
from memcube_protocol.vectors import indexed_text
from support.measuring import report

PAGES = Path(__file__).parents[3] / "shared/data/tldr/pages.jsonl.gz"
QUESTIONS = int(os.environ.get("MEMCUBE_BENCH_QUESTIONS", "1000"))
DEEP = 100
"""How far down a page still counts for the mean reciprocal rank."""
SETS = ("English", "Chinese", "English, about Chinese pages")
Search = Callable[[str, bool], list[str]]
"""Ids of the pages found for a question, best first; among Chinese pages only, if so asked."""


@dataclass(frozen=True)
class Question:
    text: str
    wanted: str


class Corpus:
    """The pages without the lines that were asked, and the questions."""

    def __init__(self, path: Path) -> None:
        with gzip.open(path) as lines:
            pages = [json.loads(line) for line in lines]
        chosen = random.Random(7)
        said = Counter(example["task"].strip() for page in pages for example in page["examples"])
        asked = {
            self.key(page): chosen.choice(unique)
            for page in pages
            if (
                unique := [
                    n for n, e in enumerate(page["examples"]) if said[e["task"].strip()] == 1
                ]
            )
        }
        here = {self.key(page): page for page in pages}
        english = [key for key in asked if key[0] == "en"]
        chinese = [key for key in asked if key[0] == "zh"]
        both = [key for key in english if ("zh", *key[1:]) in here]
        picked = [
            chosen.sample(keys, min(QUESTIONS, len(keys))) for keys in (english, chinese, both)
        ]
        targets = [picked[0], picked[1], [("zh", *key[1:]) for key in picked[2]]]
        self.questions = {
            name: [
                Question(here[key]["examples"][asked[key]]["task"].strip(), self.id(target))
                for key, target in zip(keys, wanted, strict=True)
            ]
            for name, keys, wanted in zip(SETS, picked, targets, strict=True)
        }
        taken = {key: asked[key] for keys in picked for key in keys}
        self.records = [self.record(page, taken.get(self.key(page))) for page in pages]

    @staticmethod
    def key(page: dict[str, Any]) -> tuple[str, str, str]:
        return page["language"], page["platform"], page["page"]

    @staticmethod
    def id(key: tuple[str, str, str]) -> str:
        return record_id("/".join(key))

    @staticmethod
    def record(page: dict[str, Any], without: int | None) -> Record:
        """The record of a page, the task of one example left out; its command stays."""
        record = _page(page)
        if without is None:
            return record
        task = page["examples"][without]["task"]
        left = record.text.replace(f"\n{task}:\n", "\n", 1)
        assert left != record.text
        return Record(
            id=record.id,
            text=left,
            type=record.type,
            subject=record.subject,
            tags=record.tags,
            source=record.source,
        )

    def read(self) -> Iterator[Record]:
        return iter(self.records)

    @cached_property
    def is_chinese(self) -> list[bool]:
        return ["zh" in record.tags for record in self.records]


def ours(index: PlaintextIndex) -> Search:
    def search(question: str, chinese: bool) -> list[str]:
        filters = Filters(tags=["zh"]) if chinese else None
        return [hit.record.id for hit in index.search(question, DEEP, filters)]

    return search


def reciprocal_ranks(words: Search, meanings: Search) -> Search:
    """Both rankings as one by the usual rule, 1 / (60 + rank), each counting the same."""

    def search(question: str, chinese: bool) -> list[str]:
        scores: Counter[str] = Counter()
        for ranking in (words, meanings):
            for place, found in enumerate(ranking(question, chinese), 1):
                scores[found] += 1 / (60 + place)  # type: ignore[assignment]
        return [found for found, _ in scores.most_common(DEEP)]

    return search


def rank_bm25(corpus: Corpus, cut: Callable[[str], Sequence[str]]) -> Search:
    """The package rank-bm25 with its defaults, over the words that `cut` makes."""
    np, library = pytest.importorskip("numpy"), pytest.importorskip("rank_bm25")
    peer = library.BM25Okapi([list(cut(indexed_text(record))) for record in corpus.records])
    chinese_pages = np.array(corpus.is_chinese)

    def search(question: str, chinese: bool) -> list[str]:
        scores = peer.get_scores(list(cut(question)))
        if chinese:
            scores = np.where(chinese_pages, scores, 0.0)
        best = np.argsort(-scores, kind="stable")[:DEEP]
        return [corpus.records[n].id for n in best if scores[n] > 0]

    return search


def qdrant_bm25(corpus: Corpus, folder: Path) -> tuple[Search, Callable[[], None]]:
    """Qdrant's own BM25: its words, English stemmer and stop words, with its defaults."""
    edge = pytest.importorskip("qdrant_edge")
    sparse = {"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)}
    folder.mkdir()
    shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(sparse_vectors=sparse))
    model = edge.Bm25()
    points = [
        edge.Point(
            number,
            {"bm25": model.embed_document(indexed_text(record))},
            {"tags": list(record.tags)},
        )
        for number, record in enumerate(corpus.records)
    ]
    for start in range(0, len(points), 1000):
        shard.update(edge.UpdateOperation.upsert_points(points[start : start + 1000]))
    only = edge.Filter(must=[edge.FieldCondition("tags", match=edge.MatchValue("zh"))])

    def search(question: str, chinese: bool) -> list[str]:
        request = edge.QueryRequest(
            limit=DEEP,
            query=edge.Query.Nearest(model.embed_query(question), using="bm25"),
            filter=only if chinese else None,
        )
        return [corpus.records[point.id].id for point in shard.query(request)]

    return search, shard.close


def measured(search: Search, questions: Sequence[Question], chinese: bool) -> list[object]:
    """recall@1, @5, @10 in percent, and the mean reciprocal rank."""
    places = []
    for question in questions:
        found = search(question.text, chinese)
        places.append(found.index(question.wanted) + 1 if question.wanted in found else None)
    recalls = [
        100 * sum(place is not None and place <= k for place in places) / len(places)
        for k in (1, 5, 10)
    ]
    reciprocal = sum(1 / place for place in places if place) / len(places)
    return [*(f"{recall:.1f}" for recall in recalls), f"{reciprocal:.3f}"]


def of_share(embedder: LsaEmbedder, share: float) -> Embedder:
    """`embedder`, its vectors counting `share`."""
    return FunctionEmbedder(
        embedder.texts,
        name=f"share {share}",
        query=lambda asked: embedder.query(asked[0]),
        share=share,
    )


@pytest.mark.skipif(not PAGES.exists(), reason="the shared tldr pages are not here")
def test_what_is_found(tmp_path: Path) -> None:
    corpus = Corpus(PAGES)
    cube, lsa = Digest.of(b"tldr"), LsaEmbedder.fit(corpus.read(), total=len(corpus.records))
    indexes = {
        "words": PlaintextIndex.open(tmp_path, cube, corpus.read),
        "hybrid": PlaintextIndex.open(
            tmp_path, cube, corpus.read, embedder=of_share(lsa, lsa.share)
        ),
        "vectors": PlaintextIndex.open(tmp_path, cube, corpus.read, embedder=of_share(lsa, 1.0)),
    }
    words, vectors = ours(indexes["words"]), ours(indexes["vectors"])
    own, close = qdrant_bm25(corpus, tmp_path / "peer")
    contestants: dict[str, Search] = {
        "memcube, words (BM25)": words,
        "memcube, vectors (LSA)": vectors,
        "memcube, both (the default with vectors)": ours(indexes["hybrid"]),
        "memcube, both by reciprocal ranks": reciprocal_ranks(words, vectors),
        "rank-bm25, our terms": rank_bm25(corpus, text.terms),
        "rank-bm25, split at spaces": rank_bm25(corpus, lambda said: said.lower().split()),
        "Qdrant's BM25": own,
    }
    rows = [
        [name, with_what, *measured(search, questions, name == SETS[2])]
        for name, questions in corpus.questions.items()
        for with_what, search in contestants.items()
    ]
    close()
    for index in indexes.values():
        index.close()
    asked = ", ".join(f"{len(q)} {name}" for name, q in corpus.questions.items())
    report(
        "search_quality",
        f"{len(corpus.records)} pages; questions: {asked}",
        ["questions", "searched with", "recall@1 %", "recall@5 %", "recall@10 %", "MRR"],
        rows,
    )
