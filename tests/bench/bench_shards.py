"""What an edit costs: bytes to push again after 1 % of 100 000 records changed (docs/spec/records.md).

Peer: the same records as one compressed layer, as `oras push` of one file sends it.
Run: `python -m pytest -s tests/bench/bench_shards.py -o norecursedirs='.*' -o python_files='bench_*.py'`.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import zstandard
from memcube_protocol.digest import Digest
from memcube_protocol.records import Record, parse_record, write_record
from memcube_protocol.shards import ZSTD_LEVEL, compress, cut, read_shard, target_for

COUNT = 100_000
EDITED = COUNT // 100
PAGES = Path(__file__).parents[3] / "shared/data/tldr/pages.jsonl.gz"


def sentences() -> list[str]:
    """Real sentences where the shared help pages are here, else made-up ones."""
    if not PAGES.exists():
        words = [f"word{number}" for number in range(2000)]
        chosen = random.Random(1)
        return [" ".join(chosen.choices(words, k=chosen.randint(8, 40))) for _ in range(20_000)]
    with gzip.open(PAGES) as lines:
        pages = [json.loads(line) for line in lines]
    return [f"{e['task']}: {e['command']}" for page in pages for e in page["examples"]]


def corpus() -> list[Record]:
    chosen = random.Random(2)
    texts = sentences()
    return [
        Record(
            id=f"memory/{number:06d}",
            text="\n".join(chosen.sample(texts, chosen.randint(1, 8))),
            created_at="2026-03-02T08:00:00Z",
            tags=(f"topic-{number % 97}",),
        )
        for number in range(COUNT)
    ]


def edited(records: Sequence[Record], positions: Sequence[int]) -> list[Record]:
    changed = list(records)
    for at in positions:
        old = changed[at]
        changed[at] = Record(
            id=old.id, text=f"{old.text}\nEdited.", created_at=old.created_at, tags=old.tags
        )
    return changed


def pushed(records: Sequence[Record], target: int) -> dict[Digest, int]:
    """Compressed bytes by the digest of each shard."""
    return {
        shard.uncompressed_digest: len(shard.content)
        for shard in (compress(piece) for piece in cut(records, target=target))
    }


def share(before: dict[Digest, int], after: dict[Digest, int]) -> float:
    """Bytes of `after` that `before` does not have, in percent of all."""
    return 100 * sum(after[digest] for digest in after.keys() - before.keys()) / sum(after.values())


def test_bytes_pushed_again_after_an_edit() -> None:
    records = corpus()
    lines = [write_record(record) for record in records]
    total = sum(map(len, lines)) + COUNT
    target = target_for(total)
    started = time.perf_counter()
    before = pushed(records, target)
    packing = time.perf_counter() - started
    neighbours = []
    for start in range(0, COUNT - EDITED, COUNT // 7):
        after = pushed(edited(records, range(start, start + EDITED)), target)
        neighbours.append(share(before, after))
    scattered = share(
        before, pushed(edited(records, random.Random(3).sample(range(COUNT), EDITED)), target)
    )
    one = share(before, pushed(edited(records, [COUNT // 2]), target))
    whole = len(zstandard.compress(b"\n".join(lines), ZSTD_LEVEL))
    print(
        f"\n{COUNT} records, {total / 1e6:.1f} MB, target {target >> 10} KiB, {len(before)} shards"
    )
    print(f"compressed {sum(before.values()) / 1e6:.2f} MB (one layer: {whole / 1e6:.2f} MB)")
    print(f"cut and compress {packing:.2f} s, {total / packing / 1e6:.0f} MB/s")
    print(
        f"1 % neighbours: {max(neighbours):.2f} % at most, {sum(neighbours) / len(neighbours):.2f} % on average (one layer: 100 %)"
    )
    print(f"1 % scattered: {scattered:.2f} % (one layer: 100 %)")
    print(f"one record: {one:.2f} % (one layer: 100 %)")
    assert max(neighbours) <= 3


def test_records_read_and_written_each_second() -> None:
    records = corpus()
    started = time.perf_counter()
    lines = [write_record(record) for record in records]
    written = time.perf_counter()
    for line in lines:
        parse_record(line)
    parsed = time.perf_counter()
    shards = [compress(piece) for piece in cut(records)]
    packed = time.perf_counter()
    for shard in shards:
        for _ in read_shard(shard.content, shard.descriptor("a", "plaintext")):
            pass
    done = time.perf_counter()
    print(f"\nwrite {COUNT / (written - started):,.0f} records/s")
    print(f"parse {COUNT / (parsed - written):,.0f} records/s")
    print(f"read from shards, all checks {COUNT / (done - packed):,.0f} records/s")
