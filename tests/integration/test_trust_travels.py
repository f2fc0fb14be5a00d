"""Signatures on their way: our client and our server as a process, publishers and consumers apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.context import Trust
from memcube.trust import Acceptance, Mode, Standing
from memcube_protocol.errors import (
    OriginMismatchError,
    PublisherChangedError,
    RollbackError,
    SignatureInvalidError,
    SignatureMissingError,
)
from support.machine import client_on


@pytest.fixture(autouse=True)
def keys_without_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


class Story:
    """One cube of `ada` under a fresh name, and how it is told further."""

    def __init__(self, ada: Person, folder: Path) -> None:
        self.ada = ada
        self.folder = folder
        self.name = f"{ada.name}/{fresh('notes')}"
        self.repository = ada.repository(self.name.partition("/")[2])

    def push(self, home: str, version: str, text: str = "", **more):
        source = self.folder / "source" / version
        (source / "plaintext").mkdir(parents=True, exist_ok=True)
        line = f'{{"id":"r1","text":"note {version} {text}"}}\n'
        (source / "plaintext" / "notes.jsonl").write_text(line)
        with client_on(self.folder / home, self.ada) as client:
            return client.push(source, f"{self.name}:{version}", public=True, **more)

    def pull(self, reader: Person, tag: str = "latest", home: str = "reader", **more):
        with client_on(self.folder / home, reader) as client:
            return client.pull(f"{self.name}:{tag}", **more)

    def lose_signature_of(self, version: str) -> None:
        """The registry loses the signature of `version`."""
        digest = self.repository.get_manifest(version).headers["docker-content-digest"]
        for entry in self.repository.referrers(digest):
            assert self.repository.delete_manifest(entry["digest"]).status == 202


@pytest.fixture
def story(ada: Person, tmp_path: Path) -> Story:
    return Story(ada, tmp_path)


def test_a_publisher_is_pinned_at_first_use_and_trusted_after(story, bob):
    story.push("publisher", "1.0.0")
    assert story.pull(bob).verdict.standing is Standing.FIRST_USE
    story.push("publisher", "1.1.0")
    verdict = story.pull(bob).verdict
    assert verdict.standing is Standing.TRUSTED
    assert (verdict.release.version, verdict.release.seq) == ("1.1.0", 2)


def test_a_vanished_signature_stops_the_pull(story, bob):
    story.push("publisher", "1.0.0")
    story.pull(bob)
    story.lose_signature_of("1.0.0")
    for mode in Mode:
        with pytest.raises(SignatureMissingError) as caught:
            story.pull(bob, trust=Trust(mode))
        assert caught.value.reason == "signature-vanished"


def test_an_unsigned_cube_is_pulled_only_with_a_warning(story, bob):
    story.push("publisher", "1.0.0")
    story.lose_signature_of("1.0.0")
    with pytest.raises(SignatureMissingError):
        story.pull(bob)
    verdict = story.pull(bob, trust=Trust(Mode.WARN)).verdict
    assert verdict.standing is Standing.UNSIGNED


def test_a_new_machine_with_another_key_is_stopped_and_then_alarms_everybody(story, bob):
    story.push("publisher", "1.0.0")
    story.pull(bob)
    with pytest.raises(PublisherChangedError) as caught:
        story.push("new machine", "1.1.0")
    assert caught.value.hint
    key = caught.value.hint.partition("--accept-publisher ")[2].partition(":")[0]
    other = story.push("new machine", "1.1.0", trust=Trust(accept=Acceptance(publisher=key)))
    with pytest.raises(PublisherChangedError):
        story.pull(bob)
    accept = Trust(accept=Acceptance(publisher=other.key_id))
    assert story.pull(bob, trust=accept).verdict.warnings
    assert story.pull(bob).verdict.standing is Standing.TRUSTED


def test_a_new_machine_with_the_same_key_goes_on_counting(story, bob, tmp_path):
    story.push("publisher", "2.0.0")
    story.push("publisher", "1.0.1")
    story.pull(bob, "2.0.0")
    (tmp_path / "new machine").mkdir(mode=0o700)
    (tmp_path / "publisher" / "keys").rename(tmp_path / "new machine" / "keys")
    story.push("new machine", "2.1.0")
    verdict = story.pull(bob).verdict
    assert (verdict.standing, verdict.release.seq) == (Standing.TRUSTED, 3)


def test_a_registry_that_turns_a_tag_back_is_noticed(story, bob):
    story.push("publisher", "1.0.0")
    story.push("publisher", "1.1.0")
    story.pull(bob)
    older = story.repository.get_manifest("1.0.0").body
    assert story.repository.put_manifest("latest", older).status == 201
    with pytest.raises(RollbackError):
        story.pull(bob)
    assert story.pull(bob, "1.0.0").verdict.standing is Standing.TRUSTED


def test_a_registry_that_serves_one_version_as_another_is_noticed(story, bob):
    story.push("publisher", "1.0.0")
    older = story.repository.get_manifest("1.0.0").body
    assert story.repository.put_manifest("9.9.9", older).status == 201
    with pytest.raises(SignatureInvalidError) as caught:
        story.pull(bob, "9.9.9")
    assert caught.value.reason == "version-mismatch"


def test_a_copy_is_known_to_who_made_it_and_named_by_who_accepts_it(story, ada, bob):
    story.push("publisher", "1.0.0")
    copied = f"{bob.name}/{fresh('copy')}"
    with client_on(story.folder / "reader", bob) as client:
        client.cp(f"{story.name}:1.0.0", copied)
        assert client.pull(f"{copied}:1.0.0").verdict.standing is Standing.TRUSTED
    with client_on(story.folder / "other", bob) as client:
        with pytest.raises(OriginMismatchError):
            client.pull(f"{copied}:1.0.0")
        origin = f"{ada.server.url.partition('://')[2]}/{story.name}"
        accept = Trust(accept=Acceptance(origin=origin))
        assert client.pull(f"{copied}:1.0.0", trust=accept).verdict.standing is Standing.FIRST_USE
        assert client.pull(f"{copied}:1.0.0").verdict.standing is Standing.TRUSTED
