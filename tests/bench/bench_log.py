"""The transparency log with a million entries: appending, proving, and what a monitor has to fetch."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memcube_registry.database import Database
from memcube_registry.log import witnesses
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from memcube_signing.transparency import entry, tiles
from memcube_signing.transparency.entry import LogPolicy, TlogEntry
from memcube_signing.transparency.tiles import Tile
from support.measuring import MIB, report
from support.signing import ALICE, manifest

ENTRIES = int(os.environ.get("MEMCUBE_BENCH_LOG_ENTRIES", "1000000"))
BATCH = 512
SINGLE = 20_000
THREADS = 64
PROOFS = 1000
MANIFEST = manifest().digest
KEY = ALICE.public_key


def envelopes(start: int, count: int) -> list:
    said = (
        Statement("cube", MANIFEST, "https://example.org/bench", {"number": number})
        for number in range(start, start + count)
    )
    return [sign(one, ALICE).envelope for one in said]


def submissions(start: int, count: int) -> list[Submission]:
    """Verified anew, as a request's are."""
    return [Submission("alice/notes", one, KEY) for one in envelopes(start, count)]


def portions() -> Iterator[tuple[int, int]]:
    for start in range(SINGLE, ENTRIES, BATCH):
        yield start, min(BATCH, ENTRIES - start)


def milliseconds(times: list[float]) -> str:
    ordered = sorted(times)
    p99 = ordered[int(0.99 * len(ordered))]
    return f"p50 {1000 * statistics.median(ordered):.2f} ms, p99 {1000 * p99:.2f} ms"


def test_a_million_entries(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'log.db'}")
    database.migrate()
    log = TransparencyLog(database, b"\x07" * 32, "log.example", witnesses.parse(""))
    waiting = envelopes(0, SINGLE)
    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        made = pool.map(lambda one: log.add(Submission("alice/notes", one, KEY)), waiting)
        assert [found.index for found in made if found.index < 0] == []
    single = SINGLE / (time.perf_counter() - started)
    verifying = appending = 0.0
    last: list[float] = []
    for start, count in portions():
        signed = envelopes(start, count)
        begun = time.perf_counter()
        batch = [Submission("alice/notes", one, KEY) for one in signed]
        verified = time.perf_counter()
        log.add_all(batch)
        done = time.perf_counter()
        verifying, appending = verifying + verified - begun, appending + done - verified
        last = [*last[-99:], (done - begun) / count]
    batched = (ENTRIES - SINGLE) / (verifying + appending)
    at_end = 1 / statistics.median(last)
    rows = [
        ("append one by one from 64 threads, first 20 000", f"{single:.0f} entries/s"),
        ("append in batches of 512, signatures verified", f"{batched:.0f} entries/s"),
        ("the same, at the end of the million", f"{at_end:.0f} entries/s"),
        *proving(log),
        *fetching(log),
    ]
    report("log", f"A log of {ENTRIES} entries, SQLite with fsync", ("what", "figure"), rows)
    database.close()


def proving(log: TransparencyLog) -> list[tuple[str, str]]:
    """How long one proof takes to make, and to verify."""
    asked = submissions(0, PROOFS)
    policy = LogPolicy(log.key)
    makes: list[float] = []
    checks: list[float] = []
    size = 0
    for one in asked:
        begun = time.perf_counter()
        found: TlogEntry = log.entry(one.leaf_hash)
        made = time.perf_counter()
        signature = one.envelope.signatures[0].value
        entry.verify(found, signed=one.envelope.signed, signature=signature, key=KEY, policy=policy)
        checks.append(time.perf_counter() - made)
        makes.append(made - begun)
        size = len(str(found.to_json()))
    return [
        ("make an inclusion proof", milliseconds(makes)),
        ("verify it, with checkpoint and leaf", milliseconds(checks)),
        ("log entry in a bundle", f"{size} bytes"),
    ]


def fetching(log: TransparencyLog) -> list[tuple[str, str]]:
    """What a monitor fetches to follow the last 10 000 entries, and to audit all."""
    size = log.checkpoint().checkpoint.size
    first = max(0, size - 10_000) // tiles.WIDTH
    served = dict.fromkeys(("entries", "names", "hashes"), 0)
    for number in range(first, -(-size // tiles.WIDTH)):
        width = tiles.width_at(0, number, size)
        served["entries"] += len(log.tile(Tile(None, number, width, "entries")))
        served["names"] += len(log.tile(Tile(None, number, width, "names")))
        served["hashes"] += len(log.tile(Tile(0, number, width)))
    whole = served["entries"] * size // (size - first * tiles.WIDTH)
    return [
        ("catch up on 10 000 entries: leaves", f"{served['entries'] / MIB:.2f} MiB"),
        ("the same: tags of namespaces alone", f"{served['names'] / MIB:.2f} MiB"),
        ("the same: hashes alone, for consistency", f"{served['hashes'] / MIB:.2f} MiB"),
        ("audit of the whole log: leaves", f"{whole / MIB:.0f} MiB"),
    ]
