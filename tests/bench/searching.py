"""One contestant of the search benchmark, in a process of its own: builds, opens, is asked, tells in JSON.

python tests/bench/searching.py CONTESTANT PAGES RECORDS QUESTIONS FOLDER
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from memcube.demo.corpus import tldr_records
from memcube.memories.plaintext.index import PlaintextIndex
from memcube_protocol import text
from memcube_protocol.digest import Digest
from memcube_protocol.records import Record
from memcube_protocol.vectors import indexed_text

LANCEDB = "/usr/local/lib/lancedb"
CUBE = Digest.of(b"pages")
Ask = Callable[[str], Any]
Open = Callable[[], Ask]


class Records:
    """`count` records: the pages, and then the pages again, each with a line of its own."""

    def __init__(self, pages: Path, count: int) -> None:
        self.pages = list(tldr_records(pages))
        self.count = count

    def __call__(self) -> Iterator[Record]:
        for number in range(self.count):
            again, place = divmod(number, len(self.pages))
            page = self.pages[place]
            more = f"\nvariant {again} of entry {number * 7919 % self.count}"
            yield replace(page, id=f"{page.id}-{again}", text=page.text + more) if again else page


def memcube(records: Records, folder: Path, embedder: str | None = None) -> Open:
    PlaintextIndex.open(folder, CUBE, records, embedder=embedder).close()

    def opened() -> Ask:
        return PlaintextIndex.open(folder, CUBE, records, embedder=embedder).search

    return opened


def memcube_both(records: Records, folder: Path) -> Open:
    return memcube(records, folder, "lsa")


def qdrant_local(records: Records, folder: Path) -> Open:
    """qdrant-client without a server, in memory: our weights of terms, its search."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    client.create_collection("pages", vectors_config={}, sparse_vectors_config=sparse)
    points = []
    for number, record in enumerate(records()):
        counts = Counter(map(text.term_id, text.terms(indexed_text(record))))
        values = [count / (count + 1.2) for count in counts.values()]
        vector = models.SparseVector(indices=list(counts), values=values)
        points.append(models.PointStruct(id=number, vector={"bm25": vector}))
        if len(points) == 1000:
            client.upsert("pages", points)
            points = []
    client.upsert("pages", points) if points else None

    def ask(question: str) -> Any:
        asked = [text.term_id(term) for term in text.query_terms(question)]
        vector = models.SparseVector(indices=asked, values=[1.0] * len(asked))
        return client.query_points("pages", query=vector, using="bm25", limit=10)

    return lambda: ask


def lancedb(records: Records, folder: Path) -> Open:
    """LanceDB's full-text index, with its defaults, on this disk."""
    sys.path.append(LANCEDB)
    import lancedb as library

    def rows() -> Iterator[list[dict[str, str]]]:
        batch = []
        for record in records():
            batch.append({"id": record.id, "text": indexed_text(record)})
            if len(batch) == 10_000:
                yield batch
                batch = []
        if batch:
            yield batch

    batches = rows()
    table = library.connect(str(folder)).create_table("pages", next(batches))
    for batch in batches:
        table.add(batch)
    table.create_fts_index("text")

    def opened() -> Ask:
        pages = library.connect(str(folder)).open_table("pages")
        return lambda asked: pages.search(asked, query_type="fts").limit(10).to_list()

    return opened


CONTESTANTS: dict[str, Callable[[Records, Path], Open]] = {
    "memcube, words": memcube,
    "memcube, both (LSA)": memcube_both,
    "qdrant-client, local mode": qdrant_local,
    "LanceDB, words": lancedb,
}


def resident_bytes() -> int:
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in one]
    return int(line.split()[1]) * 1024


def questions(pages: Path, count: int) -> list[str]:
    with gzip.open(pages) as lines:
        tasks = [e["task"] for line in lines for e in json.loads(line)["examples"][-1:]]
    return random.Random(1).sample(tasks, count)


def main() -> None:
    name, pages, count, asked, folder = sys.argv[1:]
    records, place = Records(Path(pages), int(count)), Path(folder)
    started, began = time.perf_counter(), resident_bytes()
    opened = CONTESTANTS[name](records, place)
    built_s, built_bytes = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    opened()(questions(Path(pages), 1)[0])
    before, started = resident_bytes(), time.perf_counter()
    ask = opened()
    mount_ms = 1000 * (time.perf_counter() - started)
    times = []
    for question in questions(Path(pages), int(asked)):
        started = time.perf_counter()
        ask(question)
        times.append(1000 * (time.perf_counter() - started))
    times.sort()
    told = {
        "build_s": built_s,
        "peak_mib": built_bytes.ru_maxrss / 1024,
        "disk_mb": sum(path.stat().st_blocks * 512 for path in place.rglob("*")) / 1e6,
        "mount_ms": mount_ms,
        "memory_mib": (resident_bytes() - min(began, before)) / (1 << 20),
        "p50_ms": statistics.median(times),
        "p99_ms": times[int(0.99 * len(times))],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
