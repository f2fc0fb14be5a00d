"""A registry, or a line to it, that swaps, mixes, withholds and replays: the real client is told."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing import bundle as bundles
from memcube_signing.predicates import scan as scans
from memcube_signing.release import PREDICATE_TYPE, sign_release, verify_release
from support.scripted import Answer
from support.signing import MALLORY, changed, signed_payload
from support.story import Story


def changed_manifest(raw: bytes, **fields: object) -> bytes:
    return canonical_json.dump(json.loads(raw) | fields)


def swapped(story: Story, raw: bytes, *tags: str, version: str = "1.0.0") -> None:
    """Serve `raw` through `tags`, with the honest attestations of `version` beside it."""
    attached = [story.attached(version, kind) for kind in (PREDICATE_TYPE, scans.PREDICATE_TYPE)]
    digest = story.hostile.plant(story.name, raw)
    for tag in tags:
        story.hostile.serve_manifest(story.name, tag, raw)
    story.hostile.attach(story.name, digest, *attached)


def test_a_swapped_manifest_is_refused_at_first_use(story: Story) -> None:
    evil = changed_manifest(story.raw("1.0.0"), annotations={"org.example": "evil"})
    swapped(story, evil, "1.0.0")
    story.refused("wrong-subject", "1.0.0")


def test_a_swapped_manifest_is_refused_by_those_who_know_the_cube(story: Story) -> None:
    story.pull("1.0.0")
    evil = changed_manifest(story.raw("1.0.0"), annotations={"org.example": "evil"})
    swapped(story, evil, "1.0.0")
    story.refused("wrong-subject", "1.0.0")
    assert set(story.held().values()) == {story.digest("1.0.0")}


def test_layers_of_two_releases_are_not_mixed(story: Story) -> None:
    """Config and signature of one release, memories of the other: each layer is honest alone."""
    old, new = (json.loads(story.raw(version)) for version in ("1.0.0", "1.1.0"))
    mixed = canonical_json.dump(new | {"layers": old["layers"]})
    attached = [story.attached(version) for version in ("1.0.0", "1.1.0")]
    digest = story.hostile.plant(story.name, mixed)
    story.hostile.serve_manifest(story.name, "1.1.0", mixed)
    story.hostile.attach(story.name, digest, *attached)
    story.refused("wrong-subject", "1.1.0")


def test_other_bytes_under_the_digest_of_a_layer_are_refused(story: Story) -> None:
    layer = oci.parse_manifest(story.raw("1.0.0")).layers[0]
    story.hostile.lie(
        f"/v2/{story.name}/blobs/{layer.digest}",
        lambda honest: replace(honest, body=bytes([honest.body[0] ^ 1]) + honest.body[1:]),
    )
    story.refused("digest-mismatch", "1.0.0")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_another_manifest_under_the_digest_that_was_asked_for_is_refused(
    story: Story, algorithm: str
) -> None:
    wanted = Digest.of(story.raw("1.0.0"), algorithm)
    raw = story.raw("1.1.0")
    said = {
        "Content-Type": oci.parse_manifest(raw).media_type,
        "Docker-Content-Digest": str(wanted),
    }
    story.hostile.lie(f"/v2/{story.name}/manifests/{wanted}", lambda _: Answer(200, said, raw))
    story.refused("digest-mismatch", f"@{wanted}")


def test_an_older_release_is_not_replayed_through_a_tag(story: Story) -> None:
    story.pull()
    story.hostile.serve_manifest(story.name, "latest", story.raw("1.0.0"))
    story.refused("rollback")


def test_an_older_release_is_not_replayed_as_a_newer_version(story: Story) -> None:
    story.hostile.serve_manifest(story.name, "2.0.0", story.raw("1.0.0"))
    story.hostile.serve_manifest(story.name, "2.0", story.raw("1.0.0"))
    story.refused("version-mismatch", "2.0.0")
    story.refused("version-mismatch", "2.0")


def forged(
    story: Story, key=MALLORY, **changes: object
) -> tuple[bytes, tuple[oci.Manifest, bytes]]:
    """A manifest of the attacker's, and its release signed by `key` for the publisher's name."""
    honest = story.attached("1.0.0")[1]
    publisher = story.key().public_key
    release = verify_release(honest, keys=[publisher], subject=story.digest("1.0.0"))
    evil = changed_manifest(story.raw("1.0.0"), annotations={"org.example": "evil"})
    said = replace(release, subject=Digest.of(evil), publishers=(key.public_key.id,), **changes)
    return evil, story.carried(sign_release(said, key), evil, key)


def test_a_bundle_by_the_attackers_own_key_is_refused(story: Story) -> None:
    """The whole forgery: own content, own key, offered as the registry offers the publisher's."""
    story.pull("1.0.0")
    evil, attached = forged(story)
    story.hostile.serve_manifest(story.name, "1.0.0", evil)
    story.hostile.attach(story.name, story.hostile.plant(story.name, evil), attached)
    story.refused("publisher-changed", "1.0.0")


def test_the_attackers_claim_beside_the_publishers_is_refused_at_first_use(story: Story) -> None:
    honest = story.attached("1.0.0")
    release = verify_release(
        honest[1], keys=[story.key().public_key], subject=story.digest("1.0.0")
    )
    own = replace(release, publishers=(MALLORY.public_key.id,))
    rival = story.carried(sign_release(own, MALLORY), story.raw("1.0.0"), MALLORY)
    story.hostile.attach(story.name, story.digest("1.0.0"), rival, honest)
    story.refused("ambiguous-publisher", "1.0.0")


def test_the_attackers_key_offered_for_the_publishers_bundle_is_refused(story: Story) -> None:
    _, bundle = story.attached("1.0.0")
    offered = story.carried(bundle, story.raw("1.0.0"), MALLORY)
    story.hostile.attach(story.name, story.digest("1.0.0"), offered)
    story.refused("unknown-key", "1.0.0")


def test_a_withheld_signature_is_noticed(story: Story) -> None:
    story.pull("1.0.0")
    story.hostile.attach(story.name, story.digest("1.0.0"))
    story.refused("signature-vanished", "1.0.0")


def test_another_statement_of_the_publisher_stands_in_for_no_release(story: Story) -> None:
    """The publisher signed a scan of this very manifest; the registry calls it a release."""
    story.pull("1.0.0")
    _, scan = story.attached("1.0.0", scans.PREDICATE_TYPE)
    posing = story.carried(scan, story.raw("1.0.0"), story.key(), PREDICATE_TYPE)
    story.hostile.attach(story.name, story.digest("1.0.0"), posing)
    story.refused("signature-vanished", "1.0.0")


def test_fields_of_a_release_in_another_type_of_statement_are_no_release(story: Story) -> None:
    """A publisher who signs any predicate (memcube attest) has not released it."""
    story.pull("1.0.0")
    payload = bundles.parse(story.attached("1.0.0")[1]).envelope.payload
    other = payload.replace(PREDICATE_TYPE.encode(), b"https://memcube.org/release/v2")
    attached = story.carried(signed_payload(other, story.key()), story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.refused("signature-vanished", "1.0.0")


def test_a_release_for_another_registrys_name_is_refused(story: Story) -> None:
    """The publisher's genuine release of a cube elsewhere, served as the one here."""
    honest = verify_release(
        story.attached("1.0.0")[1], keys=[story.key().public_key], subject=story.digest("1.0.0")
    )
    elsewhere = replace(honest, origin=f"other.example/{story.name}")
    attached = story.carried(sign_release(elsewhere, story.key()), story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.refused("origin-mismatch", "1.0.0")


def test_a_bundle_written_anew_is_judged_by_the_bytes_that_were_signed(story: Story) -> None:
    """The same JSON with other spaces: whoever signs bytes has not signed these."""
    _, bundle = story.attached("1.0.0")
    payload = bundles.parse(bundle).envelope.payload
    spaced = base64.b64encode(json.dumps(json.loads(payload)).encode()).decode()
    anew = changed(bundle, "dsseEnvelope.payload", spaced)
    attached = story.carried(anew, story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.refused("bad-signature", "1.0.0")


def test_a_release_that_was_signed_in_another_form_is_refused(story: Story) -> None:
    """Two forms of one statement would be two readings: only the canonical one is a release."""
    payload = bundles.parse(story.attached("1.0.0")[1]).envelope.payload
    spaced = json.dumps(json.loads(payload), sort_keys=True).encode()
    attached = story.carried(signed_payload(spaced, story.key()), story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.refused("not-canonical", "1.0.0")


def twice(content: bytes, key: str) -> bytes:
    """JSON `content` with the field `key` of its outermost object standing twice."""
    value = json.loads(content)[key]
    return b"{" + json.dumps({key: value})[1:-1].encode() + b"," + content[1:]


@pytest.mark.parametrize("where", ["manifest", "bundle", "statement", "referrer"])
def test_a_field_that_stands_twice_is_refused_wherever_it_stands(story: Story, where: str) -> None:
    """Two parsers read two values: even what the publisher signed is refused."""
    raw, (referrer, bundle) = story.raw("1.0.0"), story.attached("1.0.0")
    if where == "manifest":
        raw = twice(raw, "layers")
        story.hostile.serve_manifest(story.name, "1.0.0", raw)
        story.hostile.attach(story.name, story.hostile.plant(story.name, raw), (referrer, bundle))
        story.refused("invalid-json", "1.0.0")
        return
    if where == "statement":
        payload = twice(bundles.parse(bundle).envelope.payload, "predicate")
        bundle = signed_payload(payload, story.key())
    attached = story.carried(
        twice(bundle, "dsseEnvelope") if where == "bundle" else bundle, raw, story.key()
    )
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    if where == "referrer":
        story.pull("1.0.0")
        doubled = twice(attached[0].raw, "layers")
        digest = story.hostile.plant(story.name, doubled)
        entry = oci.Descriptor(
            media_types.OCI_MANIFEST, digest, len(doubled), {}, media_types.SIGSTORE_BUNDLE
        )
        index = oci.write_index([entry])
        path = f"/v2/{story.name}/referrers/{story.digest('1.0.0')}"
        story.hostile.serve(path, index.raw, index.media_type)
        story.refused("signature-vanished", "1.0.0")
        return
    story.refused("invalid-json", "1.0.0")
