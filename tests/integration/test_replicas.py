"""Two and four registries on one PostgreSQL and one blob store behind nginx are one registry."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import fresh
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import Outcome, push_blobs, push_manifest_if_changed
from memcube.transfer.progress import Silent
from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor
from support.machine import Machine
from support.published import write_cube
from support.replicas import Replicas, replicas
from support.repository import IMAGE, Repository, location_of
from support.servers import MemcubeServer
from support.swift import SwiftServer
from support.wire import Reply, Wire

pytestmark = pytest.mark.timeout(240)

GC_INTERVAL_S = 3
GRACE_S = 60


@pytest.fixture(scope="module", params=["2 on a folder", "4 on S3"])
def team(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Replicas that collect garbage every few seconds."""
    settings = {
        "MEMCUBE_REGISTRY_GC_INTERVAL_S": str(GC_INTERVAL_S),
        "MEMCUBE_REGISTRY_GC_GRACE_S": str(GRACE_S),
    }
    on_s3 = request.param.endswith("S3")
    if on_s3:
        s3: SwiftServer = request.getfixturevalue("s3_server")
        settings |= s3.registry_settings()
    folder = tmp_path_factory.mktemp("replicas")
    with replicas(folder, int(request.param[0]), settings, shared_data=not on_s3) as running:
        yield running


@pytest.fixture
def ada(team: Replicas) -> tuple[str, str]:
    """Name and token of somebody with an account."""
    name = fresh("ada")
    return name, team.person(name)


def manifest_of(content: bytes) -> bytes:
    """A cube of one layer, whose config is empty."""
    return oci.write_manifest(
        artifact_type=media_types.CUBE,
        config=Descriptor.of(media_types.CONFIG, b"{}"),
        layers=[Descriptor.of(media_types.RECORDS, content)],
    ).raw


def push(repository: Repository, content: bytes, *tags: str) -> Reply:
    """The answer to the manifest of a cube with one layer, whose blobs are pushed first."""
    for blob in (b"{}", content):
        repository.add_blob(blob)
    raw = manifest_of(content)
    return repository.put_manifest(Digest.of(raw), raw, IMAGE, tags)


def whole(repository: Repository, reference: str) -> bytes:
    """The one layer of the cube that `reference` names, verified."""
    raw = repository.get_manifest(reference).body
    parsed = oci.parse(raw, None)
    assert isinstance(parsed, oci.Manifest)
    layer = parsed.layers[0]
    content = pulled(repository, layer.digest)
    assert Digest.of(content) == layer.digest
    return content


def pulled(repository: Repository, digest: Digest) -> bytes:
    """A blob, from wherever the registry says that it is."""
    answer = repository.get_blob(digest)
    if answer.status == 307:
        place = answer.header("Location")
        assert place is not None
        base, _, rest = place.partition("://")
        host, _, target = rest.partition("/")
        answer = Wire(f"{base}://{host}").get(f"/{target}")
    assert answer.status == 200, answer
    return answer.body


def in_threads(works: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


def fsck(team: Replicas) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        team.servers[0].admin("fsck", "--all", "--json", check=False).stdout
    )
    return report


def test_replicas_that_start_at_once_make_one_registry(team: Replicas) -> None:
    described = [server.wire.get("/.well-known/memcube.json").json() for server in team.servers]
    assert all(each == described[0] for each in described)
    assert described[0]["registry"] == team.url
    assert [server.wire.get("/readyz").status for server in team.servers] == [200] * len(
        team.servers
    )


def test_a_token_of_one_replica_is_accepted_by_the_others(
    team: Replicas, ada: tuple[str, str]
) -> None:
    name, token = ada
    made = team.servers[0].wire.basic(name, token).get("/token").json()["token"]
    assert [w.get("/api/v1/me").status for w in team.wires(made)] == [200] * len(team.servers)
    assert team.wire.bearer(made).get("/v2/").status == 200


def test_an_upload_goes_on_at_another_replica_chunk_by_chunk(
    team: Replicas, ada: tuple[str, str]
) -> None:
    turns = team.in_turn(ada[1], f"{ada[0]}/notes")
    content, sent = os.urandom(1_300_000), 0
    location = location_of(next(turns).start_upload())
    while sent < len(content):
        chunk = content[sent : sent + 200_000]
        reply = next(turns).patch(location, chunk, start=sent)
        assert reply.status == 202, reply
        sent += len(chunk)
        state = next(turns).wire.get(location)
        assert (state.status, state.header("Range")) == (204, f"0-{sent - 1}")
    assert next(turns).finish_upload(location, Digest.of(content)).status == 201
    for _ in team.servers:
        assert pulled(next(turns), Digest.of(content)) == content


def test_uploads_pass_through_nginx_whole_and_paths_as_they_came(
    team: Replicas, ada: tuple[str, str]
) -> None:
    repository = Repository(team.wire.bearer(ada[1]), f"{ada[0]}/through")
    content = os.urandom(5_000_000)
    location = repository.upload_location()
    pieces = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
    assert repository.patch(location, pieces).status == 202
    assert repository.finish_upload(location, Digest.of(content)).status == 201
    assert pulled(repository, Digest.of(content)) == content
    direct = team.servers[0].wire.bearer(ada[1])
    for method in ("GET", "PUT"):
        for path in ("/v2//", "/v2/a//b/tags/list", "/v2/a%2Fb/tags/list", "/v2/a/../tags/list"):
            expected = direct.send(method, path)
            assert repository.wire.send(method, path).status == expected.status, (method, path)
    for path in ("/metrics", "/readyz"):
        assert repository.wire.get(path).status == 404


def test_wrong_logins_are_counted_by_all_replicas_together(team: Replicas) -> None:
    begun = time.monotonic()
    wires = [server.wire.bearer("mct_wrong") for server in team.servers]
    answers = [wires[n % len(wires)].get("/v2/").status for n in range(60)]
    lasted_s = time.monotonic() - begun
    assert set(answers) == {401, 429}
    # 60 a minute with a burst of ten: counted apart, each replica would let as many pass.
    assert answers.count(401) <= 10 + lasted_s + 1
    # Those who know who they are are not held up by that.
    assert team.servers[0].wire.get("/healthz").status == 200


def test_a_quota_holds_however_many_replicas_are_pushed_to(team: Replicas) -> None:
    name, size, room = fresh("small"), 100_000, 8
    token = team.person(name, "--quota", str(room * size + size // 2))
    contents = [bytes([n]) * size for n in range(4 * room)]

    def pusher(wire: Wire, mine: list[bytes]) -> Callable[[], list[int]]:
        repository = Repository(wire, f"{name}/notes")
        return lambda: [repository.put_blob(one, Digest.of(one)).status for one in mine]

    wires = team.wires(token) * (4 // len(team.servers))
    answers = in_threads([pusher(wire, contents[n::4]) for n, wire in enumerate(wires)])
    statuses = [status for each in answers for status in each]
    assert set(statuses) <= {201, 403, 413, 503}, statuses
    used = team.wires(token)[0].get("/api/v1/me").json()["usedBytes"]
    assert used == statuses.count(201) * size
    assert statuses.count(201) <= room
    assert fsck(team)["damage"] == 0


def test_a_tag_never_goes_backwards(team: Replicas, ada: tuple[str, str]) -> None:
    name = f"{ada[0]}/moving"
    versions = [b"version %d" % n for n in range(24)]
    numbers = {str(Digest.of(manifest_of(one))): n for n, one in enumerate(versions)}
    turns = team.in_turn(ada[1], name)
    assert push(next(turns), versions[0], "latest").status == 201
    acknowledged, stopped = [0], threading.Event()

    def read() -> int:
        wires, reads, seen = [*team.wires(ada[1]), team.wire.bearer(ada[1])], 0, 0
        choose = random.Random(threading.get_ident())
        while not stopped.is_set() or not reads:
            least = max(seen, acknowledged[0])
            found = Repository(choose.choice(wires), name).head_manifest("latest")
            assert found.status == 200, found
            seen = numbers[str(found.header("Docker-Content-Digest"))]
            assert seen >= least, "an older version than one that was acknowledged, or seen"
            reads += 1
        return reads

    def write() -> int:
        try:
            for number, version in enumerate(versions):
                assert push(next(turns), version, "latest").status == 201
                acknowledged[0] = number
        finally:
            stopped.set()
        return len(versions)

    assert all(in_threads([write, read, read, read]))


def test_one_of_several_wins_a_version(team: Replicas, ada: tuple[str, str]) -> None:
    wires = team.wires(ada[1]) * (4 // len(team.servers))
    repositories = [Repository(wire, f"{ada[0]}/race") for wire in wires]
    contents = [b"candidate %d" % n for n in range(4)]
    for repository, content in zip(repositories, contents, strict=True):
        push(repository, content)
    barrier = threading.Barrier(4)

    def publish(repository: Repository, content: bytes) -> int:
        raw = manifest_of(content)
        barrier.wait(30)
        return repository.put_manifest("1.0.0", raw).status

    works = [
        lambda r=r, c=c: publish(r, c)  # type: ignore[misc]
        for r, c in zip(repositories, contents, strict=True)
    ]
    statuses = in_threads(works)
    assert sorted(statuses) == [201, 409, 409, 409]
    winner = contents[statuses.index(201)]
    assert [whole(each, "1.0.0") for each in repositories] == [winner] * 4


def test_garbage_is_collected_by_one_replica_at_a_time_and_pushes_survive_it(
    team: Replicas, ada: tuple[str, str]
) -> None:
    before, begun = collections(team), time.monotonic()
    kept: dict[str, bytes] = {}

    def pusher(number: int, wire: Wire) -> Callable[[], None]:
        def work() -> None:
            repository = Repository(wire, f"{ada[0]}/garbage-{number}")
            for count in range(8):
                content = b"%d of %d" % (count, number)
                assert push(repository, content, "latest").status == 201
                kept[repository.name] = content

        return work

    def collect() -> None:
        for _ in range(2):
            team.servers[0].admin("gc", own_process=True)

    wires = team.wires(ada[1]) * (4 // len(team.servers))
    in_threads([*(pusher(n, wire) for n, wire in enumerate(wires)), collect, collect])
    # Wait for a run by the clock of the replicas, then compare with how many there may have been.
    while collections(team) < before + 2:
        time.sleep(0.2)
    lasted_s = time.monotonic() - begun
    assert collections(team) - before <= lasted_s / GC_INTERVAL_S + 2
    for name, content in kept.items():
        assert whole(Repository(wires[0], name), "latest") == content
    assert fsck(team)["damage"] == 0


def collections(team: Replicas) -> int:
    """How often garbage was collected so far, by whichever replica."""
    return len(re.findall(r'"garbage collected"', team.log_text()))


class Killing(Silent):
    """Kills a replica once so many bytes of a push have passed."""

    def __init__(self, server: MemcubeServer, after_bytes: int) -> None:
        self.server, self.left_bytes, self.killed = server, after_bytes, False

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        self.left_bytes -= size_bytes
        if self.left_bytes <= 0 and not self.killed:
            self.killed = True
            self.server.kill()


def test_a_push_goes_on_at_another_replica_when_one_is_killed(
    team: Replicas, ada: tuple[str, str], tmp_path: Path
) -> None:
    victim, name = team.servers[-1], f"{ada[0]}/killed"
    store = Store(tmp_path / "publisher")
    layers = [
        Descriptor(media_types.RECORDS, *store.blobs.add(os.urandom(4 * limits.MIB)))
        for _ in range(6)
    ]
    config = Descriptor(media_types.CONFIG, *store.blobs.add(b"{}"))
    cube = oci.write_manifest(artifact_type=media_types.CUBE, config=config, layers=layers)
    settings = Settings.load({"MEMCUBE_HOME": str(tmp_path)})
    http = HttpClient(
        settings,
        find_credentials=lambda asked: Credentials("", ada[1]),
        retry=RetryPolicy(first_wait_s=0.1),
    )
    registry = Registry(team.host, http, settings)
    killing = Killing(victim, 8 * limits.MIB)
    try:
        report = push_blobs(registry, name, cube.blobs, store, progress=killing)
        assert killing.killed
        assert report.count(Outcome.SENT) == 7
        push_manifest_if_changed(registry, name, cube, "1.0.0")
    finally:
        http.close()
        team.start(victim)
    for wire in team.wires(ada[1]):
        repository = Repository(wire, name)
        assert repository.get_manifest("1.0.0").body == cube.raw
        assert all(Digest.of(pulled(repository, blob.digest)) == blob.digest for blob in cube.blobs)
    assert fsck(team)["damage"] == 0


def test_replicas_that_are_taken_out_first_are_restarted_and_nobody_notices(
    team: Replicas, ada: tuple[str, str]
) -> None:
    repository = Repository(team.wire.bearer(ada[1]), f"{ada[0]}/rolling")
    stopped = threading.Event()
    assert push(repository, b"steady", "latest").status == 201

    def read() -> list[int]:
        statuses = []
        while not stopped.is_set():
            statuses.append(repository.get_manifest("latest").status)
        return statuses

    def write() -> list[int]:
        """Requests without a second try: each has to succeed."""
        statuses: list[int] = []
        while not stopped.is_set():
            content = b"%d" % len(statuses)
            statuses.append(push(repository, content, f"v{len(statuses)}").status)
        return statuses

    def restart() -> list[int]:
        try:
            for server in team.servers:
                team.balancer.reload(down=server.port)
                server.stop()
                team.start(server)
                team.balancer.reload()
        finally:
            stopped.set()
        return []

    readings, writings, _ = in_threads([read, write, restart])
    assert set(readings) == {200}
    assert set(writings) == {201}
    assert len(repository.tags()) == 1 + len(writings)
    assert fsck(team)["damage"] == 0


def test_releases_through_all_replicas_are_one_log(team: Replicas, tmp_path: Path) -> None:
    """Two people publish at once, with the real client; each cube verifies, and the log is whole."""
    names = [fresh("person") for _ in range(2)]
    people = [
        Machine(tmp_path / name, team.url, team.person(name), own_process=True) for name in names
    ]
    before = fsck(team)["checked"]["logEntries"]

    def publish(name: str, machine: Machine) -> None:
        for version in ("1.0.0", "1.1.0"):
            folder = write_cube(tmp_path / f"{name}-{version}", f"{name}/notes", version)
            machine.ok("push", folder)

    in_threads(
        [lambda n=n, m=m: publish(n, m) for n, m in zip(names, people, strict=True)]  # type: ignore[misc]
    )
    for name, machine in zip(names, people, strict=True):
        assert machine.json("verify", f"{name}/notes:1.1.0")["standing"] == "trusted"
    report = fsck(team)
    assert report["damage"] == 0
    assert report["checked"]["logEntries"] >= before + 4
