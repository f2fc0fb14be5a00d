"""Builds travel: made here, signed, pulled for one model, mounted there; a stranger's are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Person, fresh
from memcube.building.builder import Built
from memcube.building.finding import offers, trusted_builds
from memcube.building.holding import forget_build, keep
from memcube.building.planning import Order, Wanted
from memcube.building.publishing import push_builds
from memcube.building.statements import provenance_of
from memcube.client import Client
from memcube.consuming.finding import Found
from memcube.consuming.opening import resolve
from memcube.context import EVERYTHING, Trust
from memcube.dumper import MemDumper
from memcube.memories.model_identity import live_identity
from memcube.publishing.attesting import attach
from memcube.transfer import push_blobs
from memcube.trust import Acceptance, Scope
from memcube_protocol import media_types
from memcube_protocol.build import Build, Made
from memcube_protocol.config import Memory
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import FindingsError, KeyNotAuthorisedError, NotFoundError
from memcube_protocol.records import Record
from memcube_protocol.reference import Reference
from memcube_protocol.shards import compress, cut
from memcube_signing.predicates import attest
from memcube_signing.predicates.provenance import PREDICATE_TYPE
from support.machine import Machine, client_on
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("torch")
pytest.importorskip("qdrant_edge")
ORDER = Order(accept=True, ask=0)


class Story(NamedTuple):
    """A published cube, one build of it for a model, published as well."""

    publisher: Person
    folder: Path
    name: str
    model: Any
    tokenizer: Any
    built: Built

    def client(self, machine: str, person: Person | None = None) -> Any:
        return client_on(self.folder / machine, person or self.publisher)


@pytest.fixture(scope="module")
def story(ada: Person, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
        folder, name = tmp_path_factory.mktemp("builds"), f"{ada.name}/{fresh('cube')}"
        dumper = MemDumper(folder / "cube", name=name, version="1.0.0")
        dumper.add_records(Record(id=f"r{n}", text=text_of(5, n)) for n in range(3))
        model, tokenizer = model_of(), tokenizer_of()
        with client_on(folder / "publisher", ada) as client:
            client.push(dumper.folder, public=True)
            built = build(client, name, model, tokenizer)
            (pushed,) = push_builds(client.context, Reference.parse(name))
            assert pushed.build == built.build
            assert pushed.sent_bytes > 0
        yield Story(ada, folder, name, model, tokenizer, built)


def build(client: Client, name: str, model: Any, tokenizer: Any, **changes: Any) -> Built:
    wanted = Wanted(kind="activation", render="plain", threads=1, **changes)
    return client.build(name, wanted, model=model, tokenizer=tokenizer, order=ORDER)


def test_who_pulls_for_the_model_gets_the_build_and_mounts_it(story: Story, bob: Person) -> None:
    base = live_identity(story.model)
    with story.client("reader", bob) as client:
        verified = client.pull(story.name, filters=[f"model={base}"])
        (held,) = trusted_builds(client.context, verified)
        assert held.build == story.built.build
        assert not held.is_own
        with client.mount(story.name, model=story.model, tokenizer=story.tokenizer) as memory:
            steps = {step.memory: str(step.step) for step in memory.steps}
            assert steps == {story.built.build.memory.id: "mounted", "plaintext": "mounted"}
            assert len(memory.prefix_ids) == 15
            assert text_of(5, 0) in memory.prefix_text


def test_who_pulls_without_a_model_or_for_another_gets_no_build(story: Story, bob: Person) -> None:
    other = model_of(seed=5)
    with story.client("stranger", bob) as client:
        for filters in ((), (f"model={live_identity(other)}",)):
            verified = client.pull(story.name, filters=filters)
            assert not trusted_builds(client.context, verified)
        with client.mount(story.name, model=other, tokenizer=story.tokenizer) as memory:
            assert [step.kind for step in memory.steps] == ["plaintext"]


def test_the_publisher_mounts_what_was_built_here_without_pulling_it(story: Story) -> None:
    with (
        story.client("publisher") as client,
        client.mount(story.name, model=story.model, tokenizer=story.tokenizer) as memory,
    ):
        assert len(memory.prefix_ids) == 15


def test_builds_are_listed_with_what_they_recall(story: Story, bob: Person) -> None:
    machine = Machine(story.folder / "lister", story.publisher.server.url, bob.token)
    (listed,) = machine.json("builds", story.name)["builds"]
    assert listed["digest"] == str(story.built.build.digest)
    assert listed["where"] == "at the registry"
    assert "notes-kv" not in machine.ok("builds", story.name, "--for", "mip1-base:" + "0" * 64)


def test_secrets_in_a_build_stop_its_publication(story: Story) -> None:
    with story.client("publisher") as client:
        secret = records_build(client, story, f"the token is ghp_{'a1B2' * 9}")
        with pytest.raises(FindingsError):
            push_builds(client.context, Reference.parse(story.name))
        forget_build(client.context, secret.subject.digest, secret.digest)
        assert len(push_builds(client.context, Reference.parse(story.name))) == 1


def records_build(client: Client, story: Story, text: str) -> Build:
    """A build of one record, as if an adapter had said it."""
    (shard,) = map(compress, cut([Record(id="a", text=text)]))
    with client.context.store.session():
        digest, size = client.context.store.blobs.add(shard.content)
        path = f"plaintext/{shard.name}"
        file = CubeFile(path, media_types.RECORDS, digest, size, "plaintext", shard.annotations)
        memory = Memory("plaintext", "plaintext", (digest,), records=1)
        recipe = replace(story.built.made.recipe, method="ask", memory="plaintext", source="lora")
        build = Build.write(story.built.build.subject, memory, [file], Made(recipe))
        keep(client.context, Reference("", story.name), build, is_own=True)
    return build


def test_pushing_again_sends_nothing_and_signs_nothing_new(story: Story) -> None:
    with story.client("publisher") as client:
        registry, reference = client.context.registry(""), Reference.parse(story.name)
        before = registry.referrers(story.name, story.built.build.digest)
        (pushed,) = push_builds(client.context, reference)
        assert pushed.sent_bytes == 0
        assert registry.referrers(story.name, story.built.build.digest) == before
        assert len(before) == 1


def test_a_copy_takes_its_builds_along_and_they_count_there(story: Story, bob: Person) -> None:
    target, base = f"{bob.name}/{fresh('copy')}", live_identity(story.model)
    with story.client("copier", bob) as client:
        client.cp(story.name, target)
    with story.client("reader of the copy", bob) as client:
        origin = f"{story.publisher.server.url.partition('://')[2]}/{story.name}"
        accepted = Trust(accept=Acceptance(origin=origin))
        verified = client.pull(f"{target}:1.0.0", filters=[f"model={base}"], trust=accepted)
        assert [one.build for one in trusted_builds(client.context, verified)] == [
            story.built.build
        ]


def test_a_build_with_anothers_key_is_neither_pushed_nor_believed(
    story: Story, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thief of a token may push to the repository, and has no key of the publisher's."""
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
    base = live_identity(story.model)
    with story.client("thief") as client:
        forged = build(client, story.name, story.model, story.tokenizer, memory="forged")
        with pytest.raises(KeyNotAuthorisedError, match="did not release"):
            push_builds(client.context, Reference.parse(story.name))
        force_push(client, story, forged)
        listed = client.context.registry("").referrers(
            story.name, forged.build.subject.digest, media_types.BUILD
        )
        assert forged.build.digest in {one.digest for one in listed}
    with story.client("victim", bob) as client:
        verified = client.pull(story.name, filters=[f"model={base}"])
        assert [one.build for one in offers(client.context, verified, EVERYTHING)] == [
            story.built.build
        ]
        assert [one.build for one in trusted_builds(client.context, verified)] == [
            story.built.build
        ]


def force_push(client: Client, story: Story, forged: Built) -> None:
    """What a hostile client sends: the build, and a statement of how it was made, by its own key."""
    context, manifest = client.context, forged.build.manifest
    registry = context.registry("")
    push_blobs(registry, story.name, manifest.blobs, context.store)
    registry.put_manifest(story.name, manifest)
    verified = resolve(context, Reference.parse(story.name))
    signer = context.signer(None)
    bundle = attest(provenance_of(verified, forged.build), signer)
    place = Reference(verified.reference.host, story.name).with_digest(manifest.digest)
    found = Found(place, manifest, forged.build.config, (), Scope.REMOTE)
    attach(context, registry, found, bundle, PREDICATE_TYPE, signer)


def test_what_was_not_built_here_cannot_be_published(story: Story, bob: Person) -> None:
    with (
        story.client("reader", bob) as client,
        pytest.raises(NotFoundError, match="nothing was built here"),
    ):
        push_builds(client.context, Reference.parse(story.name))
