"""The transparency log with a million entries: appending, proving, over HTTP, and what it costs to watch it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import statistics
import subprocess
import time
from contextlib import closing
from pathlib import Path

from conftest import NO_LIMITS
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act, parse_scopes
from memcube_registry.accounts.service import create_account
from memcube_registry.database import Database
from memcube_registry.delivery.service import authorize
from memcube_registry.log import witnesses
from memcube_registry.log.intake import Arrival
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from memcube_signing.transparency import entry
from memcube_signing.transparency.entry import LogPolicy, TlogEntry
from support.machine import Machine
from support.measuring import MIB, cpu_seconds, measure, report
from support.servers import MemcubeServer, command, memcube_server
from support.signing import ALICE, manifest

ENTRIES = int(os.environ.get("MEMCUBE_BENCH_LOG_ENTRIES", "1000000"))
BATCH = 512
SINGLE = min(20_000, ENTRIES // 4)
PROOFS = 1000
HTTP_SECONDS = 10
HTTP_BODIES = 60_000
TAIL = min(10_000, ENTRIES // 2)
SEED = b"\x07" * 32
MANIFEST = manifest().digest
KEY = ALICE.public_key
NAME = "alice/notes"

SEND_EACH_ONCE = """
local bodies, at = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
request = function()
  at = at + 1
  return wrk.format("POST", nil, nil, bodies[at])
end
"""
Rows = list[tuple[str, str]]


def envelopes(start: int, count: int) -> list:
    said = (
        Statement("cube", MANIFEST, "https://example.org/bench", {"number": number})
        for number in range(start, start + count)
    )
    return [sign(one, ALICE).envelope for one in said]


def submissions(start: int, count: int) -> list[Submission]:
    """Verified anew, as a request's are."""
    return [Submission(NAME, one, KEY) for one in envelopes(start, count)]


def bodies(start: int, count: int, name: str = NAME) -> list[bytes]:
    """As clients send them."""
    key = base64.b64encode(KEY.der).decode()
    return [
        json.dumps({"repository": name, "envelope": one.to_json(), "publicKey": key}).encode()
        for one in envelopes(start, count)
    ]


def milliseconds(times: list[float]) -> str:
    ordered = sorted(times)
    p99 = ordered[int(0.99 * len(ordered))]
    return f"p50 {1000 * statistics.median(ordered):.2f} ms, p99 {1000 * p99:.2f} ms"


def rate(count: int, wall_s: float, cpu_s: float) -> str:
    return f"{count / wall_s:.0f} entries/s, {1e6 * cpu_s / count:.0f} µs of CPU each"


def test_a_million_entries(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "log.key").touch(0o600)
    (data / "log.key").write_bytes(SEED)
    rows: Rows = []
    with closing(Database(f"sqlite:///{data / 'registry.db'}")) as database:
        database.migrate()
        log = TransparencyLog(database, SEED, "log.example", witnesses.parse(""))
        alice = owner(database)
        rows += [
            (f"append one by one, {tasks} at once", appending(log, alice, tasks, start))
            for tasks, start in ((64, 0), (512, SINGLE // 2))
        ]
        rows += [*growing(log), *proving(log)]
    with memcube_server(folder, NO_LIMITS) as server:
        rows += [*watching(server, tmp_path), *asking(server), *submitting(server, tmp_path)]
    report("log", f"A log of {ENTRIES} entries, SQLite with fsync", ("what", "figure"), rows)


def owner(database: Database) -> Principal:
    """Alice, with a cube."""
    with database.write() as session:
        account = create_account(session, "alice")
        alice = Principal(account.id, "alice", parse_scopes("pull push"))
        authorize(session, alice, NAME, Act.WRITE)
    return alice


def appending(log: TransparencyLog, alice: Principal, tasks: int, start: int) -> str:
    """Each entry a submission of its own: parsed, verified, admitted, logged, answered."""
    waiting = iter(bodies(start, SINGLE // 2))

    async def submit() -> None:
        for raw in waiting:
            await log.take(Arrival(alice, raw))

    async def submit_all() -> None:
        await asyncio.gather(*(submit() for _ in range(tasks)))

    begun, used = time.perf_counter(), time.process_time()
    asyncio.run(submit_all())
    return rate(SINGLE // 2, time.perf_counter() - begun, time.process_time() - used)


def growing(log: TransparencyLog) -> Rows:
    """The rest of the entries, in batches."""
    wall = cpu = 0.0
    last: list[float] = []
    for start in range(SINGLE, ENTRIES, BATCH):
        count = min(BATCH, ENTRIES - start)
        signed = envelopes(start, count)
        begun, used = time.perf_counter(), time.process_time()
        log.add_all([Submission(NAME, one, KEY) for one in signed])
        wall += (took := time.perf_counter() - begun)
        cpu += time.process_time() - used
        last = [*last[-99:], took / count]
    return [
        (
            f"append in batches of {BATCH}, signatures verified",
            rate(ENTRIES - SINGLE, wall, cpu),
        ),
        ("the same, the last 100 batches", f"{1 / statistics.median(last):.0f} entries/s"),
    ]


def proving(log: TransparencyLog) -> Rows:
    """How long one proof takes to make, and to verify: entries from all over the tree."""
    policy = LogPolicy(log.key)
    makes: list[float] = []
    checks: list[float] = []
    size = 0
    for number in range(0, ENTRIES, max(1, ENTRIES // PROOFS)):
        (one,) = submissions(number, 1)
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


def watching(server: MemcubeServer, folder: Path) -> Rows:
    """`memcube log audit` and `memcube log monitor` as processes, against the served log."""
    server.create_account("carol")
    machine = Machine(folder / "carol", server.url, server.create_token("carol", "pull"))
    rows: Rows = []
    for what, words in (
        ("memcube log audit of the whole log", ("audit",)),
        ("memcube log monitor of the whole log", ("monitor", "carol")),
        (
            f"memcube log monitor, the last {TAIL}",
            ("monitor", "carol", "--since", str(ENTRIES - TAIL)),
        ),
    ):
        arguments = [command("memcube"), "log", *words]
        assert server.process is not None
        cost = measure(arguments, server=server.process.pid, env=machine.environment)
        read = machine.json("log", *words)["fetchedBytes"]
        figure = (
            f"{cost.wall_s:.1f} s, {read / MIB:.1f} MiB; CPU {cost.client_cpu_s:.1f} s and "
            f"{cost.server_cpu_s:.1f} s of the server; at most {cost.peak_bytes / MIB:.0f} MiB of memory"
        )
        rows.append((what, figure))
    return rows


def asking(server: MemcubeServer) -> Rows:
    """Proofs over HTTP, one after the other."""
    times: list[float] = []
    for number in range(0, ENTRIES, max(1, ENTRIES // PROOFS)):
        (one,) = submissions(number, 1)
        path = f"/api/v1/log/entries/{one.leaf_hash.hex()}"
        begun = time.perf_counter()
        assert server.wire.get(path).status == 200
        times.append(time.perf_counter() - begun)
    return [("the same inclusion proofs over HTTP, with a connection each", milliseconds(times))]


def submitting(server: MemcubeServer, folder: Path) -> Rows:
    """Entries over HTTP, one a request, from 64 connections of wrk."""
    if shutil.which("wrk") is None:
        return []
    token = server.create_token("alice", "pull", "push")
    waiting, script = folder / "bodies", folder / "send.lua"
    waiting.write_bytes(b"".join(raw + b"\n" for raw in bodies(ENTRIES, HTTP_BODIES)))
    script.write_text(SEND_EACH_ONCE)
    assert server.process is not None
    begun, used, before = time.perf_counter(), cpu_seconds(server.process.pid), size_of(server)
    words = ["wrk", "-t1", "-c64", f"-d{HTTP_SECONDS}s", "--timeout", "30s", "-s", str(script)]
    words += ["-H", f"Authorization: Bearer {token}", f"{server.url}/api/v1/log/entries"]
    env = os.environ | {"BODIES": str(waiting)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert "Non-2xx" not in done.stdout, done.stdout
    wall, cpu = time.perf_counter() - begun, cpu_seconds(server.process.pid) - used
    count = size_of(server) - before
    return [("append over HTTP, 64 connections, one server process", rate(count, wall, cpu))]


def size_of(server: MemcubeServer) -> int:
    return int(server.wire.get("/log/checkpoint").body.split(b"\n")[1])
