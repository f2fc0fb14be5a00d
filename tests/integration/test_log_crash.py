"""A log that is killed while it writes keeps every entry whose inclusion it promised."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from memcube_registry.database import Database
from memcube_registry.log import witnesses
from memcube_registry.log.service import TransparencyLog
from memcube_signing.transparency import checkpoint, merkle, tiles
from memcube_signing.transparency.tiles import Tile

WRITER = """
import sys
sys.path.insert(0, {tests!r})
from concurrent.futures import ThreadPoolExecutor
from memcube_registry.database import Database
from memcube_registry.log import witnesses
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from support.signing import ALICE, manifest

log = TransparencyLog(Database({url!r}), b"\\x07" * 32, "log.example", witnesses.parse(""))

def add(number):
    said = Statement("cube", manifest("one").digest, "https://example.org/test", {{"n": number}})
    one = Submission("alice/notes", sign(said, ALICE).envelope, ALICE.public_key)
    found = log.add(one)
    sys.stdout.write(f"{{found.index}} {{one.leaf_hash.hex()}}\\n")
    sys.stdout.flush()

with ThreadPoolExecutor(8) as pool:
    list(pool.map(add, range({start}, {start} + 100_000)))
"""


@pytest.mark.timeout(300)
def test_no_promised_entry_is_lost_when_the_process_is_killed(database_url: str) -> None:
    promised: dict[int, str] = {}
    for attempt in range(4):
        source = WRITER.format(
            tests=str(Path(__file__).parents[1]), url=database_url, start=attempt * 1_000_000
        )
        process = subprocess.Popen(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(random.uniform(0.05, 0.6))
        process.kill()
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        whole = [line.split() for line in lines if line.endswith("\n")]
        promised |= {int(number): leaf for number, leaf in whole}
    assert len(promised) > 4
    check(database_url, promised)


def check(url: str, promised: dict[int, str]) -> None:
    """What was promised is there, and tiles, entries and checkpoint agree."""
    database = Database(url)
    log = TransparencyLog(database, b"\x07" * 32, "log.example", witnesses.parse(""))
    state = checkpoint.verify(log.checkpoint(), log.key)
    leaves = [
        merkle.leaf_hash(body)
        for first in range(0, state.size, 256)
        for body in tiles.parse_entries(
            log.tile(Tile(None, first // 256, min(256, state.size - first), "entries"))
        )
    ]
    assert {number: leaves[number].hex() for number in promised} == promised
    _, hash_at = tiles.appended(0, {}, leaves)
    assert merkle.root(state.size, hash_at) == state.root
    for number in list(promised)[:: max(1, len(promised) // 20)]:
        found = log.entry(leaves[number])
        merkle.verify_inclusion(leaves[number], number, state.size, found.proof, state.root)
    database.close()
