"""Pushing a folder to the Hub: large layers go ahead while the rest is packed, each after its own scan."""

from __future__ import annotations

import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memcube.hub import lfs
from memcube.hub.remote import HubRemote
from memcube.packing import pack
from memcube_protocol.digest import Digest
from memcube_protocol.outcomes import EXIT_AUTH, EXIT_INVALID
from support.hub import HubServer, Seen
from support.hub_machine import tolerant, write_notes
from support.hub_repositories import Repository
from support.machine import Machine
from support.scripted import Answer
from support.servers import command

pytestmark = tolerant
NOTES = "hf://Org/Notes"
SIZE = 50_000
PATIENCE_S = 60.0
KEY = "AKIA" + "Q3EGRZ6TXWLB5CVN"


@pytest.fixture
def large_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go ahead from far fewer bytes on than those that are worth it."""
    monkeypatch.setattr(lfs, "LARGE_BYTES", SIZE)
    monkeypatch.setattr(HubRemote, "alone_from_bytes", SIZE)


def image(folder: Path, name: str, size: int = SIZE) -> Digest:
    content = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(size)
    return attach(folder, f"{name}.png", content)


def attach(folder: Path, name: str, content: bytes) -> Digest:
    (folder / "attachments").mkdir(exist_ok=True)
    (folder / "attachments" / name).write_bytes(content)
    return Digest.of(content)


def puts(hub: HubServer) -> int:
    return sum((seen.site, seen.method) == ("storage", "PUT") for seen in hub.seen)


def stored(hub: HubServer) -> set[str]:
    """Digests of everything that lies in the storage, named by a commit or not."""
    return hub.state.of("model", "Org/Notes").lfs


def repository(hub: HubServer) -> Repository:
    return hub.state.of("model", "Org/Notes")


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("large_files")
class TestOverlap:
    def test_what_was_packed_is_sent_before_the_cube_is_whole(
        self,
        hub: HubServer,
        hub_publisher: Machine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        sent = {image(folder, f"plan-{number}").hex for number in range(3)}
        assemble = pack._assemble

        def assemble_late(*arguments: Any) -> Any:
            until(lambda: puts(hub) == 3)
            return assemble(*arguments)

        monkeypatch.setattr(pack, "_assemble", assemble_late)
        told = hub_publisher.json("push", folder, NOTES)
        assert stored(hub) >= sent
        assert told["sentBytes"] >= 3 * SIZE
        assert len(repository(hub).commits) == 2
        hub_publisher.ok("verify", NOTES)

    def test_a_repository_is_made_once_and_no_layer_is_sent_twice(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        sent = {image(folder, f"plan-{number}").hex for number in range(6)}
        hub_publisher.ok("push", folder, NOTES)
        assert sum("repos/create" in seen.path for seen in hub.seen) == 1
        assert puts(hub) == len(stored(hub))
        assert stored(hub) >= sent

    def test_what_the_hub_does_not_take_at_the_first_try_the_library_sends(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        sent = image(folder, "plan")
        refused: list[Seen] = []

        def refuse_one(seen: Seen) -> Answer | None:
            if seen.method == "PUT" and seen.site == "storage" and not refused:
                refused.append(seen)
                return Answer(403)
            return None

        hub.script = refuse_one
        hub_publisher.ok("push", folder, NOTES)
        assert refused
        assert sent.hex in stored(hub)

    def test_a_hub_that_refuses_the_repository_ends_the_push(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        for number in range(6):
            image(folder, f"plan-{number}")
        said = hub_publisher.fails(EXIT_AUTH, "push", folder, "hf://Strangers/notes")
        assert "token" in said
        assert puts(hub) == 0
        assert not hub.state.repositories


@pytest.mark.usefixtures("large_files")
class TestFindings:
    def test_a_layer_with_a_finding_never_leaves_and_nothing_is_committed(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        hub_publisher.ok("push", folder, NOTES)
        before = dict(repository(hub).commits)
        write_notes(folder, "1.1.0")
        script = attach(folder, "run.txt", b"#!/bin/sh\n" + b"echo no\n" * SIZE)
        fine = [image(folder, f"plan-{number}").hex for number in range(4)]
        said = hub_publisher.fails(EXIT_INVALID, "push", folder, NOTES)
        assert "script in attachments/run.txt" in said
        assert script.hex not in stored(hub)
        assert repository(hub).commits == before
        assert list(repository(hub).tags) == ["1.0.0"]
        (folder / "attachments" / "run.txt").unlink()
        hub_publisher.ok("push", folder, NOTES)
        assert stored(hub) >= set(fine)
        assert puts(hub) == len(stored(hub))  # what an aborted push had sent is not sent again

    def test_a_secret_in_a_record_holds_everything_back(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0", f"The key is {KEY}")
        image(folder, "plan")
        said = hub_publisher.fails(EXIT_INVALID, "push", folder, NOTES)
        assert "aws-access-key" in said
        assert not hub.state.repositories
        assert not [seen for seen in hub.seen if seen.method != "GET"]

    def test_a_secret_in_a_note_holds_back_what_lies_beside_it(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = tmp_path / "vault"
        folder.mkdir()
        (folder / "deploy.md").write_text(f"# Deploying\n\nThe key is {KEY}.\n")
        image(folder, "plan")
        assert "aws-access-key" in hub_publisher.fails(EXIT_INVALID, "push", folder, NOTES)
        assert not hub.state.repositories

    def test_what_its_owner_allows_goes_ahead_with_the_rest(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0", f"The key is {KEY}")
        sent = image(folder, "plan")
        hub_publisher.ok("push", folder, NOTES, "--allow-findings")
        assert sent.hex in stored(hub)


def test_a_push_that_is_killed_while_it_sends_ahead_leaves_the_old_commit_and_a_whole_store(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    folder = write_notes(tmp_path / "notes", "1.0.0")
    hub_publisher.ok("push", folder, NOTES)
    before = dict(repository(hub).commits)
    write_notes(folder, "1.1.0")
    first, second = (image(folder, name, lfs.LARGE_BYTES) for name in ("a", "b"))
    arrived, killed = threading.Event(), threading.Event()

    def hold(seen: Seen) -> Answer | None:
        if seen.site == "storage" and seen.method == "PUT":
            arrived.set()
            killed.wait(PATIENCE_S)
        return None

    hub.script = hold
    words = [command("memcube"), "push", str(folder), NOTES]
    with subprocess.Popen(words, env=hub_publisher.environment) as process:
        assert arrived.wait(PATIENCE_S)
        process.send_signal(signal.SIGKILL)
    killed.set()
    assert repository(hub).commits == before
    assert hub_publisher.json("ls")["cubes"][0]["reference"].endswith("1.0.0")
    hub.script = lambda seen: None
    assert "ok       store " in hub_publisher.run("doctor").stdout
    hub_publisher.ok("push", folder, NOTES)
    assert stored(hub) >= {first.hex, second.hex}
    assert len(repository(hub).commits) == len(before) + 1
