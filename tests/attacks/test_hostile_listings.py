"""What a registry lists, and how often it is asked: floods, second answers, new cubes in a known name."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import YankedError
from memcube_signing.predicates import attest, status
from memcube_signing.predicates.status import Reason, State, Status
from memcube_signing.release import PREDICATE_TYPE, sign_release, verify_release
from support.machine import Machine
from support.scripted import Answer, Received
from support.signing import MALLORY, signed_payload
from support.story import Attached, Story

REVIEW = "https://example.com/review/v1"


def junk(story: Story, count: int, kind: str) -> list[Attached]:
    """Signed by somebody who may push: no key of the publisher's is needed."""
    made = []
    for number in range(count):
        bundle = signed_payload(json.dumps({"number": number}).encode(), MALLORY)
        made.append(story.carried(bundle, story.raw("1.0.0"), MALLORY, kind))
    return made


def yank(story: Story) -> Attached:
    said = Status(
        story.digest("1.0.0"),
        f"{story.hostile.host}/{story.name}",
        "1.0.0",
        State.YANKED,
        Reason.HARMFUL,
        datetime.now(UTC).replace(microsecond=0),
    )
    bundle = attest(said, story.key())
    return story.carried(bundle, story.raw("1.0.0"), story.key(), status.PREDICATE_TYPE)


def test_a_flood_of_other_statements_does_not_push_a_yank_out(story: Story) -> None:
    flood = junk(story, 70, REVIEW)
    story.hostile.attach(
        story.name, story.digest("1.0.0"), story.attached("1.0.0"), *flood, yank(story)
    )
    with pytest.raises(YankedError):
        story.pull("1.0.0")


def test_a_flood_of_false_yanks_stops_everybody_rather_than_hide_one(story: Story) -> None:
    flood = junk(story, 256, status.PREDICATE_TYPE)
    story.hostile.attach(
        story.name, story.digest("1.0.0"), story.attached("1.0.0"), *flood, yank(story)
    )
    story.refused("limit-exceeded", "1.0.0")


def test_statements_that_are_large_together_are_not_all_held_in_memory(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = story.attached("1.0.0"), yank(story)
    monkeypatch.setattr(limits, "STATEMENTS_BYTES", 60_000)
    story.hostile.attach(story.name, story.digest("1.0.0"), listed[0], *junk(story, 60, REVIEW))
    story.pull("1.0.0")
    flood = junk(story, 60, status.PREDICATE_TYPE)
    story.hostile.attach(story.name, story.digest("1.0.0"), *listed, *flood)
    story.refused("limit-exceeded", "1.0.0")


def second_time(path: str, answer: Callable[[], Answer]) -> Callable[[Received, Answer], Answer]:
    """Lie about `path` from the second request on."""
    asked: list[str] = []

    def told(request: Received, honest: Answer) -> Answer:
        if request.path.partition("?")[0] != path:
            return honest
        asked.append(request.path)
        return honest if len(asked) == 1 else answer()

    return told


def forgery(story: Story) -> Attached:
    honest = story.attached("1.0.0")[1]
    release = verify_release(honest, keys=[story.key().public_key], subject=story.digest("1.0.0"))
    value = release.to_statement().to_bytes().replace(b"NOASSERTION", b"CC0-1.0")
    bundle = signed_payload(value, MALLORY)
    return story.carried(bundle, story.raw("1.0.0"), MALLORY)


def test_what_is_exported_is_what_was_verified(story: Story, tmp_path: Path) -> None:
    """The registry answers honestly while it is judged, and otherwise when the bundles are fetched."""
    forged = forgery(story)
    story.hostile.plant(story.name, forged[0].raw, forged[1])
    path = f"/v2/{story.name}/referrers/{story.digest('1.0.0')}"
    several = [forged[0]] * len(story.referrers("1.0.0"))
    before = len(story.hostile.lies)
    story.hostile.show_referrers(story.name, story.digest("1.0.0"), *several)
    lie = story.hostile.lies.pop()
    assert len(story.hostile.lies) == before
    story.hostile.lies.append(
        second_time(path, lambda: lie(Received("GET", path, {}, b""), Answer()))
    )
    victim = Machine(tmp_path / "home", story.publisher.server.url, story.publisher.token)
    victim.ok("provenance", f"{story.name}:1.0.0", "--export", tmp_path / "proof")
    assert not list((tmp_path / "proof").glob("release.*"))


def test_a_cube_that_changes_while_it_is_looked_at_is_not_exported(
    story: Story, tmp_path: Path
) -> None:
    other = story.raw("1.1.0")
    answer = Answer(
        200,
        {
            "Content-Type": "application/vnd.oci.image.manifest.v1+json",
            "Docker-Content-Digest": str(Digest.of(other)),
        },
        other,
    )
    path = f"/v2/{story.name}/manifests/1.0.0"
    story.hostile.lies.append(second_time(path, lambda: answer))
    victim = Machine(tmp_path / "home", story.publisher.server.url, story.publisher.token)
    done = victim.run("provenance", f"{story.name}:1.0.0", "--export", tmp_path / "proof")
    assert done.returncode != 0
    assert not (tmp_path / "proof").exists()


def test_a_new_cube_in_a_known_namespace_by_another_key_is_told(story: Story) -> None:
    """A registry that was taken over cannot touch what is pinned: it begins `notes-pro` beside it."""
    story.pull("1.0.0")
    honest = verify_release(
        story.attached("1.0.0")[1],
        keys=[story.key().public_key],
        subject=story.digest("1.0.0"),
    )
    evil = story.published["1.0.0"].cube
    twin = Story(
        story.hostile,
        story.publisher,
        story.folder,
        f"{story.name}-pro",
        story.publisher_home,
        story.published,
    )
    origin = f"{story.hostile.host}/{twin.name}"
    said = honest.__class__(
        subject=honest.subject,
        origin=origin,
        version="1.0.0",
        seq=1,
        previous=None,
        licence=honest.licence,
        publishers=(MALLORY.public_key.id,),
        created_at=honest.created_at,
    )
    carried = story.carried(
        sign_release(said, MALLORY), story.raw("1.0.0"), MALLORY, PREDICATE_TYPE
    )
    story.hostile.serve_manifest(twin.name, "1.0.0", story.raw("1.0.0"))
    for blob in evil.manifest.blobs:
        honest_blob = story.hostile.honest(f"/v2/{story.name}/blobs/{blob.digest}")
        story.hostile.serve(
            f"/v2/{twin.name}/blobs/{blob.digest}", honest_blob.body, "application/octet-stream"
        )
    story.hostile.attach(twin.name, story.digest("1.0.0"), carried)
    (story.folder / "victim" / "memcube-trust.toml").write_text(
        'format = 1\n[default]\nlog = "off"\n'
    )
    warnings = twin.pull("1.0.0").verdict.warnings
    assert any("by another key" in warning for warning in warnings)
