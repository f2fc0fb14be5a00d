"""Two registries on one database and one bucket: an upload goes on where a killed one left it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS
from memcube_protocol.digest import Digest
from support.repository import Repository
from support.servers import MemcubeServer, memcube_server
from support.swift import SwiftServer, swift_server
from support.wire import Reply, Wire

PATIENCE_S = 100.0
CONTENT = os.urandom(40 << 20)


@pytest.fixture
def replicas(
    s3_server: SwiftServer, tmp_path: Path
) -> Iterator[tuple[MemcubeServer, MemcubeServer]]:
    """Both on the data folder of the first, which holds database and keys."""
    settings = NO_LIMITS | s3_server.registry_settings(S3_READS="stream")
    with memcube_server(tmp_path / "one", settings) as one:
        two = MemcubeServer(one.data, tmp_path / "two.log", settings)
        two.start()
        try:
            yield one, two
        finally:
            two.stop()


def repositories(one: MemcubeServer, two: MemcubeServer) -> tuple[Repository, Repository]:
    one.create_account("ada")
    token = one.create_token("ada", *ALL_SCOPES)
    here = Repository(Wire(one.url).bearer(token), "ada/notes")
    return here, here.seen_by(Wire(two.url).bearer(token))


def test_chunks_may_arrive_at_any_replica(
    replicas: tuple[MemcubeServer, MemcubeServer],
) -> None:
    here, there = repositories(*replicas)
    location = here.upload_location()
    for number, at in enumerate(range(0, len(CONTENT), 9 << 20)):
        chunk = CONTENT[at : at + (9 << 20)]
        assert (here, there)[number % 2].patch(location, chunk, start=at).status == 202
    digest = Digest.of(CONTENT)
    assert there.finish_upload(location, digest).status == 201
    assert here.get_blob(digest).body == CONTENT


def test_an_upload_whose_writer_was_killed_goes_on_at_the_other_replica(
    replicas: tuple[MemcubeServer, MemcubeServer],
) -> None:
    here, there = repositories(*replicas)
    location = here.upload_location()
    assert here.patch(location, CONTENT[:1000]).status == 202
    arrived = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield CONTENT[1000 : 20 << 20]
        arrived.set()
        time.sleep(PATIENCE_S)

    def send() -> None:
        with pytest.raises(OSError):
            here.patch(location, slowly())

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert arrived.wait(PATIENCE_S)
    assert there.patch(location, b"meanwhile").status in (409, 416)
    replicas[0].kill()
    reply = _continued(there, location)
    assert reply.status == 201, reply
    assert there.get_blob(Digest.of(CONTENT)).body == CONTENT


def _continued(repository: Repository, location: str) -> Reply:
    """The end of the upload, as a client does it: from where the registry says that it is."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        held = repository.wire.get(location).header("Range")
        assert held
        at = int(held.partition("-")[2]) + 1
        assert at >= 1000, "what was acknowledged is there"
        # A refusal may end the connection while the body is still being sent.
        with suppress(ConnectionError):
            reply = repository.finish_upload(location, Digest.of(CONTENT), CONTENT[at:], start=at)
            if reply.status not in (409, 416):
                return reply
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_what_was_acknowledged_outlives_the_death_of_the_s3_server(tmp_path: Path) -> None:
    with swift_server(tmp_path / "swift") as s3:
        settings = NO_LIMITS | s3.registry_settings(S3_READS="stream")
        with memcube_server(tmp_path / "registry", settings) as server:
            here, _ = repositories(server, server)
            whole = here.add_blob(CONTENT)
            location = here.upload_location()
            assert here.patch(location, CONTENT[: 17 << 20]).status == 202
            s3.kill()
            assert here.get_blob(whole).status == 503
            s3.start()
            assert here.get_blob(whole).body == CONTENT
            rest, at = CONTENT[17 << 20 :], 17 << 20
            digest = Digest.of(CONTENT)
            assert here.finish_upload(location, digest, rest, start=at).status == 201
