"""The plaintext index on real text: build, mount and query, against qdrant-client's local mode.

Each page's example task is a query; the page that holds it is the target. It measures speed and, as a
sanity check, how often the page comes first; quality proper is measured elsewhere.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections import Counter
from pathlib import Path

import pytest
from memcube.demo.corpus import handbook, tldr_records
from memcube.importers.foreign import record_id
from memcube.memories.plaintext import PlaintextIndex
from memcube.memories.plaintext_build import indexed_text, merge_terms
from memcube_protocol import text
from memcube_protocol.digest import Digest

PAGES = Path(__file__).parents[3] / "shared/data/tldr/pages.jsonl.gz"
QUERIES = 1000
PEER_QUERIES = 20


def queries() -> list[tuple[str, str]]:
    """A task of a page, and the id of the page."""
    with gzip.open(PAGES) as lines:
        pages = [json.loads(line) for line in lines]
    step = max(1, len(pages) // QUERIES)
    return [
        (
            page["examples"][-1]["task"],
            record_id(f"{page['language']}/{page['platform']}/{page['page']}"),
        )
        for page in pages[::step]
        if page["examples"]
    ]


def milliseconds(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[int(0.99 * len(ordered))]
    return f"p50 {1000 * statistics.median(ordered):.2f} ms, p99 {1000 * p99:.2f} ms"


@pytest.mark.skipif(not PAGES.exists(), reason="the shared tldr pages are not here")
def test_build_mount_and_query(tmp_path: Path) -> None:
    records = list(tldr_records(PAGES))
    cube = Digest.of(b"tldr")
    started = time.perf_counter()
    PlaintextIndex.open(tmp_path, cube, lambda: records).close()
    built = time.perf_counter()
    index = PlaintextIndex.open(tmp_path, cube, handbook)
    mounted = time.perf_counter()
    times, first = [], 0
    asked = queries()
    for query, wanted in asked:
        at = time.perf_counter()
        hits = index.search(query, 10)
        times.append(time.perf_counter() - at)
        first += bool(hits) and hits[0].record.id == wanted
    index.close()
    size = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*"))
    print(
        f"\n{len(records)} records: built in {built - started:.2f} s, {size / 1e6:.1f} MB on disk"
    )
    print(f"mounted in {1000 * (mounted - built):.0f} ms, query {milliseconds(times)}")
    print(f"the page of its task comes first: {100 * first / len(asked):.1f} % of {len(asked)}")


@pytest.mark.skipif(not PAGES.exists(), reason="the shared tldr pages are not here")
def test_the_local_mode_of_qdrant_client() -> None:
    from qdrant_client import QdrantClient, models

    records = list(tldr_records(PAGES))
    client = QdrantClient(":memory:")
    sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    client.create_collection("pages", vectors_config={}, sparse_vectors_config=sparse)
    started = time.perf_counter()
    points = []
    for position, record in enumerate(records):
        counts = Counter(text.terms(indexed_text(record)))
        indices, values = merge_terms(
            (term, count / (count + 1.2)) for term, count in counts.items()
        )
        vector = {"bm25": models.SparseVector(indices=indices, values=values)}
        points.append(models.PointStruct(id=position, vector=vector))
    client.upsert("pages", points)
    built = time.perf_counter()
    times = []
    for query, _ in queries()[:PEER_QUERIES]:
        indices, values = merge_terms((term, 1.0) for term in text.query_terms(query))
        vector = models.SparseVector(indices=indices, values=values)
        at = time.perf_counter()
        client.query_points("pages", query=vector, using="bm25", limit=10)
        times.append(time.perf_counter() - at)
    client.close()
    print(
        f"\nqdrant-client local, memory: built in {built - started:.2f} s, query {milliseconds(times)}"
    )
