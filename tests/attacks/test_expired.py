"""Everything that ends, ends: also for whoever sets the clock, and also without a network."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from memcube.consuming import finding, opening, proofs
from memcube.consuming.verifying import Verified
from memcube.context import Context
from memcube_protocol.errors import MemcubeError
from memcube_protocol.reference import Reference
from support.story import Story, reason_of

DAY = timedelta(days=1)


def now() -> datetime:
    """When it is asked: a test may run long after it was collected."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Sets the clock of whoever is asked next."""

    def set_to(moment: datetime) -> None:
        monkeypatch.setattr(Context, "now", lambda _: moment)

    return set_to


def opened(story: Story, version: str = "1.0.0") -> Verified:
    """The cube as a mount opens it: what the store holds, judged anew."""
    with story.client() as client:
        found = opening.open_held(client.context, Reference.parse(f"{story.name}:{version}"))
    assert found
    return found


def refused(story: Story, reason: str) -> None:
    with pytest.raises(MemcubeError) as caught:
        opened(story)
    assert reason_of(caught.value) == reason


def test_a_release_that_expired_is_not_mounted_from_the_store(own_story: Story, clock) -> None:
    folder = own_story.publisher_home.parent / "source" / own_story.name / "publisher" / "1.0.0"
    folder.mkdir(parents=True)
    ends = (now() + 20 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    draft = f'name = "{own_story.name}"\nversion = "1.0.0"\n[governance]\nexpires_at = {ends}\n'
    (folder / "memcube.toml").write_text(draft)
    own_story.push("1.0.0")
    own_story.pull("1.0.0")
    opened(own_story)
    clock(now() + 21 * DAY)
    refused(own_story, "release-expired")


def test_a_clock_that_was_set_back_revives_nothing_in_the_store(story: Story, clock) -> None:
    """Records, releases and knowledge that ran out would be fresh again a year ago."""
    story.pull("1.0.0")
    clock(now() - 365 * DAY)
    refused(story, "not-yet-valid")


def test_a_clock_set_back_behind_the_last_look_is_noticed(own_story: Story, clock) -> None:
    """After the release, and before this machine last asked for it."""
    clock(now() - 10 * DAY)
    own_story.push("1.0.0")
    clock(now())
    own_story.pull("1.0.0")
    clock(now() - timedelta(minutes=20))
    refused(own_story, "clock-set-back")


def test_knowledge_that_a_policy_calls_stale_is_not_used(story: Story, clock) -> None:
    """The freeze without a network: a machine that is kept from asking learns of no yank."""
    story.pull("1.0.0")
    policy = story.folder / "victim" / "memcube-trust.toml"
    policy.write_text('format = 1\n[default]\nmax_staleness = "7d"\n')
    opened(story)
    clock(now() + 8 * DAY)
    refused(story, "stale")


def exported(story: Story) -> Path:
    path = story.folder / "notes.memproof"
    with story.client("exporter") as client:
        place = client.context.at_registry(Reference.parse(f"{story.name}:1.0.0"))
        proofs.export(client.context, place, path)
    return path


def test_a_proof_that_a_policy_calls_stale_proves_nothing(story: Story, clock) -> None:
    path = exported(story)
    (story.folder / "victim").mkdir(mode=0o700)
    policy = story.folder / "victim" / "memcube-trust.toml"
    policy.write_text('format = 1\n[default]\nmax_staleness = "7d"\n')
    clock(now() + 8 * DAY)
    with story.client() as client:
        verdict = proofs.judge(client.context, proofs.read(path))
    assert verdict.error
    assert reason_of(verdict.error) == "stale"


@pytest.mark.parametrize("field", ["checkedAt", "reference", "manifest"])
def test_a_field_that_stands_twice_in_a_proof_is_refused(story: Story, field: str) -> None:
    path = exported(story)
    value = json.loads(path.read_bytes())
    again = json.dumps({field: value[field]})[1:-1].encode()
    path.write_bytes(path.read_bytes()[:-1] + b"," + again + b"}")
    with pytest.raises(MemcubeError) as caught:
        proofs.read(path)
    assert reason_of(caught.value) == "invalid-proof"


def test_a_proof_of_another_cube_is_refused_under_the_name_that_is_wanted(story: Story) -> None:
    """The whole file of another release, and the manifest of one with the signature of another."""
    proof = proofs.read(exported(story))
    with story.client() as client:
        for wanted in (f"{story.name}:1.1.0", f"{story.name}-private:1.0.0"):
            verdict = proofs.judge(client.context, proof, reference=Reference.parse(wanted))
            assert verdict.error, wanted
        found = finding.look_up(
            client.context, client.context.at_registry(Reference.parse(f"{story.name}:1.1.0"))
        )
        mixed = proofs.Proof(
            found.reference,
            found.manifest,
            found.config,
            proof.attestations,
            proof.checked_at,
        )
        verdict = proofs.judge(client.context, proofs.parse(mixed.to_bytes()))
        assert verdict.error
        assert reason_of(verdict.error) == "wrong-subject"
