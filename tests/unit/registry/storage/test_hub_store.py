"""The Hub as a store, and what goes wrong with it: nothing waits without end, nothing is lost or told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from memcube_protocol.errors import (
    MemcubeError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from memcube_registry.storage import BlobStore
from support.hub import HubServer, Seen, hub_server
from support.scripted import Answer

hub_storage: Any = pytest.importorskip("memcube_registry.storage.hub")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "acme/blobs"
UPLOAD = "0123456789abcdef0123456789abcdef"
LATER = Answer(503, {"Retry-After": "3600"}, b"{}")


@dataclass
class Home:
    """A Hub and a store on it."""

    hub: HubServer
    store: BlobStore
    dataset: Any
    folder: Path

    def put(self, content: bytes) -> str:
        sink = self.store.open(UPLOAD, size=0)
        sink.write([content])
        sink.close()
        return self.store.finish(UPLOAD, size=len(content))

    def settled(self) -> list[str]:
        """What the branch holds once it holds nothing or a minute is over."""
        deadline = time.monotonic() + 60
        while (found := list(self.dataset.locations())) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def other(self, **place: str | None) -> BlobStore:
        """A store of another process on the same repository."""
        named = {"repository": NAME, "endpoint": self.hub.url, "token": self.dataset.token, **place}
        return hub_storage.HubStore(
            hub_storage.Dataset(hub_storage.Place(**named)), self.folder / "staging"
        )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with hub_server(tmp_path / "hub") as hub:
        token = hub.state.token("acme")
        hub.state.create("dataset", NAME, private=True)
        dataset = hub_storage.Dataset(hub_storage.Place(NAME, hub.url, token))
        yield Home(hub, hub_storage.HubStore(dataset, tmp_path / "staging"), dataset, tmp_path)


def once(wanted: str, answer: Answer) -> Any:
    """A script that answers the first request whose line holds `wanted`."""
    left = [answer]
    return lambda seen: left.pop() if left and wanted in str(seen) else None


def test_a_name_tells_when_and_of_which_upload_the_object_was_made(home: Home) -> None:
    home.put(b"x")
    (kept,) = home.store.objects()
    assert abs(datetime.now(UTC) - kept.written_at) < timedelta(minutes=1)
    assert kept.upload == UPLOAD


def test_an_upload_that_is_finished_twice_makes_two_objects(home: Home) -> None:
    assert home.put(b"one") != home.put(b"one")
    assert {each.upload for each in home.store.objects()} == {UPLOAD}


def test_other_files_of_the_repository_are_no_objects(home: Home) -> None:
    repository = home.hub.state.of("dataset", NAME)
    files = dict(repository.head.files)
    repository.add("notes", files | {"blobs/notes.txt": repository.regular(b"mine")})
    assert list(home.store.objects()) == []


@pytest.mark.parametrize("name", ["", "../x", "0" * 51, "0" * 53, "G" * 52, "blobs/" + "0" * 46])
def test_what_is_no_name_of_an_object_never_becomes_a_path(home: Home, name: str) -> None:
    for act in (home.store.read, home.store.delete, lambda n: home.store.url(n, media_type="x")):
        with pytest.raises(NotFoundError):
            act(name)
    assert home.hub.seen == []


def test_an_address_is_asked_for_once_in_a_while(home: Home) -> None:
    location = home.put(b"popular")
    home.hub.seen.clear()
    urls = {home.store.url(location, media_type="x") for _ in range(5)}
    assert len(urls) == 1
    assert len(home.hub.seen) == 1


def test_an_address_that_would_need_the_token_is_never_told(home: Home) -> None:
    location = home.put(b"")
    assert home.store.url(location, media_type="x") is None
    assert b"".join(home.store.read(location)) == b""


def test_the_token_goes_along_only_where_the_hub_itself_has_the_bytes(home: Home) -> None:
    repository, content = home.hub.state.of("dataset", NAME), b"in git, not in LFS"
    location = "0" * 52
    files = dict(repository.head.files)
    repository.add("by hand", files | {f"blobs/00/{location}.bin": repository.regular(content)})
    assert home.store.url(location, media_type="x") is None
    assert b"".join(home.store.read(location, start=3)) == content[3:]
    b"".join(home.store.read(home.put(b"in LFS")))
    assert home.hub.tokens_sent("storage") == set()


def test_a_read_that_breaks_off_goes_on_where_it_stopped(home: Home) -> None:
    content = os.urandom(1_500_000)
    location = home.put(content)
    part = {"Content-Length": str(len(content)), "Connection": "close"}
    home.hub.script = once("storage GET", Answer(200, part, content[:600_000]))
    assert b"".join(home.store.read(location)) == content


def test_an_address_that_has_expired_is_asked_for_anew(home: Home) -> None:
    location = home.put(b"late reader")
    home.hub.script = once("storage GET", Answer(403, {}, b"Request has expired"))
    assert b"".join(home.store.read(location)) == b"late reader"


def test_other_bytes_than_those_asked_for_are_refused(home: Home) -> None:
    location = home.put(b"0123456789")
    home.hub.script = lambda seen: (
        Answer(200, {}, b"0123456789") if "GET /lfs" in str(seen) else None
    )
    with pytest.raises(StorageError, match="other bytes"):
        b"".join(home.store.read(location, start=4))


@pytest.mark.parametrize(
    "line", ["/preupload/", "/info/lfs/objects/batch", "storage PUT", "/objects/verify", "/commit/"]
)
def test_a_hub_that_asks_for_an_hour_is_not_waited_for(home: Home, line: str) -> None:
    home.put(b"before")
    home.hub.script = lambda seen: LATER if line in str(seen) else None
    started_s = time.monotonic()
    with pytest.raises(UnavailableError):
        home.put(b"during")
    assert time.monotonic() - started_s < 600
    home.hub.script = lambda seen: None
    assert home.store.size(UPLOAD) == len(b"during")
    location = home.store.finish(UPLOAD, size=len(b"during"))
    assert b"".join(home.store.read(location)) == b"during"


def test_a_commit_that_failed_is_made_again_and_is_one_object(home: Home) -> None:
    home.put(b"first")

    def failing(seen: Seen) -> Answer | None:
        if "/commit/" in seen.path and not done:
            done.append(seen)
            return Answer(502, {}, b"{}")
        return None

    done: list[Seen] = []
    home.hub.script = failing
    location = home.put(b"second")
    assert b"".join(home.store.read(location)) == b"second"
    assert len(list(home.store.objects())) == 2


def test_the_same_object_deleted_twice_at_once_is_gone(home: Home) -> None:
    home.dataset.remove([home.put(b"a")] * 2)
    assert list(home.dataset.locations()) == []


def test_two_replicas_that_delete_the_same_both_succeed(home: Home) -> None:
    locations = [home.put(b"a"), home.put(b"b")]

    def overtaken(seen: Seen) -> Answer | None:
        if "/commit/" in seen.path and not done:
            done.append(seen)
            repository = home.hub.state.of("dataset", NAME)
            kept = {p: f for p, f in repository.head.files.items() if locations[0] not in p}
            repository.add("the other replica", kept)
        return None

    done: list[Seen] = []
    home.hub.script = overtaken
    home.dataset.remove(locations)
    assert list(home.dataset.locations()) == []


def test_a_deletion_that_came_to_nothing_is_seen_by_the_next_sweep(home: Home) -> None:
    location = home.put(b"stays")
    home.hub.script = lambda seen: LATER if "/commit/" in seen.path else None
    home.store.delete(location)
    deadline = time.monotonic() + 60
    while not list(home.store.objects()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [each.name for each in home.store.objects()] == [location]
    home.hub.script = lambda seen: None
    home.store.delete(location)
    assert home.settled() == []


def test_deletions_are_seen_by_other_processes_once_they_are_committed(home: Home) -> None:
    location, other = home.put(b"gone"), home.other()
    home.store.delete(location)
    assert home.settled() == []
    with pytest.raises(NotFoundError):
        other.read(location)


def test_a_public_repository_is_refused_before_a_byte_is_sent(home: Home) -> None:
    home.hub.state.of("dataset", NAME).private = False
    with pytest.raises(StorageError, match="public"):
        home.put(b"secret")
    with pytest.raises(StorageError, match="public"):
        home.store.check()
    assert not [seen for seen in home.hub.seen if seen.method == "PUT"]


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ({"repository": "acme/absent"}, "hub_repository"),
        ({"token": "hf_wrong"}, "token"),
        ({"repository": "acme/absent--.git"}, "hub_repository"),
    ],
)
def test_a_wrong_setting_is_named(home: Home, place: dict[str, str], hint: str) -> None:
    with pytest.raises(StorageError) as caught:
        home.other(**place).check()
    assert hint in (caught.value.hint or "")


def test_a_token_that_may_only_read_is_refused_with_what_it_lacks(home: Home) -> None:
    reader = home.other(token=home.hub.state.token("acme", role="read"))
    sink = reader.open(UPLOAD, size=0)
    sink.write([b"x"])
    sink.close()
    with pytest.raises(MemcubeError) as caught:
        reader.finish(UPLOAD, size=1)
    assert "right to write" in (caught.value.hint or "")


def test_a_hub_that_takes_xet_only_is_refused_in_words(home: Home) -> None:
    home.hub.state.xet_only = True
    with pytest.raises(StorageError, match="Xet"):
        home.put(b"x")


def test_nobody_there_is_unavailable(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memcube_registry.storage.hub.patience.PAUSES_S", (0.0, 0.0, 0.0))
    location = home.put(b"x")
    away = home.other(endpoint="http://127.0.0.1:9")
    with pytest.raises(UnavailableError):
        away.read(location)
    with pytest.raises(UnavailableError):
        away.check()
