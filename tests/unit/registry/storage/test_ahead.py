"""Reading an object by several requests at once gives its bytes in order, or the store's error."""

from __future__ import annotations

import os
from contextlib import closing

import pytest
from memcube_protocol.errors import NotFoundError
from memcube_registry.storage import ahead
from memcube_registry.storage.ahead import read_ahead
from memcube_registry.storage.memory import MemoryStore


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "RANGE_BYTES", 1000)


def stored(content: bytes) -> tuple[MemoryStore, str]:
    store = MemoryStore()
    with closing(store.open("upload", size=0)) as sink:
        sink.write([content])
    return store, store.finish("upload", size=len(content))


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 9_999])
def test_the_bytes_come_in_order(size: int) -> None:
    content = os.urandom(size)
    store, location = stored(content)
    assert b"".join(read_ahead(store, location, size)) == content


def test_a_reader_that_stops_early_leaves_nothing_running() -> None:
    store, location = stored(os.urandom(9_999))
    with closing(read_ahead(store, location, 9_999)) as pieces:
        assert len(next(pieces)) == 1000


def test_an_object_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(NotFoundError):
        list(read_ahead(MemoryStore(), "nothing", 1))
