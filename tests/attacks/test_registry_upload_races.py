"""Several requests on one upload: what became a blob is never written to again."""

import os
import socket
import time
from pathlib import Path

import pytest
from conftest import Person
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError
from memcube_registry.storage import local
from memcube_registry.storage.local import LocalFiles
from support.repository import Repository

UPLOAD = "0123456789abcdef" * 2
CONTENT = b"what was verified"


def waiting_chunk(repository: Repository, location: str, size: int) -> socket.socket:
    """A request that has begun to write to the upload at `location` and does not go on."""
    connection = repository.wire.connect()
    connection.sendall(
        f"PATCH {location} HTTP/1.1\r\nHost: {repository.wire.netloc}\r\n"
        f"Authorization: {repository.wire.authorization}\r\nContent-Length: {size}\r\n\r\n".encode()
    )
    time.sleep(0.5)
    return connection


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_chunk_that_waits_is_not_added_to_a_finished_blob(ada: Person, algorithm: str) -> None:
    repository, content = ada.repository(), os.urandom(1000)
    digest = Digest.of(content, algorithm)
    location = repository.upload_location()
    assert repository.patch(location, content).status == 202
    with waiting_chunk(repository, location, 1) as connection:
        early = repository.finish_upload(location, digest)
        connection.sendall(b"x")
        connection.recv(4096)
    if early.status != 201:
        assert early.status == 409
        assert repository.put_blob(content, digest).status == 201
    found = repository.get_blob(digest)
    assert (found.status, found.body) == (200, content)


def store_with_upload(folder: Path) -> LocalFiles:
    store = LocalFiles(folder)
    sink = store.open(UPLOAD, size=0)
    sink.write([CONTENT])
    sink.close()
    return store


def test_an_upload_is_not_finished_while_somebody_writes_to_it(tmp_path: Path) -> None:
    store = store_with_upload(tmp_path)
    sink = store.open(UPLOAD, size=len(CONTENT))
    with pytest.raises(ConflictError):
        store.finish(UPLOAD, size=len(CONTENT))
    sink.close()
    assert b"".join(store.read(store.finish(UPLOAD, size=len(CONTENT)))) == CONTENT


def test_a_request_that_opened_the_file_before_its_end_does_not_touch_the_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is renamed between opening and locking it."""
    store, finished = store_with_upload(tmp_path), []
    lock = local.fcntl.flock

    def late(handle: int, operation: int) -> None:
        monkeypatch.setattr(local.fcntl, "flock", lock)
        finished.append(store.finish(UPLOAD, size=len(CONTENT)))
        lock(handle, operation)

    monkeypatch.setattr(local.fcntl, "flock", late)
    with pytest.raises(ConflictError):
        store.open(UPLOAD, size=len(CONTENT))
    assert b"".join(store.read(finished[0])) == CONTENT
