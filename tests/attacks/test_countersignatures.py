"""The registry's countersignature, forged, replayed, moved and left alone: the real client is told."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from memcube.trust import Mode
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_signing import bundle as bundles
from memcube_signing import statement
from memcube_signing.predicates import attest
from memcube_signing.predicates import countersignature as countersignatures
from memcube_signing.predicates.countersignature import PREDICATE_TYPE, Countersignature
from memcube_signing.release import PREDICATE_TYPE as RELEASE
from support.scripted import Answer
from support.signing import MALLORY
from support.story import Attached, Story, reason_of

WELL_KNOWN = "/.well-known/memcube.json"
DEMAND = 'format = 1\n[default]\ncountersignature = "required"\n'


@pytest.fixture
def demanding(story: Story) -> Story:
    """A consumer whose policy demands the registry's countersignature."""
    demand(story, "victim", DEMAND)
    return story


def demand(story: Story, home: str, policy: str) -> None:
    place = story.folder / home
    place.mkdir(parents=True, exist_ok=True)
    (place / "memcube-trust.toml").write_text(policy)


def honest(story: Story, version: str = "1.0.0") -> Countersignature:
    """What the registry really said of a version."""
    _, raw = story.attached(version, PREDICATE_TYPE)
    return countersignatures.read(statement.parse(bundles.parse(raw).envelope.payload))


def forged(story: Story, value: Countersignature, subject: bytes) -> Attached:
    return story.carried(attest(value, MALLORY), subject, MALLORY, PREDICATE_TYPE)


def shown(story: Story, *attached: Attached, version: str = "1.0.0") -> None:
    """Show the honest release of a version with exactly `attached` beside it."""
    release = story.attached(version, RELEASE)
    story.hostile.attach(story.name, story.digest(version), release, *attached)


def refused(story: Story, reason: str, tag: str = "1.0.0", home: str = "victim") -> None:
    with pytest.raises(Exception) as caught:
        story.pull(tag, home=home)
    assert reason_of(caught.value) == reason, caught.value
    assert story.held(home) == {}


def test_the_honest_one_is_enough_for_a_policy_that_demands_it(demanding: Story) -> None:
    verdict = demanding.pull("1.0.0").verdict
    (rule,) = [rule for rule in verdict.rules if rule.rule == "countersignature"]
    assert rule.outcome == "passed"
    assert f"http://{demanding.hostile.host} verified this release" in rule.detail


def test_one_that_is_withheld_is_missed(demanding: Story) -> None:
    shown(demanding)
    refused(demanding, "countersignature-missing")


def test_one_by_another_key_does_not_count(demanding: Story) -> None:
    shown(demanding, forged(demanding, honest(demanding), demanding.raw("1.0.0")))
    refused(demanding, "unknown-key")


def test_one_about_another_manifest_does_not_count(demanding: Story) -> None:
    _, other = demanding.attached("1.1.0", PREDICATE_TYPE)
    shown(demanding, demanding.carried(other, demanding.raw("1.0.0"), MALLORY, PREDICATE_TYPE))
    refused(demanding, "wrong-subject")


def test_one_replayed_onto_another_name_does_not_count(demanding: Story) -> None:
    """The same bytes released under two names: each countersignature is good for its own."""
    other = replace(demanding, name=f"{demanding.publisher.name}/twin", published={})
    with demanding.client("publisher") as client:
        packed = f"{demanding.name}:1.0.0"
        other.published["1.0.0"] = client.push(packed, f"{other.name}:1.0.0", public=True)
    assert other.digest("1.0.0") == demanding.digest("1.0.0")
    assert honest(other).resource == f"{demanding.hostile.host}/{other.name}"
    shown(other, demanding.attached("1.0.0", PREDICATE_TYPE))
    refused(other, "countersignature-of-another-name")


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("version", ["1.0.0", "latest"])
def test_without_the_publishers_signature_it_makes_nothing_trusted(
    story: Story, mode: Mode, version: str
) -> None:
    digest = story.digest("1.0.0" if version == "1.0.0" else "1.1.0")
    only = story.attached("1.0.0" if version == "1.0.0" else "1.1.0", PREDICATE_TYPE)
    story.hostile.attach(story.name, digest, only)
    story.refused("countersignature-without-release", version)


def test_a_key_that_the_registry_shows_later_is_not_believed(demanding: Story) -> None:
    demanding.pull("1.0.0")
    value = replace(honest(demanding, "1.1.0"), inputs=honest(demanding, "1.1.0").inputs)
    shown(demanding, forged(demanding, value, demanding.raw("1.1.0")), version="1.1.0")

    def with_another_key(answer: Answer) -> Answer:
        document = json.loads(answer.body)
        key = base64.b64encode(MALLORY.public_key.der).decode()
        document["features"]["countersignatures"]["key"] = key
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    demanding.hostile.lie(WELL_KNOWN, with_another_key)
    with pytest.raises(Exception) as caught:
        demanding.pull("1.1.0")
    assert reason_of(caught.value) == "unknown-key"
    assert set(demanding.held().values()) == {demanding.digest("1.0.0")}


def test_a_first_use_never_takes_the_key_from_the_bundle(demanding: Story) -> None:
    """A registry that names no key countersigns nothing, whatever key a referrer offers."""
    shown(demanding, forged(demanding, honest(demanding), demanding.raw("1.0.0")))

    def without_key(answer: Answer) -> Answer:
        document = json.loads(answer.body)
        del document["features"]["countersignatures"]
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    demanding.hostile.lie(WELL_KNOWN, without_key)
    refused(demanding, "registry-key-unknown")


def test_a_key_in_the_policy_goes_before_the_one_that_is_shown(story: Story) -> None:
    host, pem = story.hostile.host, MALLORY.public_key.to_pem()
    demand(story, "victim", f'{DEMAND}[registries]\n"{host}" = """\n{pem}"""\n')
    refused(story, "unknown-key")


def test_one_that_the_log_does_not_hold_does_not_count(demanding: Story) -> None:
    manifest, raw = demanding.attached("1.0.0", PREDICATE_TYPE)
    document = json.loads(raw)
    del document["verificationMaterial"]["tlogEntries"]
    bare = json.dumps(document).encode()
    assert oci.parse_manifest(manifest.raw).layers[0].digest != Digest.of(bare)
    shown(demanding, demanding.carried(bare, demanding.raw("1.0.0"), MALLORY, PREDICATE_TYPE))
    refused(demanding, "log-entry-missing")


def test_who_steals_a_token_and_not_the_key_gets_none(story: Story) -> None:
    """A thief's release under a new name of the namespace is published, and the registry says nothing."""
    theirs = replace(story, name=f"{story.publisher.name}/bait", published={})
    theirs.push("1.0.0", home="thief")
    kinds = [
        one.annotations.get("dev.sigstore.bundle.predicateType")
        for one in theirs.referrers("1.0.0")
    ]
    assert RELEASE in kinds
    assert PREDICATE_TYPE not in kinds
    demand(theirs, "victim", DEMAND)
    refused(theirs, "countersignature-missing")
