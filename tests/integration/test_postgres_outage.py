"""A registry whose PostgreSQL is killed: it says so, loses nothing it acknowledged, and goes on by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person
from memcube_protocol.digest import Digest
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.accounts.service import create_account
from memcube_registry.accounts.tokens import create_token
from memcube_registry.database import Database, utc_now
from support.postgres import Cluster, own_cluster
from support.samples import Sample, one_image
from support.servers import MemcubeServer, memcube_server

SOON_S = 100


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


@pytest.fixture
def ada(tmp_path: Path, cluster: Cluster) -> Iterator[Person]:
    """Somebody on a registry of two processes on this cluster."""
    url = cluster.url(cluster.create())
    settings = {
        "MEMCUBE_REGISTRY_DATABASE_URL": url,
        "MEMCUBE_REGISTRY_WORKERS": "2",
        "MEMCUBE_REGISTRY_POSTGRES_CONNECT_TIMEOUT_S": str(SOON_S),
    }
    with memcube_server(tmp_path, NO_LIMITS | settings) as server:
        with closing(Database(url)) as database, database.write() as session:
            account, scopes = create_account(session, "ada"), parse_scopes(" ".join(ALL_SCOPES))
            token, _ = create_token(session, account, "test", scopes, now=utc_now())
        yield Person(server, "ada", token)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def process_of(server: MemcubeServer) -> int:
    assert server.process
    return server.process.pid


def test_every_answer_says_when_to_come_back_and_the_first_after_it_is_right(
    ada: Person, cluster: Cluster
) -> None:
    repository, sample = ada.repository("notes"), one_image("v1")
    sample.push(repository)
    before = process_of(ada.server)
    digest = next(iter(sample.blobs))
    for how in ("immediate", "fast"):
        cluster.stop(how)
        # Both processes, whatever connections they keep: each is asked several times.
        for _ in range(4):
            for reply in (
                ada.wire.get("/readyz"),
                ada.wire.get("/api/v1/me"),
                repository.get_blob(digest),
                repository.get_manifest("v1"),
                repository.put_manifest("v2", sample.manifests[sample.top]),
                repository.start_upload(),
            ):
                assert reply.status == 503, reply
                assert int(reply.header("Retry-After") or 0) > 0
            assert ada.wire.get("/healthz").status == 200
        cluster.start()
        assert ada.wire.get("/readyz").status == 200
        for _ in range(4):
            assert repository.get_manifest("v1").body == sample.manifests[sample.top]
            assert repository.get_blob(digest).body == sample.blobs[digest]
        content = how.encode()
        assert repository.put_blob(content, Digest.of(content)).status == 201
    assert process_of(ada.server) == before


@pytest.mark.timeout(300)
def test_what_was_acknowledged_while_it_came_and_went_is_there(
    ada: Person, cluster: Cluster
) -> None:
    acknowledged: list[tuple[str, Sample]] = []
    finished = threading.Event()

    def push(number: int) -> None:
        repository, count = ada.repository(f"notes-{number}"), 0
        while not finished.is_set():
            count += 1
            sample = one_image(f"v{count}")
            try:
                sample.push(repository)
            except AssertionError:  # refused meanwhile
                time.sleep(0.02)
            else:
                acknowledged.append((f"notes-{number}", sample))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            enough = len(acknowledged) + 3
            wait_until(lambda enough=enough: len(acknowledged) >= enough)
            cluster.stop()
            cluster.start()
        enough = len(acknowledged) + 3
        wait_until(lambda: len(acknowledged) >= enough)
    finally:
        finished.set()
        for thread in threads:
            thread.join(SOON_S)
    for name, sample in acknowledged:
        repository = ada.repository(name)
        assert repository.get_manifest(sample.top).status == 200
        for digest, content in sample.blobs.items():
            assert repository.get_blob(digest).body == content
    done = ada.server.admin("fsck")
    assert done.returncode == 0, done.stdout
