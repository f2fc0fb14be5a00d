"""Large files on their way into the Hub's storage: what is sent there, what is left to the library, what is refused."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from memcube.http import HttpClient, RetryPolicy
from memcube.hub import lfs
from memcube.hub.lfs import LargeFile, LfsSender
from memcube.hub.site import Site
from memcube.settings import Endpoint, Settings
from memcube_protocol.digest import Digest
from memcube_protocol.errors import UnsafeRedirectError
from support.hub import HubServer, Seen
from support.hub_repositories import Repository
from support.scripted import Answer

NAME = "Org/Notes"
SIZE = 70_000
PATIENCE_S = 60.0
BATCH = f"/{NAME}.git/info/lfs/objects/batch"


@pytest.fixture(autouse=True)
def large_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfs, "LARGE_BYTES", SIZE)


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    return hub.state.create("model", NAME)


def sender_of(url: str, token: str | None) -> LfsSender:
    scheme, _, host = url.partition("://")
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": host})
    http = HttpClient(
        settings,
        retry=RetryPolicy(attempts=1),
        resolver=lambda name, port: ["93.184.215.14" if name.endswith(".test") else "127.0.0.1"],
    )
    return LfsSender(Site(Endpoint(scheme, host), token), http, threads=2)


@pytest.fixture
def sender(hub: HubServer, repository: Repository) -> LfsSender:
    return sender_of(hub.url, hub.state.token("ada", organisations=("Org",)))


Made = Callable[..., tuple[LargeFile, list[int]]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A file of random bytes, and what was heard of its bytes on the way."""

    def make(size: int = SIZE) -> tuple[LargeFile, list[int]]:
        heard: list[int] = []
        content = os.urandom(size)
        path = tmp_path / Digest.of(content).hex
        path.write_bytes(content)
        return LargeFile(Digest.of(content), size, path, heard.append), heard

    return make


def stored(hub: HubServer, file: LargeFile) -> bool:
    """Whether the repository holds the file's bytes."""
    held = file.digest.hex in hub.state.of("model", NAME).lfs
    return held and hub.state.path_of(file.digest.hex).read_bytes() == file.path.read_bytes()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def puts(hub: HubServer) -> int:
    return sum((seen.site, seen.method) == ("storage", "PUT") for seen in hub.seen)


def test_large_files_are_sent_and_told_of_and_the_token_stays_with_the_hub(
    hub: HubServer, sender: LfsSender, made: Made
) -> None:
    (first, heard), (second, _) = made(), made(3 * SIZE)
    sender.send(NAME, [first, second])
    assert stored(hub, first)
    assert stored(hub, second)
    assert sum(heard) == SIZE
    assert hub.tokens_sent("storage") == set()
    assert sum("/verify" in seen.path for seen in hub.seen) == 2


def test_what_is_there_or_wanted_in_parts_is_left_to_the_library(
    hub: HubServer, sender: LfsSender, made: Made
) -> None:
    (there, _), (parts, _) = made(), made(3 * SIZE)
    assert sender.send(NAME, [there]) == {there.digest}
    hub.state.part_bytes = 2 * SIZE
    before = puts(hub)
    assert sender.send(NAME, [there, parts]) == {there.digest}
    assert puts(hub) == before == 1


def test_without_a_token_nothing_is_asked(hub: HubServer, made: Made) -> None:
    sender_of(hub.url, None).send(NAME, [made()[0]])
    assert not hub.seen


@pytest.mark.parametrize("status", [403, 500, 503])
@pytest.mark.parametrize("site", ["hub", "storage"])
def test_what_fails_is_left_to_the_library_and_counts_as_not_sent(
    hub: HubServer, sender: LfsSender, made: Made, site: str, status: int
) -> None:
    hub.script = lambda seen: Answer(status) if seen.site == site else None
    file, heard = made()
    assert sender.send(NAME, [file]) == frozenset()
    assert sum(heard) == 0
    assert not stored(hub, file)


def naming(file: LargeFile, actions: Any) -> Callable[[Seen], Answer | None]:
    """A Hub that says where to put `file`."""
    one = {"oid": file.digest.hex, "size": file.size, "actions": actions}
    body = json.dumps({"transfer": "basic", "objects": [one]}).encode()
    return lambda seen: Answer(200, body=body) if seen.path == BATCH else None


@pytest.mark.parametrize(
    "actions",
    [
        None,
        {},
        [],
        {"upload": None},
        {"upload": {}},
        {"upload": {"href": 7}},
        {"upload": {"href": "http://127.0.0.1:9/x", "header": {"Authorization": "Basic x"}}},
        {"upload": {"href": "http://127.0.0.1:9/x"}, "verify": 7},
        {"upload": {"href": "http://127.0.0.1:9/x"}, "verify": {"href": "http://127.0.0.1:9/v"}},
        {"upload": {"href": "http://127.0.0.1:9/x"}, "verify": {"href": "nonsense"}},
    ],
)
def test_instructions_that_are_not_those_of_one_plain_request_are_left_to_the_library(
    hub: HubServer, sender: LfsSender, made: Made, actions: Any
) -> None:
    file, heard = made()
    hub.script = naming(file, actions)
    sender.send(NAME, [file])
    assert not heard
    assert [seen.path for seen in hub.seen] == [BATCH]


def test_a_remote_hub_cannot_have_bytes_put_into_this_machine(
    hub: HubServer, repository: Repository, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    file, heard = made()
    hub.script = naming(file, {"upload": {"href": f"{hub.storage_url}/upload/x"}})
    remote = sender_of(hub.url.replace("127.0.0.1", "hub.test"), "hf_x")
    with pytest.raises(UnsafeRedirectError):
        remote.send(NAME, [file])
    assert not heard
    assert puts(hub) == 0


@pytest.mark.parametrize("name", [[], {}, 7, None])
def test_objects_whose_name_is_no_text_are_passed_over(
    hub: HubServer, sender: LfsSender, made: Made, name: Any
) -> None:
    file, heard = made()
    body = json.dumps({"objects": [{"oid": name, "size": 1}, "x", {}]}).encode()
    hub.script = lambda seen: Answer(200, body=body) if seen.path == BATCH else None
    assert sender.send(NAME, [file]) == frozenset()
    assert not heard


def test_what_comes_while_the_hub_is_asked_is_asked_about_together(
    hub: HubServer, sender: LfsSender, made: Made
) -> None:
    files = [made()[0] for _ in range(4)]
    asked: list[int] = []
    waiting = sender._questions

    def answer(seen: Seen) -> None:
        if seen.path == BATCH:
            asked.append(len(asked))
            until(lambda: len(asked) > 1 or len(waiting._next.sizes) == 3)

    hub.script = answer
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(sender.send, NAME, files[:1])
        until(lambda: len(asked) == 1)
        others = [threads.submit(sender.send, NAME, [file]) for file in files[1:]]
        assert first.result() == {files[0].digest}
        assert [one.result() for one in others] == [{file.digest} for file in files[1:]]
    assert len(asked) == 2
    assert all(stored(hub, file) for file in files)


def test_files_of_two_repositories_are_asked_about_apart(
    hub: HubServer, sender: LfsSender, made: Made
) -> None:
    hub.state.create("model", "Org/Other")
    file, _ = made()
    waiting = sender._questions
    names = [NAME, "Org/Other"]
    asked: list[str] = []

    def answer(seen: Seen) -> None:
        if seen.path.endswith("/batch"):
            asked.append(seen.path)
            until(lambda: len(asked) > 1 or waiting._next.name == "Org/Other")

    hub.script = answer
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(sender.send, names[0], [file])
        until(lambda: len(asked) == 1)
        second = threads.submit(sender.send, names[1], [file])
        assert first.result() == second.result() == {file.digest}
    assert asked == [f"/{name}.git/info/lfs/objects/batch" for name in names]


def test_a_file_that_is_expected_is_asked_about_with_the_one_before(
    hub: HubServer, sender: LfsSender, made: Made
) -> None:
    files = [made()[0] for _ in range(3)]
    for file in files:
        sender.expect(NAME, file.digest, file.size)
    assert [sender.send(NAME, [file]) for file in files] == [{file.digest} for file in files]
    assert sum(seen.path == BATCH for seen in hub.seen) == 1


def test_a_file_that_is_sent_again_is_asked_about_again(
    hub: HubServer, sender: LfsSender, made: Made
) -> None:
    file, _ = made()
    sender.expect(NAME, file.digest, file.size)
    assert sender.send(NAME, [file]) == sender.send(NAME, [file]) == {file.digest}
    assert puts(hub) == 1
    assert sum(seen.path == BATCH for seen in hub.seen) == 2


def test_no_request_asks_about_more_files_than_the_hub_takes(
    hub: HubServer, sender: LfsSender, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lfs, "_AT_ONCE", 2)
    files = [made()[0] for _ in range(5)]
    for file in files:
        sender.expect(NAME, file.digest, file.size)
    assert sender.send(NAME, files) == {file.digest for file in files}
    assert sum(seen.path == BATCH for seen in hub.seen) == 3
