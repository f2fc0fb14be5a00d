"""Sending a blob to a registry that believes another writer is still at it."""

from pathlib import Path

import pytest
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import push_blobs
from memcube_protocol import media_types
from memcube_protocol.errors import ConflictError
from memcube_protocol.oci import Descriptor
from support.scripted import Answer, Received, Script, scripted

CONTENT = b"content"
BLOB = Descriptor.of(media_types.RECORDS, CONTENT)
UPLOAD = "/v2/ann/notes/blobs/uploads/1"
LONGEST_CLAIM_S = 6.0
"""After which our registry takes a writer that was not heard of for dead."""


def registry_that_is_busy(times: int) -> Script:
    """Refuses the upload's end so many times, as while somebody else writes to it."""
    refusals = iter(range(times))

    def script(request: Received) -> Answer:
        if request.method == "POST":
            return Answer(202, {"Location": UPLOAD, "Range": "0-0"})
        if request.method == "GET" and "uploads" in request.path:
            return Answer(204, {"Location": UPLOAD, "Range": "0-0"})
        if request.method == "PUT":
            return Answer(409 if next(refusals, None) is not None else 201)
        return Answer(404)

    return script


def push(store: Store, script: Script) -> list[float]:
    """Push the blob; how long the client waited between its tries."""
    waited: list[float] = []
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    with scripted(script) as server:
        http = HttpClient(
            settings,
            find_credentials=lambda host: None,
            retry=RetryPolicy(sleep=waited.append, jitter=lambda: 0.0),
        )
        push_blobs(Registry(server.host, http, settings), "ann/notes", [BLOB], store)
    return waited


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.blobs.add(CONTENT)
    return store


def test_it_waits_longer_than_a_dead_writers_claim_lasts(store: Store) -> None:
    assert sum(push(store, registry_that_is_busy(4))) > LONGEST_CLAIM_S


def test_it_does_not_wait_for_ever(store: Store) -> None:
    with pytest.raises(ConflictError):
        push(store, registry_that_is_busy(100))
