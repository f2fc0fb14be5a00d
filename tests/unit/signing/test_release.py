"""Release statements, their bundles and their referrers."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidManifestError,
    InvalidStatementError,
    LimitExceededError,
    MemcubeError,
    SignatureInvalidError,
)
from memcube_signing import bundle as bundles
from memcube_signing import dsse, referrer, statement
from memcube_signing import release as releasing
from memcube_signing.bundle import Policy
from memcube_signing.dsse import Envelope, Signature
from memcube_signing.job import Job
from memcube_signing.keys import Algorithm
from memcube_signing.release import (
    PREDICATE_TYPE,
    Parent,
    Release,
    from_statement,
    sign_release,
    verify_release,
)
from memcube_signing.statement import Statement
from support.signing import (
    ALICE,
    CREATED,
    EDDIE,
    MALLORY,
    OTHER,
    attached,
    changed,
    flipped,
    manifest,
    release,
    signed,
    signed_payload,
    signed_predicate,
)

SUBJECT = manifest().digest
KEYS = [ALICE.public_key]

component = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
origins = st.builds(
    lambda host, names: "/".join([f"{host}.example", *names]),
    component,
    st.lists(component, min_size=1, max_size=3),
)
digests = st.binary(max_size=8).map(Digest.of)
claims = st.text(min_size=1, max_size=20).filter(str.isprintable)
jobs = st.builds(
    lambda subject, found: Job("https://ci.example", subject, tuple(sorted(found.items()))),
    claims,
    st.dictionaries(st.sampled_from(["ref", "sha", "run_id"]), claims),
)
moments = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))


@st.composite
def releases(draw) -> Release:
    seq = draw(st.integers(1, 2**53 - 1))
    created = draw(moments)
    return Release(
        subject=draw(digests),
        origin=draw(origins),
        version=".".join(str(draw(st.integers(0, 99))) for _ in range(3)),
        seq=seq,
        previous=draw(digests) if seq > 1 else None,
        licence=draw(st.sampled_from(["MIT", "CC-BY-4.0", "NOASSERTION", "MIT OR Apache-2.0"])),
        publishers=tuple(sorted({ALICE.public_key.id, draw(st.sampled_from("abc")) * 64})),
        created_at=created,
        expires_at=draw(st.none() | st.just(created + timedelta(days=1))),
        lineage=tuple(draw(st.lists(st.builds(Parent, origins, digests), max_size=2))),
        job=draw(st.none() | jobs),
    )


@given(releases())
@settings(max_examples=60)
def test_a_release_reads_back_from_its_bundle(said):
    bundle = sign_release(said, ALICE)
    assert verify_release(bundle.raw, keys=KEYS, subject=said.subject) == said
    assert bundles.parse(bundle.raw) == bundle


def test_signing_the_same_release_gives_the_same_bundle():
    assert signed().raw == signed().raw


def test_a_sha512_subject_is_bound_too():
    subject = Digest.of(b"manifest", "sha512")
    bundle = signed(subject=subject)
    assert verify_release(bundle.raw, keys=KEYS, subject=subject).subject == subject


def test_a_release_is_not_signed_by_a_key_that_it_does_not_name():
    with pytest.raises(InvalidStatementError):
        sign_release(release(ALICE), MALLORY)


def test_any_of_several_publishers_may_sign():
    both = tuple(sorted((ALICE.public_key.id, EDDIE.public_key.id)))
    said = release(publishers=both)
    for key in (ALICE, EDDIE):
        raw = sign_release(said, key).raw
        assert verify_release(raw, keys=[key.public_key], subject=SUBJECT) == said


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "alice/notes"},
        {"origin": "registry.example/alice/notes:1"},
        {"origin": f"registry.example/alice/notes@{OTHER}"},
        {"origin": "Registry.example/alice/notes"},
        {"origin": "registry.example/Alice/notes"},
        {"origin": "registry.example/аlice/notes"},
        {"origin": ""},
        {"origin": "registry.example/" + "a" * 300},
        {"version": "1"},
        {"version": "1.0.0_b"},
        {"version": "01.0.0"},
        {"seq": 0},
        {"seq": -1},
        {"seq": 2},
        {"seq": 2**53, "previous": OTHER},
        {"previous": OTHER},
        {"licence": ""},
        {"licence": "M\nIT"},
        {"licence": "MIT "},
        {"licence": "a" * 257},
        {"publishers": ()},
        {"publishers": ("x",)},
        {"publishers": ("b" * 64, "a" * 64)},
        {"publishers": ("a" * 64, "a" * 64)},
        {"publishers": tuple(sorted(f"{n:064x}" for n in range(65)))},
        {"created_at": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"created_at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
        {"created_at": datetime(2026, 1, 1, microsecond=1, tzinfo=UTC)},
        {"created_at": datetime(900, 1, 1, tzinfo=UTC)},
        {"expires_at": CREATED},
        {"lineage": (Parent("a.example/b", OTHER),) * 257},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_release_refuses_what_breaks_a_rule(change):
    with pytest.raises(InvalidStatementError) as caught:
        release(**change)
    assert caught.value.hint


@pytest.mark.parametrize("relation", ["", "Derived", "a b", "a" * 65])
def test_a_parent_refuses_a_relation_of_another_form(relation):
    with pytest.raises(InvalidStatementError):
        Parent("a.example/b", OTHER, relation)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 1.5},
        {"seq": True},
        {"seq": "1"},
        {"seq": None},
        {"version": 1},
        {"lineage": None},
        {"lineage": [1]},
        {"lineage": [{"origin": "a.example/b", "digest": "x", "relation": "derived"}]},
        {"lineage": [{"origin": "a.example/b", "digest": str(OTHER)}]},
        {"publisher": {}},
        {"publisher": {"keyIds": "x"}},
        {"publisher": {"keyIds": [], "more": 1}},
        {"publisher": None},
        {"createdAt": "2026-01-31"},
        {"createdAt": "2026-1-31T12:00:00Z"},
        {"createdAt": "2026-02-30T12:00:00Z"},
        {"expiresAt": None},
        {"previous": None},
    ],
    ids=str,
)
def test_a_well_signed_release_with_a_wrong_field_is_refused(change):
    with pytest.raises(InvalidStatementError):
        verify_release(signed_predicate(change), keys=KEYS, subject=SUBJECT)


@pytest.mark.parametrize(
    "field", ["origin", "version", "seq", "licence", "lineage", "publisher", "createdAt"]
)
def test_a_well_signed_release_without_a_field_is_refused(field):
    with pytest.raises(InvalidStatementError, match=field):
        verify_release(signed_predicate({}, (field,)), keys=KEYS, subject=SUBJECT)


def test_a_subject_named_otherwise_than_the_origin_is_refused():
    said = release().to_statement()
    other = Statement("x.example/y", said.subject, said.predicate_type, said.predicate)
    with pytest.raises(InvalidStatementError):
        from_statement(other)


def test_an_algorithm_that_the_policy_does_not_name_is_refused():
    raw = signed(EDDIE).raw
    only_p256 = frozenset({Algorithm.ECDSA_P256_SHA256})
    with pytest.raises(SignatureInvalidError) as caught:
        verify_release(raw, keys=[EDDIE.public_key], subject=SUBJECT, algorithms=only_p256)
    assert caught.value.reason == "forbidden-algorithm"


def test_no_key_accepts_nothing():
    with pytest.raises(SignatureInvalidError) as caught:
        verify_release(signed().raw, keys=[], subject=SUBJECT)
    assert caught.value.reason == "unknown-key"


@given(st.binary(max_size=400))
def test_random_bytes_as_a_bundle_raise_only_our_errors(content):
    with pytest.raises(MemcubeError):
        verify_release(content, keys=KEYS, subject=SUBJECT)


@given(st.binary(max_size=400))
def test_random_bytes_as_a_statement_raise_only_our_errors(content):
    with pytest.raises(MemcubeError):
        statement.parse(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
PATHS = [
    "mediaType", "verificationMaterial", "verificationMaterial.publicKey",
    "verificationMaterial.publicKey.hint", "dsseEnvelope", "dsseEnvelope.payload",
    "dsseEnvelope.payloadType", "dsseEnvelope.signatures", "dsseEnvelope.signatures.0",
    "dsseEnvelope.signatures.0.sig", "dsseEnvelope.signatures.0.keyid",
]  # fmt: skip


@given(st.sampled_from(PATHS), json_values)
@settings(max_examples=150)
def test_a_bundle_with_any_value_in_a_field_is_refused_or_says_the_same(path, value):
    raw = changed(signed().raw, path, value)
    try:
        assert verify_release(raw, keys=KEYS, subject=SUBJECT) == release()
    except MemcubeError:
        return
    assert path.endswith("keyid")
    assert not value


@given(st.sampled_from(sorted(json.loads(release().to_statement().to_bytes())["predicate"])), json_values)  # fmt: skip
@settings(max_examples=100)
def test_a_well_signed_release_with_any_value_in_a_field_raises_only_our_errors(field, value):
    with suppress(MemcubeError):
        said = verify_release(signed_predicate({field: value}), keys=KEYS, subject=SUBJECT)
        assert said.to_statement().predicate[field] == value


@pytest.mark.parametrize("key", [ALICE, EDDIE], ids=["p256", "ed25519"])
@pytest.mark.parametrize("what", ["payload", "signature"])
def test_every_change_of_one_byte_is_refused(key, what):
    envelope = signed(key).envelope
    payload, signature = envelope.payload, envelope.signatures[0].value
    target = payload if what == "payload" else signature
    for position in range(len(target)):
        for mask in (1, 0x80):
            mutant = flipped(target, position, mask)
            parts = (mutant, signature) if what == "payload" else (payload, mutant)
            raw = bundles.write(
                Envelope(
                    envelope.payload_type, parts[0], (Signature(parts[1], key.public_key.id),)
                ),
                key.public_key.id,
            ).raw
            with pytest.raises(SignatureInvalidError):
                verify_release(raw, keys=[key.public_key], subject=SUBJECT)


@given(st.integers(0, len(signed().raw) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_a_flipped_byte_of_a_bundle_is_refused(position, mask):
    with pytest.raises(MemcubeError):
        verify_release(flipped(signed().raw, position, mask), keys=KEYS, subject=SUBJECT)


def test_log_entries_and_timestamps_are_kept_as_they_came():
    raw = changed(signed().raw, "verificationMaterial.tlogEntries", [{"logIndex": "1"}])
    raw = changed(raw, "verificationMaterial.timestampVerificationData", {"rfc3161Timestamps": []})
    bundle = bundles.parse(raw)
    assert bundle.raw == raw
    assert bundle.log_entries == ({"logIndex": "1"},)
    assert bundle.timestamps == {"rfc3161Timestamps": []}
    assert verify_release(raw, keys=KEYS, subject=SUBJECT) == release()


@pytest.mark.parametrize("value", [1, [1], "x", {}])
def test_log_entries_of_another_shape_are_refused(value):
    raw = changed(signed().raw, "verificationMaterial.tlogEntries", value)
    with pytest.raises(InvalidStatementError):
        bundles.parse(raw)


def test_limits_are_kept():
    with pytest.raises(LimitExceededError):
        bundles.parse(b" " * (limits.BUNDLE_BYTES + 1))
    with pytest.raises(LimitExceededError):
        statement.parse(b" " * (limits.STATEMENT_BYTES + 1))
    with pytest.raises(LimitExceededError):
        signed_payload(b" " * (limits.STATEMENT_BYTES + 1))
    with pytest.raises(LimitExceededError):
        Statement("", OTHER, "x", {"text": "x" * limits.STATEMENT_BYTES}).to_bytes()


def test_statements_of_others_may_have_fields_that_we_do_not_know():
    said = json.loads(Statement("n", OTHER, "https://example.com/p/v1", {"a": 1}).to_bytes())
    parsed = statement.parse(json.dumps(said | {"extra": True}).encode())
    assert parsed == Statement("n", OTHER, "https://example.com/p/v1", {"a": 1})


@pytest.mark.parametrize(
    "subject",
    [None, [], [1], [{}], [{"digest": {}}], [{"digest": {"sha256": 1}}],
     [{"digest": {"md5": "00"}}], [{"digest": {"sha256": "00"}}],
     [{"digest": {"sha256": OTHER.hex, "sha512": "0" * 128}}],
     [{"digest": {"sha256": OTHER.hex}}] * 2, [{"digest": {"sha256": OTHER.hex}, "name": 1}]],
    ids=str,
)  # fmt: skip
def test_a_statement_about_anything_but_one_digest_is_refused(subject):
    said = {"_type": statement.TYPE, "subject": subject, "predicateType": "x", "predicate": {}}
    with pytest.raises(InvalidStatementError):
        statement.parse(json.dumps(said).encode())


def test_signatures_of_other_tools_may_have_a_high_s_where_the_policy_says_so():
    from cryptography.hazmat.primitives.asymmetric import utils

    bundle = signed()
    r, s = utils.decode_dss_signature(bundle.signature.value)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    high = utils.encode_dss_signature(r, order - s)
    envelope = Envelope(media_types.IN_TOTO, bundle.envelope.payload, (Signature(high),))
    other = bundles.write(envelope, ALICE.public_key.id)
    lenient = Policy(KEYS, PREDICATE_TYPE, SUBJECT, canonical_only=False)
    assert bundles.verify(other, lenient)[1] == ALICE.public_key
    with pytest.raises(SignatureInvalidError) as caught:
        verify_release(other.raw, keys=KEYS, subject=SUBJECT)
    assert caught.value.reason == "malleable-signature"


def test_the_pae_counts_bytes_not_characters():
    assert dsse.pae("ü", b"x") == "DSSEv1 2 ü 1 x".encode()


def test_a_referrer_reads_back():
    bundle = signed()
    read = referrer.read(oci.parse_manifest(attached(bundle, manifest()).raw))
    assert read.subject == manifest().descriptor()
    assert (read.bundle.digest, read.bundle.size) == (bundle.digest, len(bundle.raw))
    assert (read.predicate_type, read.offered_key) == (PREDICATE_TYPE, ALICE.public_key)


@pytest.mark.parametrize(
    ("path", "value"),
    [("artifactType", "application/x"), ("subject", ...), ("layers", []),
     ("layers.0.mediaType", "application/x")],
)  # fmt: skip
def test_a_manifest_of_another_form_is_no_attestation(path, value):
    raw = changed(attached(signed(), manifest()).raw, path, value)
    with pytest.raises(InvalidManifestError):
        referrer.read(oci.parse_manifest(raw))


@pytest.mark.parametrize("text", ["", "*", "AAAA", base64.b64encode(b"x" * 40).decode()])
def test_a_referrer_that_offers_no_key_but_garbage_is_refused(text):
    raw = attached(signed(), manifest()).raw
    document = json.loads(raw)
    document["annotations"][media_types.PUBLISHER_KEY] = text
    with pytest.raises(InvalidStatementError):
        referrer.read(oci.parse_manifest(json.dumps(document).encode()))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "notes",
        "alice/notes",
        f"{release().origin}:1",
        f"{release().origin}@sha256:zz",
        "R.x/a/b",
    ],
)
def test_what_is_no_origin_names_neither_a_cube_nor_a_parent(origin):
    with pytest.raises(InvalidStatementError):
        release(origin=origin)
    with pytest.raises(InvalidStatementError):
        Parent(origin, OTHER)


@pytest.mark.parametrize("relation", ["d", "d" * 64, "made-from-2"])
def test_a_relation_is_a_short_word(relation):
    assert Parent(release().origin, OTHER, relation).relation == relation


@pytest.mark.parametrize("relation", ["", "d" * 65, "Derived", "2nd", "a b", "a\n"])
def test_a_relation_is_nothing_else(relation):
    with pytest.raises(InvalidStatementError):
        Parent(release().origin, OTHER, relation)


def test_releases_are_counted_from_one_to_the_largest_safe_number():
    most = 2**53 - 1
    assert release(seq=most, previous=OTHER).seq == most
    for seq, previous in ((most + 1, OTHER), (0, OTHER), (0, None), (-1, OTHER), (1, OTHER)):
        with pytest.raises(InvalidStatementError):
            release(seq=seq, previous=previous)
    with pytest.raises(InvalidStatementError):
        release(seq=2, previous=None)


def test_a_cube_has_up_to_256_parents():
    parent = Parent(release().origin, OTHER)
    assert len(release(lineage=(parent,) * 256).lineage) == 256
    with pytest.raises(InvalidStatementError):
        release(lineage=(parent,) * 257)


@pytest.mark.parametrize("after", [timedelta(0), timedelta(seconds=-1)])
def test_a_release_expires_after_it_was_created(after):
    with pytest.raises(InvalidStatementError):
        release(expires_at=CREATED + after)


def test_up_to_64_publishers_are_named_sorted_and_each_once():
    named = tuple(f"{number:064x}" for number in range(65))
    assert release(publishers=named[:64]).publishers == named[:64]
    twice = (named[0], named[0])
    for wrong in (named, (), named[1::-1], twice, (*twice, named[1]), ("A" * 64,), ("a" * 63,)):
        with pytest.raises(InvalidStatementError):
            release(publishers=wrong)


def test_every_publisher_is_named_by_the_id_of_a_key():
    with pytest.raises(InvalidStatementError):
        release(publishers=("a" * 64, "mallory"))


@pytest.mark.parametrize("name", ["", "a", f"{release().origin}s", "z"])
def test_the_subject_is_named_by_the_origin(name):
    with pytest.raises(InvalidStatementError):
        from_statement(replace(release().to_statement(), name=name))


@pytest.mark.parametrize("digest", ["None", "sha256:zz", "", None, 7])
def test_a_parent_has_a_digest(digest):
    parent = {"origin": release().origin, "digest": digest, "relation": "derived"}
    with pytest.raises(InvalidStatementError) as caught:
        verify_release(signed_predicate({"lineage": [parent]}), keys=KEYS, subject=SUBJECT)
    assert caught.value.reason == "malformed-release"


@pytest.mark.parametrize(
    "text",
    ["2026-1-31T12:00:00Z", "2026-01-31t12:00:00Z", "2026-01-31T12:00:00z", "٢٠٢٦-01-31T12:00:00Z"],
)
def test_a_time_has_one_form(text):
    said = release().to_statement()
    with pytest.raises(InvalidStatementError):
        from_statement(replace(said, predicate={**said.predicate, "createdAt": text}))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 1, 1),  # noqa: DTZ001
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_times_are_whole_seconds_of_utc(moment):
    with pytest.raises(InvalidStatementError):
        release(created_at=moment)
    with pytest.raises(InvalidStatementError):
        release(created_at=datetime(1970, 1, 1, tzinfo=UTC), expires_at=moment)


def test_the_first_second_is_a_time():
    assert release(created_at=datetime(1970, 1, 1, tzinfo=UTC)).created_at.year == 1970


@pytest.mark.parametrize("gap", [b"{ ", b'{"subject":[],'])
def test_a_payload_in_another_form_is_refused_be_it_smaller_or_greater(gap):
    payload = release().to_statement().to_bytes()
    other = payload.replace(b"{", gap, 1) if gap == b"{ " else payload + b"\n"
    with pytest.raises(InvalidStatementError):
        verify_release(signed_payload(other), keys=KEYS, subject=SUBJECT)


def test_what_the_format_fixes_is_five_minutes_and_a_licence_that_is_not_told():
    assert timedelta(minutes=5) == releasing.CLOCK_TOLERANCE
    assert releasing.NO_LICENCE == "NOASSERTION"
