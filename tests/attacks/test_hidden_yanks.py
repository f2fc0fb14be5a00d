"""A registry that hides what a publisher took back: it works only on those who never saw it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from memcube.client import Client
from memcube.consuming import opening, verifying
from memcube.context import NORMAL_TRUST
from memcube.remote.log import logged
from memcube_protocol.errors import StorageError, YankedError
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.keys import PrivateKey
from memcube_signing.predicates import attest, status
from memcube_signing.predicates.status import Reason, State, Status
from support.hostile import Hostile
from support.machine import Machine
from support.signing import MALLORY
from support.story import Story, reason_of


def machine(story: Story, home: str) -> Machine:
    place = story.publisher_home if home == "publisher" else story.folder / home
    return Machine(place, story.publisher.server.url, story.publisher.token)


@pytest.fixture
def yanked(own_story: Story) -> Story:
    """A release that its publisher took back as harmful, which `victim` held already."""
    own_story.push("1.0.0")
    own_story.pull("1.0.0")
    machine(own_story, "publisher").ok("yank", f"{own_story.name}:1.0.0", "--reason", "harmful")
    return own_story


def hide(hostile: Hostile, story: Story) -> None:
    """Show every attestation but the yank."""
    left = [
        one
        for one in story.referrers("1.0.0")
        if referrer.read(one).predicate_type != status.PREDICATE_TYPE
    ]
    hostile.show_referrers(story.name, story.digest("1.0.0"), *left)


def opened(client: Client, story: Story) -> verifying.Verified:
    reference = Reference.parse(f"{story.name}:1.0.0")
    return opening.open_cube(client.context, reference, trust=NORMAL_TRUST)


def test_a_yank_that_was_seen_once_cannot_be_hidden_again(yanked: Story) -> None:
    with pytest.raises(YankedError):
        yanked.pull("1.0.0")
    hide(yanked.hostile, yanked)
    with pytest.raises(YankedError) as caught:
        yanked.pull("1.0.0")
    assert reason_of(caught.value) == "release-yanked"


def test_a_cube_that_is_held_is_not_mounted_after_its_yank_was_seen(yanked: Story) -> None:
    """Time of check, time of use: what a pull was refused for counts for the copy in the store too."""
    with yanked.client() as client:
        opened(client, yanked)
    with pytest.raises(YankedError):
        yanked.pull("1.0.0")
    with yanked.client() as client, pytest.raises(YankedError):
        opened(client, yanked)


def test_a_newcomer_is_not_told_of_a_hidden_yank_unless_a_policy_asks(yanked: Story) -> None:
    """The limit of it, stated in the threat model: absence is proven by nothing but freshness."""
    hide(yanked.hostile, yanked)
    assert yanked.pull("1.0.0", home="newcomer").verdict.error is None


def test_what_was_said_is_never_forgotten_by_damage(yanked: Story) -> None:
    with pytest.raises(YankedError):
        yanked.pull("1.0.0")
    (kept,) = (yanked.folder / "victim" / "trust" / "statuses").glob("*.json")
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(StorageError):
        yanked.pull("1.0.0")


def plant(story: Story, key: PrivateKey, stated_at: datetime) -> None:
    """Show beside all that is there a statement by `key` that 1.0.0 is fine; the log holds it."""
    origin = f"{story.hostile.host}/{story.name}"
    said = Status(story.digest("1.0.0"), origin, "1.0.0", State.ACTIVE, Reason.OTHER, stated_at)
    with story.client("publisher") as client:
        registry = client.context.registry(story.hostile.host)
        bundle = logged(registry, story.name, attest(said, key), key.public_key)
    manifest, raw = story.carried(bundle, story.raw("1.0.0"), key, status.PREDICATE_TYPE)
    present = story.referrers("1.0.0")
    story.hostile.plant(story.name, manifest.raw, raw)
    story.hostile.show_referrers(story.name, story.digest("1.0.0"), manifest, *present)


NOW = datetime.now(UTC).replace(microsecond=0)


def test_nobody_else_takes_a_yank_back(yanked: Story) -> None:
    plant(yanked, MALLORY, NOW + timedelta(minutes=2))
    with pytest.raises(YankedError):
        yanked.pull("1.0.0")


def test_the_publisher_takes_a_yank_back(yanked: Story) -> None:
    with pytest.raises(YankedError):
        yanked.pull("1.0.0")
    machine(yanked, "publisher").ok("deprecate", f"{yanked.name}:1.0.0", "--undo")
    assert yanked.pull("1.0.0").verdict.error is None


def test_a_reinstatement_from_the_future_outlasts_no_yank(yanked: Story) -> None:
    """A thief with the key states once that the release will be fine in ten years."""
    plant(yanked, yanked.key(), NOW + timedelta(days=3650))
    with pytest.raises(YankedError):
        yanked.pull("1.0.0")


def test_a_policy_that_enforces_is_not_warned_away(yanked: Story) -> None:
    """`--trust warn` mounts a harmful release asked for by its version; a policy's word goes before."""
    victim = machine(yanked, "victim")
    victim.ok("pull", f"{yanked.name}:1.0.0", "--trust", "warn")
    (victim.home / "memcube-trust.toml").write_text('format = 1\n[default]\nmode = "enforce"\n')
    assert victim.run("pull", f"{yanked.name}:1.0.0", "--trust", "warn").returncode != 0
