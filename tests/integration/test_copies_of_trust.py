"""A copy of a cube elsewhere: who reads it judges keys and withdrawals as at the source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.consuming.proofs import export
from memcube.context import Trust
from memcube.keys import changes, documents
from memcube.publishing.withdrawing import set_status
from memcube.trust import Acceptance
from memcube_protocol import media_types
from memcube_protocol.errors import (
    KeyNotAuthorisedError,
    NotFoundError,
    OriginMismatchError,
    YankedError,
)
from memcube_protocol.reference import Reference
from memcube_signing.authority.document import Quorum
from memcube_signing.predicates.status import Reason, State
from support.machine import client_on


@pytest.fixture(autouse=True)
def unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


class Story:
    """A publisher, a copier, and readers who only ever see the copy."""

    def __init__(self, publisher: Person, copier: Person, folder: Path, target: str) -> None:
        self.publisher, self.copier, self.folder = publisher, copier, folder
        self.source, self.target = f"{publisher.name}/notes", target
        host = publisher.server.url.partition("://")[2]
        self.namespace = Reference(host, publisher.name)
        self.origin = f"{host}/{self.source}"

    def at_publisher(self):
        return client_on(self.folder / "publisher", self.publisher)

    def push(self, version: str, key: str = "default") -> None:
        source = self.folder / "source" / version
        (source / "plaintext").mkdir(parents=True, exist_ok=True)
        (source / "plaintext" / "notes.jsonl").write_text(f'{{"id":"r1","text":"{version}"}}\n')
        with self.at_publisher() as client:
            client.push(source, f"{self.source}:{version}", public=True, key=key)

    def keys(self, client, *names: str):
        have = {entry.name for entry in client.context.keys.entries()}
        store = client.context.keys
        return [(store.signer(one) if one in have else store.make(one)).key for one in names]

    def announce(self) -> None:
        with self.at_publisher() as client:
            keys = self.keys(client, "default")
            quorum = Quorum.of([key.public_key for key in keys])
            changes.announce(client.context, self.namespace, quorum, keys)

    def replace_key(self, *, revoke: bool = False) -> None:
        with self.at_publisher() as client:
            old, new = self.keys(client, "default", "next")
            instead = Quorum.of([new.public_key])
            since = datetime.now(UTC) - timedelta(days=1)
            change = (
                changes.revoked(old.public_key.id, since, instead=instead)
                if revoke
                else changes.rotated(instead)
            )
            changes.change(client.context, self.namespace, [old, new], change)

    def yank(self, version: str, reason: Reason, state: State = State.YANKED) -> None:
        with self.at_publisher() as client:
            place = Reference.parse(f"{self.source}:{version}")
            set_status(client.context, place, state, reason)

    def copy(self, version: str, home: str = "copier", source: str = "", target: str = ""):
        with client_on(self.folder / home, self.copier) as client:
            return client.cp(
                f"{source or self.source}:{version}", target or self.target, trust=self.accepting
            )

    @property
    def accepting(self) -> Trust:
        return Trust(accept=Acceptance(origin=self.origin))

    def pull(self, tag: str, home: str = "reader", target: str = ""):
        with client_on(self.folder / home, self.copier) as client:
            return client.pull(f"{target or self.target}:{tag}", trust=self.accepting).verdict


@pytest.fixture(params=["our registry", "another registry"])
def story(request, new_person, bob: Person, tmp_path: Path) -> Story:
    if request.param == "our registry":
        target = f"{bob.name}/{fresh('copy')}"
    else:
        url = request.getfixturevalue("reference_registry")
        target = f"{url.partition('://')[2]}/mirror/{fresh('copy')}"
    return Story(new_person(), bob, tmp_path, target)


def refused(story: Story, tag: str, home: str = "reader") -> str:
    with pytest.raises((KeyNotAuthorisedError, YankedError)) as caught:
        story.pull(tag, home)
    return caught.value.reason


def test_a_reader_of_the_copy_follows_a_rotation(story) -> None:
    story.announce()
    story.push("1.0.0")
    story.copy("1.0.0")
    assert story.pull("1.0.0").standing == "first-use"
    story.replace_key()
    story.push("1.1.0", key="next")
    story.copy("1.1.0")
    verdict = story.pull("1.1.0")
    assert (verdict.standing, verdict.release.seq) == ("trusted", 2)
    assert "key document 2" in next(one.detail for one in verdict.rules if one.rule == "keys")


def test_a_copy_of_what_was_revoked_is_told_and_its_readers_are_stopped(story) -> None:
    story.announce()
    story.push("1.0.0")
    story.copy("1.0.0")
    story.pull("1.0.0")
    story.replace_key(revoke=True)
    assert story.pull("1.0.0").standing == "trusted"  # nobody has told the copy yet
    with pytest.raises(KeyNotAuthorisedError) as stopped:
        story.copy("1.0.0")
    assert "was told" in stopped.value.hint
    assert refused(story, "1.0.0") == "key-revoked"
    assert refused(story, "1.0.0", "newcomer") == "key-revoked"


def test_what_was_revoked_and_never_copied_is_not_copied(story) -> None:
    story.announce()
    story.push("1.0.0")
    story.replace_key(revoke=True)
    with pytest.raises(KeyNotAuthorisedError) as stopped:
        story.copy("1.0.0")
    assert "was told" not in stopped.value.hint


def test_a_copier_who_knows_less_takes_nothing_back(story) -> None:
    story.announce()
    story.push("1.0.0")
    story.copy("1.0.0", home="late copier")
    story.replace_key(revoke=True)
    with pytest.raises(KeyNotAuthorisedError):
        story.copy("1.0.0")
    story.publisher.repository("memcube-keys").delete_manifest("latest")
    story.copy("1.0.0", home="late copier")
    assert refused(story, "1.0.0") == "key-revoked"


def test_a_copy_of_a_copy_brings_the_keys_along(story) -> None:
    story.announce()
    story.push("1.0.0")
    story.replace_key()
    story.push("1.1.0", key="next")
    story.copy("1.1.0")
    second = f"{story.copier.name}/{fresh('second')}"
    story.copy("1.1.0", home="other copier", source=story.target, target=second)
    story.publisher.repository("memcube-keys").delete_manifest("latest")
    verdict = story.pull("1.1.0", target=second)
    assert "key document 2" in next(one.detail for one in verdict.rules if one.rule == "keys")


def test_a_yank_travels_with_the_next_copy(story) -> None:
    story.push("1.0.0")
    story.copy("1.0.0")
    story.pull("1.0.0")
    story.yank("1.0.0", Reason.WRONG)
    story.copy("1.0.0")
    assert "release-yanked" in {rule.reason for rule in story.pull("1.0.0").rules}


def test_a_yank_that_forbids_a_copy_reaches_the_one_that_is_there(story) -> None:
    story.push("1.0.0")
    story.copy("1.0.0")
    story.pull("1.0.0")
    story.yank("1.0.0", Reason.HARMFUL)
    with pytest.raises(YankedError) as stopped:
        story.copy("1.0.0")
    assert "was told" in stopped.value.hint
    assert refused(story, "1.0.0") == "release-yanked"
    assert refused(story, "1.0.0", "newcomer") == "release-yanked"


def test_the_proof_of_a_copy_holds_the_keys_of_its_origin(story) -> None:
    story.announce()
    story.push("1.0.0")
    story.replace_key()
    story.copy("1.0.0")
    path = story.folder / "copy.memproof"
    with client_on(story.folder / "reader", story.copier) as client:
        place = Reference.parse(f"{story.target}:1.0.0")
        proof, _ = export(client.context, place, path, trust=story.accepting)
        listed = documents.namespace_of(client.context.at_registry(place))
        assert listed != story.namespace
    signatures_of_two_documents = 3
    assert len(proof.key_documents) == signatures_of_two_documents


def test_nothing_is_attached_in_the_origins_own_namespace(new_person, bob, tmp_path) -> None:
    publisher = new_person()
    story = Story(publisher, publisher, tmp_path, f"{publisher.name}/again")
    story.announce()
    story.push("1.0.0")
    copied = story.copy("1.0.0")
    with client_on(tmp_path / "publisher", publisher) as client:
        registry = client.context.registry("")
        found = registry.referrers(copied.reference.name, copied.digest, media_types.KEYS)
    assert found == []


def test_nothing_is_copied_onto_another_cube(story) -> None:
    story.push("1.0.0")
    story.copy("1.0.0")
    other = f"{story.publisher.name}/{fresh('other')}:2.0.0"
    with story.at_publisher() as client:
        client.push(story.folder / "source" / "1.0.0", other, public=True)
    with (
        client_on(story.folder / "copier", story.copier) as client,
        pytest.raises(OriginMismatchError, match=f"holds releases of {story.origin}, and this"),
    ):
        client.cp(other, story.target)
    with pytest.raises(NotFoundError):
        story.pull("2.0.0", "copier")
    assert story.pull("1.0.0", "copier").standing == "trusted"
