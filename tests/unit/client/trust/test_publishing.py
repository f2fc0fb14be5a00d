"""Signing for publication: the order of releases, and what a consumer makes of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from memcube.trust import (
    Acceptance,
    Attestation,
    Pins,
    Publication,
    Question,
    Signed,
    releases_of,
    sign_cube,
    tagged,
    verify_cube,
)
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    InvalidReferenceError,
    InvalidStatementError,
    PublisherChangedError,
)
from memcube_protocol.reference import Reference
from support.signing import ALICE, MALLORY, NOW, ORIGIN, manifest, release

NO_PINS = Pins()
REFERENCE = Reference.parse(f"{ORIGIN}:latest")


def sign(text: str = "one", version: str = "1.0.0", pins: Pins = NO_PINS, **more):
    more.setdefault("signer", ALICE)
    more.setdefault("now", NOW)
    return sign_cube(REFERENCE, manifest(text), Publication(version), pins=pins, **more)


def test_what_is_signed_is_accepted_by_a_consumer():
    signed = sign()
    question = Question(REFERENCE, manifest(), [signed.attestation], Pins(), NOW)
    assert verify_cube(question).release == signed.release


def test_the_blobs_are_those_that_the_referrer_names():
    signed = sign()
    assert [blob.digest for blob in signed.manifest.blobs] == [Digest.of(b) for b in signed.blobs]
    assert signed.manifest.subject == manifest().descriptor()


def test_releases_are_numbered_and_chained():
    first = sign()
    pins = Pins().recording(first.observation)
    second = sign("two", "1.1.0", pins)
    assert (second.release.seq, second.release.previous) == (2, first.release.subject)
    pins = pins.recording(second.observation)
    third = sign("three", "1.0.1", pins)
    assert (third.release.seq, third.release.previous) == (3, second.release.subject)


def test_the_registry_tells_a_new_machine_what_came_before():
    first = sign()
    known = releases_of(manifest(), [first.attestation])
    assert known == (Signed(first.release, ALICE.public_key),)
    assert sign("two", "1.1.0", published=known).release.seq == 2


def test_what_is_no_well_signed_release_is_passed_over():
    broken = Attestation(sign().manifest, b"broken")
    other = Attestation(oci.write_manifest(artifact_type="a/b", config=oci.EMPTY, layers=[]), b"")
    assert releases_of(manifest(), [broken, other]) == ()


def test_releases_of_other_names_do_not_count():
    elsewhere = Signed(release(origin="registry.example/alice/other"), ALICE.public_key)
    assert sign("two", "1.1.0", published=[elsewhere]).release.seq == 1


def test_a_new_machine_with_a_new_key_is_stopped_before_it_alarms_everybody():
    theirs = sign(signer=MALLORY)
    known = releases_of(manifest(), [theirs.attestation])
    with pytest.raises(PublisherChangedError) as caught:
        sign("two", "1.1.0", published=known)
    assert "copy its two files" in caught.value.hint
    accept = Acceptance(publisher=ALICE.public_key.id)
    assert sign("two", "1.1.0", published=known, accept=accept).release.seq == 2


def test_a_release_that_somebody_else_attached_does_not_count():
    mine, theirs = sign(), sign(signer=MALLORY)
    known = releases_of(manifest(), [theirs.attestation, mine.attestation])
    assert len(known) == 2
    assert sign("two", "1.1.0", published=known).release.seq == 2


def test_an_interrupted_publication_keeps_its_place():
    first = sign()
    second = sign("two", "1.1.0", Pins().recording(first.observation))
    pins = Pins().recording(first.observation).recording(second.observation)
    again = sign("two", "1.1.0", pins, now=NOW + timedelta(hours=1))
    assert (again.release.seq, again.release.previous) == (2, first.release.subject)
    assert sign(pins=pins).release == first.release


def test_signing_the_same_at_the_same_time_gives_the_same_bytes():
    assert sign().manifest.raw == sign().manifest.raw


def test_a_version_is_never_released_with_other_content():
    pins = Pins().recording(sign().observation)
    with pytest.raises(ConflictError) as caught:
        sign("two", "1.0.0", pins)
    assert "raise the version" in caught.value.hint


def test_a_release_needs_a_host_and_a_whole_version():
    with pytest.raises(InvalidReferenceError):
        sign_cube(
            Reference.parse("alice/notes"),
            manifest(),
            Publication("1.0.0"),
            signer=ALICE,
            pins=Pins(),
            now=NOW,
        )
    with pytest.raises(InvalidStatementError):
        sign(version="1.0")


def test_the_publisher_follows_the_own_tags_too():
    pins = Pins().recording(tagged(sign().observation, "latest"))
    assert pins.at(ORIGIN).tags == {"latest": 1}


def test_another_key_needs_the_publishers_word():
    pins = Pins().recording(sign().observation)
    with pytest.raises(PublisherChangedError):
        sign("two", "1.1.0", pins, signer=MALLORY)
    accept = Acceptance(publisher=MALLORY.public_key.id)
    signed = sign("two", "1.1.0", pins, signer=MALLORY, accept=accept)
    assert signed.release.seq == 2
    assert pins.recording(signed.observation).of(ORIGIN).publishers == (MALLORY.public_key,)
