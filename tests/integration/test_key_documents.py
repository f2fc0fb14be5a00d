"""Keys change hands: rotation, revocation, recovery, roles and thresholds, over our server as a process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from conftest import Person
from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube.consuming.finding import resolve_unjudged
from memcube.keys import changes, documents
from memcube.log.monitoring import monitor
from memcube.publishing.cosigning import cosign
from memcube.publishing.withdrawing import set_status
from memcube.remote.log import find_log
from memcube.trust.attested import values_of
from memcube_protocol.errors import (
    EXIT_TRUST,
    KeyNotAuthorisedError,
    LogError,
    MemcubeError,
    NotFoundError,
    PublisherChangedError,
    SignatureInvalidError,
)
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.authority import document
from memcube_signing.authority.document import Quorum
from memcube_signing.authority.inclusion import keys_of
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.predicates.status import KIND, Reason, State
from memcube_signing.transparency.bundled import verify_logged
from memcube_signing.transparency.entry import LogPolicy
from support.log import Log
from support.machine import Machine, client_on


@pytest.fixture(autouse=True)
def unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


class Story:
    """A publisher with a namespace of its own, and a reader."""

    def __init__(self, publisher: Person, reader: Person, folder: Path) -> None:
        self.publisher, self.reader, self.folder = publisher, reader, folder
        self.name = f"{publisher.name}/notes"
        with self.at_publisher() as client:
            self.namespace = client.context.at_registry(Reference("", publisher.name))
            self.namespace = Reference(self.namespace.host, publisher.name)

    def at_publisher(self):
        return client_on(self.folder / "publisher", self.publisher)

    def key(self, name: str):
        with self.at_publisher() as client:
            keys = client.context.keys
            known = {entry.name for entry in keys.entries()}
            return (keys.signer(name) if name in known else keys.make(name)).key

    def quorum(self, *names: str, of: int = 1) -> Quorum:
        return Quorum.of([self.key(name).public_key for name in names], of)

    def announce(self, *names: str, of: int = 1, **more):
        with self.at_publisher() as client:
            signers = [self.key(name) for name in names]
            return changes.announce(
                client.context, self.namespace, self.quorum(*names, of=of), signers, **more
            )

    def change(self, changed, *signers: str):
        with self.at_publisher() as client:
            keys = [self.key(name) for name in signers]
            return changes.change(client.context, self.namespace, keys, changed)

    def push(self, version: str, key: str = "default", name: str = "", **more):
        source = self.folder / "source" / version
        (source / "plaintext").mkdir(parents=True, exist_ok=True)
        (source / "plaintext" / "notes.jsonl").write_text(f'{{"id":"r1","text":"{version}"}}\n')
        with self.at_publisher() as client:
            place = f"{name or self.name}:{version}"
            return client.push(source, place, public=True, key=key, **more)

    def pull(self, tag: str = "latest", name: str = "", home: str = "reader", **more):
        with client_on(self.folder / home, self.reader) as client:
            return client.pull(f"{name or self.name}:{tag}", **more).verdict


@pytest.fixture
def story(bob: Person, tmp_path: Path, new_person) -> Story:
    return Story(new_person(), bob, tmp_path)


def refused(act, *arguments, **more) -> str:
    with pytest.raises(MemcubeError) as caught:
        act(*arguments, **more)
    assert isinstance(caught.value, KeyNotAuthorisedError | PublisherChangedError)
    return caught.value.reason


def now() -> datetime:
    return datetime.now(UTC)


def test_a_rotated_key_releases_without_an_alarm_and_old_releases_stay(story) -> None:
    story.push("1.0.0")
    assert story.pull().standing == "first-use"
    story.announce("default")
    story.change(changes.rotated(story.quorum("next")), "default", "next")
    assert refused(story.push, "1.1.0") == "key-not-authorised"
    story.push("1.1.0", key="next")
    verdict = story.pull()
    assert (verdict.standing, verdict.release.seq) == ("trusted", 2)
    assert story.pull("1.0.0").standing == "trusted"
    assert story.pull("1.0.0", home="newcomer").standing == "first-use"


def test_without_a_key_document_another_key_still_raises_the_alarm(story) -> None:
    story.push("1.0.0")
    story.pull()
    story.key("next")
    assert refused(story.push, "1.1.0", key="next") == "publisher-changed"


def test_a_revoked_key_is_refused_by_those_who_knew_it_and_by_newcomers(story) -> None:
    story.push("1.0.0")
    story.pull()
    story.announce("default")
    old = story.key("default").public_key.id
    instead = story.quorum("next")
    story.change(
        changes.revoked(old, now() - timedelta(days=1), instead=instead), "default", "next"
    )
    story.push("1.1.0", key="next")
    assert story.pull().release.version == "1.1.0"
    assert refused(story.pull, "1.0.0") == "key-revoked"
    assert refused(story.pull, "1.0.0", home="newcomer") == "key-revoked"


def test_a_revocation_is_remembered_when_the_registry_hides_it(story) -> None:
    story.push("1.0.0")
    story.announce("default")
    story.pull()
    old = story.key("default").public_key.id
    instead = story.quorum("next")
    since = now() - timedelta(days=1)
    story.change(changes.revoked(old, since, instead=instead), "default", "next")
    assert refused(story.pull) == "key-revoked"
    story.publisher.repository("memcube-keys").delete_manifest("latest")
    assert refused(story.pull) == "key-revoked"
    assert refused(lambda: story.pull(home="reader")) == "key-revoked"


def test_what_was_logged_before_the_compromise_stays_valid(story) -> None:
    story.push("1.0.0")
    story.announce("default")
    story.pull()
    old = story.key("default").public_key.id
    since, instead = now() + timedelta(minutes=1), story.quorum("next")
    story.change(changes.revoked(old, since, instead=instead), "default", "next")
    assert story.pull("1.0.0").standing == "trusted"


def test_a_registry_cannot_invent_key_documents_for_a_pinned_publisher(story) -> None:
    story.push("1.0.0")
    story.pull()
    story.announce("evil")
    assert refused(story.pull) == "keys-not-rooted"


def test_recovery_keys_overrule_a_thief_who_rotated(story) -> None:
    story.push("1.0.0")
    story.announce("default", recovery=story.quorum("safe", "safer", of=2))
    story.pull()
    story.change(changes.rotated(story.quorum("thief")), "default", "thief")
    story.push("1.1.0", key="thief")
    assert story.pull().release.version == "1.1.0"
    with story.at_publisher() as client:
        recovered = changes.recover(
            client.context,
            story.namespace,
            [story.key(name) for name in ("safe", "safer", "next")],
            changes.revoked(
                story.key("default").public_key.id, now(), instead=story.quorum("next")
            ),
            overrules=2,
        )
    assert recovered.current.seq == 2
    assert refused(story.pull) == "key-not-authorised"
    story.push("1.2.0", key="next")
    assert story.pull().release.version == "1.2.0"


def test_a_member_releases_what_the_organisation_gave_her_and_nothing_else(story) -> None:
    story.announce("default")
    team = changes.delegated("team", ["team-*"], story.quorum("team"))
    story.change(team, "default")
    member = changes.delegated("team/eve", ["team-birds"], story.quorum("eve"))
    story.change(member, "team")
    birds, bees = f"{story.publisher.name}/team-birds", f"{story.publisher.name}/team-bees"
    story.push("1.0.0", key="eve", name=birds)
    assert story.pull(name=birds).standing == "first-use"
    assert refused(story.push, "1.0.0", key="eve", name=bees) == "key-not-authorised"
    wider = changes.delegated("team/eve", ["team-*"], story.quorum("eve"))
    assert refused(story.change, wider, "eve") == "key-not-authorised"


def test_the_command_line_tells_the_whole_story(new_person, bob: Person, tmp_path: Path) -> None:
    carol = new_person()
    publisher = Machine(tmp_path / "publisher", carol.server.url, carol.token)
    reader = Machine(tmp_path / "reader", bob.server.url, bob.token)
    name = f"{carol.name}/notes"
    publisher.ok("init", tmp_path / "cube", "--name", name)
    publisher.ok("push", tmp_path / "cube", "--public")
    reader.ok("pull", name)
    publisher.ok("keys", "generate", "safe")
    pem = tmp_path / "safe.pub"
    pem.write_text(publisher.ok("keys", "export", "safe"))
    old = publisher.ok("keys", "export", "default", "--json")
    stolen = json.loads(old)["id"]
    publisher.ok("keys", "announce", carol.name, "--recovery", pem)
    reader.ok("pull", name)
    publisher.ok("keys", "recover", carol.name, "--key", "safe", "--to", "next", "--stolen", stolen)
    history = json.loads(reader.ok("keys", "history", carol.name, "--json"))
    assert [document["seq"] for document in history["documents"]] == [1, 2]
    assert history["documents"][1]["revoked"][0]["keyId"] == stolen
    assert reader.run("pull", name).returncode == EXIT_TRUST


class TestLog:
    """Every change of keys is public knowledge, where the registry keeps a log."""

    def published(self, story) -> list[tuple[Bundle, bool]]:
        """The bundles that the registry serves, each with whether its log shows it."""
        with story.at_publisher() as client:
            registry = client.context.registry(story.namespace.host)
            log = find_log(registry)
            authority = documents.refresh(client.context, story.namespace)
            keys = {key.id: key for key in keys_of(authority)}
            found = [bundles.parse(raw) for raw in documents.fetch(registry, story.namespace.name)]
            shown = []
            for bundle in found:
                try:
                    verify_logged(bundle, keys[bundle.key_hint], LogPolicy(log.key))
                    shown.append((bundle, True))
                except MemcubeError:
                    shown.append((bundle, False))
        return shown

    def test_every_act_is_logged(self, story) -> None:
        story.announce("default", recovery=story.quorum("safe"))
        story.change(changes.rotated(story.quorum("next")), "default", "next")
        story.change(changes.delegated("team", ["team-*"], story.quorum("team")), "next")
        stolen, instead = story.key("next").public_key.id, story.quorum("spare")
        story.change(changes.revoked(stolen, now(), instead=instead), "next", "spare")
        with story.at_publisher() as client:
            changed = changes.rotated(story.quorum("last"))
            keys = [story.key(name) for name in ("safe", "last")]
            changes.recover(client.context, story.namespace, keys, changed)
        shown = self.published(story)
        signatures_of_five_documents = 1 + 2 + 1 + 2 + 2
        assert [logged for _, logged in shown] == [True] * signatures_of_five_documents
        with story.at_publisher() as client:
            seen = monitor(client.context, story.namespace)
        kinds = [one.said.predicate_type for one in seen.sightings]
        assert kinds.count(document.PREDICATE_TYPE) == signatures_of_five_documents
        # What a key signed that was stolen later is shown as a stranger's, to be looked at.
        assert {one.key_id for one in seen.strangers} == {stolen}

    def test_what_is_said_of_a_release_later_is_logged_and_who_is_in_charge_now_may_say_it(
        self, story
    ) -> None:
        story.push("1.0.0")
        story.announce("default")
        story.change(changes.rotated(story.quorum("next")), "default", "next")
        place = Reference.parse(f"{story.name}:1.0.0")
        for key, state in (
            ("default", State.YANKED), ("next", State.DEPRECATED), ("next", State.YANKED),
        ):  # fmt: skip
            with story.at_publisher() as client:
                act = partial(set_status, client.context, place, state, Reason.WRONG, key=key)
                if key == "default":
                    assert refused(act) == "key-not-authorised"
                    continue
                act()
                found = resolve_unjudged(
                    client.context.registry(place.host), client.context.at_registry(place)
                )
                log = find_log(client.context.registry(place.host))
                (said, *_) = sorted(
                    values_of(
                        KIND, found.attestations, found.manifest.digest, [story.key(key).public_key]
                    ),
                    key=lambda one: one.value.stated_at,
                    reverse=True,
                )
                assert said.value.state is state
                for one in found.attestations:
                    if referrer.read(one.referrer).predicate_type == KIND.predicate_type:
                        bundle = bundles.parse(one.bundle)
                        verify_logged(bundle, story.key(key).public_key, LogPolicy(log.key))
            rules = story.pull("1.0.0").rules
            assert f"release-{state}" in {rule.reason for rule in rules}

    def test_a_log_with_another_history_for_the_reader_alone_shows_nothing(
        self, story, monkeypatch
    ) -> None:
        """The registry's own log key signs a tree that nobody else sees, with the thief's keys in it."""
        story.push("1.0.0")
        story.announce("default")
        story.pull()
        seed = (story.publisher.server.data / "log.key").read_bytes()
        operator = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
        with story.at_publisher() as client:
            log = find_log(client.context.registry(story.namespace.host))
        aside = Log(log.key.name, operator, [b"another", b"history"])
        assert aside.key == log.key

        def hidden(_, __, made, ___):
            keys = {key.id: key for key in keys_of(made)}
            return [aside.logged(one, keys[one.key_hint], now()) for one in made.bundles]

        with monkeypatch.context() as colluding:
            colluding.setattr(documents, "_logged", hidden)
            story.change(changes.rotated(story.quorum("thief")), "default", "thief")
        with pytest.raises(SignatureInvalidError) as refused:
            story.pull()
        assert refused.value.reason == "log-forked"

    def test_what_was_changed_outside_the_log_is_refused_until_it_is_sent_there(
        self, story, monkeypatch
    ) -> None:
        story.push("1.0.0")
        story.announce("default")
        story.pull()
        with monkeypatch.context() as without:
            without.setattr(documents, "find_log", lambda _: None)
            story.change(changes.rotated(story.quorum("next")), "default", "next")
        assert [logged for _, logged in self.published(story)] == [True, False, False]
        story.push("1.1.0", key="next")
        with pytest.raises(LogError) as refused:
            story.pull()
        assert refused.value.reason == "keys-not-logged"
        machine = Machine(
            story.folder / "publisher", story.publisher.server.url, story.publisher.token
        )
        machine.ok("keys", "publish", story.publisher.name)
        assert all(logged for _, logged in self.published(story))
        assert story.pull().release.version == "1.1.0"


class TestThresholds:
    """Two of three keys release; each alone does not."""

    def test_the_second_signature_sets_the_tags(self, story) -> None:
        story.announce("default", "ben", "cleo", of=2)
        pushed = story.push("1.0.0")
        assert (pushed.tags, pushed.lacking) == ((), 1)
        with pytest.raises(NotFoundError):
            story.pull()
        whole = str(pushed.reference)
        with client_on(story.folder / "reader", story.reader) as client:
            assert refused(client.pull, whole) == "threshold-not-met"
        with story.at_publisher() as client:
            again = cosign(client.context, pushed.reference)
            assert (again.lacking, again.tags) == (1, ())
            done = cosign(client.context, pushed.reference, key="ben")
        assert (done.lacking, done.tags) == (0, ("1.0.0", "1.0", "1", "latest"))
        assert story.pull().standing == "first-use"
        assert story.pull("1.0.0").standing == "trusted"

    def test_a_stranger_cannot_complete_it(self, story) -> None:
        story.announce("default", "ben", of=2)
        pushed = story.push("1.0.0")
        story.key("mallory")
        with story.at_publisher() as client:
            assert refused(cosign, client.context, pushed.reference, key="mallory") == (
                "key-not-authorised"
            )
