"""Policies: which scope decides, what its file may hold, and each demand with its refusal."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given
from hypothesis import strategies as st
from memcube.trust import Acceptance, Attestation, Mode, Outcome, Pins, Question, judge_cube
from memcube.trust.policy import LogDemand, Pattern, Policy, Required, Terms
from memcube.trust.policy_file import load, load_effective, parse
from memcube_protocol import media_types, oci
from memcube_protocol.errors import InvalidPolicyError, NotFoundError
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE, sign_release
from memcube_signing.statement import Statement
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import Witnesses
from support.log import signer
from support.signing import ALICE, EDDIE, MALLORY, NOW, ORIGIN, changed, manifest, release

SCAN = "https://scan.example/v1"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MIRROR = "mirror.example/copies/notes"
KEYS = f"""
[keys]
alice = "{base64.b64encode(ALICE.public_key.der).decode()}"
eddie = '''
{EDDIE.public_key.to_pem()}'''
"""


def policy(text: str) -> Policy:
    return parse(f"format = 1\n{KEYS}\n{text}".encode())


def released(*keys, manifest_=None, **changes):
    """Attestations of one release that all `keys` signed."""
    cube = manifest_ or manifest()
    said = release(
        publishers=tuple(sorted(key.public_key.id for key in keys)), subject=cube.digest, **changes
    )
    return [
        Attestation(
            referrer.write(bundle, PREDICATE_TYPE, cube.descriptor(), key.public_key), bundle.raw
        )
        for key in keys
        for bundle in [sign_release(said, key)]
    ]


def scan(key, cube=None, kind=SCAN, **predicate):
    cube = cube or manifest()
    bundle = bundles.sign(Statement("x", cube.digest, kind, predicate), key)
    return Attestation(referrer.write(bundle, kind, cube.descriptor(), key.public_key), bundle.raw)


def judge(text_or_policy, *attestations, where=f"{ORIGIN}:latest", cube=None, **more):
    rules = policy(text_or_policy) if isinstance(text_or_policy, str) else text_or_policy
    found = list(attestations) or released(ALICE)
    more.setdefault("pins", Pins())
    return judge_cube(
        Question(Reference.parse(where), cube or manifest(), found, now=NOW, policy=rules, **more)
    )


def result(verdict, rule):
    return next(one for one in verdict.rules if one.rule == rule)


def refused(verdict, rule, reason):
    failed = [(one.rule, one.reason) for one in verdict.rules if one.outcome is Outcome.FAILED]
    assert failed == [(rule, reason)]
    assert verdict.error
    assert verdict.error.hint
    assert verdict.observation is None


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("a.example/b/c", "a.example/b/c", "a.example/b/d"),
        ("a.example/b/**", "a.example/b/c/d", "a.example/b"),
        ("a.example/b/**", "a.example/b/c", "a.example/bc/d"),
        ("a.example/*/c", "a.example/x/c", "a.example/x/y/c"),
        ("*/b/c", "a.example:5000/b/c", "a.example/c/b"),
        ("*.a.example/**", "x.a.example/b/c", "a.example/b/c"),
        ("*.a.example/**", "x.y.a.example/b", "xa.example/b"),
        ("**", "a.example/b", ""),
        ("a.example/**", "a.example/b", "a.example.evil/b"),
        ("a.example/*", "a.example/x", "a.example/x/y"),
        ("a.example/b", "a.example/b", "a.example/b/c"),
        ("a.example/b/c/**", "a.example/b/c/d", "a.example/b"),
    ],
)
def test_a_pattern_fits_whole_components(pattern, fitting, other):
    assert Pattern(pattern).fits(fitting)
    assert not other or not Pattern(pattern).fits(other)


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "a.example", "A.example/b", "a.example/B", "a.example/b*", "a.example/**/c", "**/c"),
        *("a.example/b:1", "a.example//b", "a.example/b/", "а.example/b", "a.example/аlice", "*."),
        *("a.*.example/b", "*a.example/b", "a.example/b@sha256:00", "***", "a.example/ "),
        *("/b", "!/b", "a.example/**/*", "a.example:443/b", "*.example:443/**"),
    ],
)
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(InvalidPolicyError) as caught:
        Pattern(pattern)
    assert caught.value.hint


def test_a_look_alike_namespace_falls_into_no_scope_of_the_real_one():
    strict = policy('[scopes."registry.example/alice/**"]\npublishers = ["alice"]')
    for name in ("registry.example/a1ice/notes", "registry.example.evil/alice/notes"):
        assert strict.terms_of(name).scope == "default"


def test_the_closest_scope_decides_alone():
    closest = [
        *("registry.example/alice/notes", "registry.example/alice/*", "registry.example/alice/**"),
        *("registry.example/*/notes", "registry.example/**", "*.example/alice/notes"),
        *("*.example/**", "*/alice/notes", "*/**", "**"),
    ]
    for at in range(len(closest)):
        scopes = tuple(Terms(scope) for scope in reversed(closest[at:]))
        assert Policy(scopes).terms_of(ORIGIN).scope == closest[at]
    ranks = [Pattern(text).closeness for text in closest]
    assert all(one > other for one, other in pairwise(ranks))


PARTS = st.sampled_from(["a", "b", "*"])
PATTERNS = st.tuples(st.sampled_from(["x.example", "*", "*.example"]), PARTS, PARTS).map("/".join)


@given(st.lists(PATTERNS, unique=True, min_size=1))
def test_the_order_of_scopes_does_not_matter(patterns):
    scopes = tuple(Terms(pattern) for pattern in patterns)
    name = "x.example/a/b"
    decided = {Policy(scopes).terms_of(name).scope, Policy(scopes[::-1]).terms_of(name).scope}
    assert len(decided) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[scopes."a.example/**"]\npublisher = []', "publisher"),
        ('[scope."a.example/**"]', "scope"),
        ('[scopes."a.example/**"]\npublishers = ["bob"]', "bob"),
        ('[scopes."a.example/**"]\npublishers = "alice"', "a.example"),
        ('[scopes."a.example/**"]\npublishers = ["alice"]\nthreshold = 2', "threshold"),
        ('[scopes."a.example/**"]\nthreshold = 0', "threshold"),
        ('[scopes."a.example/**"]\nthreshold = true', "threshold"),
        ('[scopes."a.example/**"]\npublishers = ["alice", "alice"]\nthreshold = 2', "threshold"),
        ('[scopes."a.example/**"]\nmax_staleness = "1 day"', "max_staleness"),
        ('[scopes."a.example/**"]\nmax_staleness = 30', "max_staleness"),
        ('[scopes."a.example/**"]\nmode = "lax"', "mode"),
        ('[scopes."a.example/*"]\norigin = "b.example/x"', "origin"),
        ('[scopes."a.example/**"]\norigin = "B.example/x"', "origin"),
        ('[default]\norigin = "b.example/x"', "origin"),
        ('[scopes."a.example/**"]\nattestations = [{keys = ["alice"]}]', "type"),
        ('[scopes."a.example/**"]\nattestations = [{type = "t", where = {a = 1.5}}]', "where"),
        ('[scopes."a.example/**"]\nattestations = [{type = "t", key = []}]', "key"),
        ('[scopes."a.example/**"]\nmedia_types = [1]', "a.example"),
        ("[[tests]]\nname = 'x'", "scope"),
        ("default = 1", "default"),
        ("[", "TOML"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(text, named):
    with pytest.raises(InvalidPolicyError, match=named) as caught:
        policy(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"", b"format = 2", b"format = 1\n\xff", b'format = 1\n[keys]\na = "x"', b"format = true"],
)
def test_another_format_is_refused(content):
    with pytest.raises(InvalidPolicyError):
        parse(content)


def test_an_organisation_goes_before_the_user(tmp_path: Path):
    theirs, home = tmp_path / "org.toml", tmp_path / "home"
    home.mkdir()
    theirs.write_text(
        f'format = 1\n{KEYS}\n[scopes."registry.example/**"]\npublishers = ["alice"]\n'
    )
    own = home / "memcube-trust.toml"
    own.write_text(
        'format = 1\n[scopes."registry.example/alice/notes"]\nmode = "warn"\n'
        '[scopes."other.example/**"]\nmode = "warn"\n[default]\nmax_staleness = "1d"\n'
    )
    both = load_effective(home, theirs)
    assert both.terms_of(ORIGIN).publishers == (ALICE.public_key,)
    assert both.terms_of("other.example/a/b").mode is Mode.WARN
    assert both.terms_of("third.example/a/b").max_staleness == timedelta(days=1)
    assert [both.decides(name)[0].source for name in (ORIGIN, "third.example/a/b")] == [
        str(theirs),
        str(own),
    ]
    theirs.write_text('format = 1\n[default]\nmax_staleness = "2d"\n')
    both = load_effective(home, theirs)
    assert both.terms_of("third.example/a/b").max_staleness == timedelta(days=2)


def test_a_damaged_policy_is_never_passed_over(tmp_path: Path):
    assert load_effective(tmp_path, tmp_path / "none") == Policy()
    with pytest.raises(NotFoundError):
        load(tmp_path / "none")
    (tmp_path / "memcube-trust.toml").write_text("format = ")
    with pytest.raises(InvalidPolicyError):
        load_effective(tmp_path, tmp_path / "none")


ONLY_ALICE = '[scopes."registry.example/alice/**"]\npublishers = ["alice"]\n'


def test_a_policys_publisher_is_trusted_from_the_start_and_no_other_is():
    verdict = judge(ONLY_ALICE)
    assert verdict.standing == "trusted"
    assert "registry.example/alice/**" in result(verdict, "publisher").detail
    refused(judge(ONLY_ALICE, *released(MALLORY)), "publisher", "publisher-not-in-policy")


def test_no_flag_overrules_a_policys_publishers():
    accept = Acceptance(publisher=MALLORY.public_key.id)
    verdict = judge(ONLY_ALICE, *released(MALLORY), accept=accept)
    refused(verdict, "publisher", "publisher-not-in-policy")


def test_a_scope_without_publishers_is_forbidden():
    verdict = judge('[scopes."registry.example/**"]\npublishers = []')
    refused(verdict, "publisher", "publisher-not-in-policy")


TWO = '[default]\npublishers = ["alice", "eddie"]\nthreshold = 2'


def test_a_threshold_counts_keys_that_signed_the_very_same_release():
    verdict = judge(TWO, *released(ALICE, EDDIE))
    assert result(verdict, "threshold").outcome is Outcome.PASSED
    assert verdict.observation
    assert set(verdict.observation.publishers) == {ALICE.public_key, EDDIE.public_key}
    refused(judge(TWO, *released(ALICE)), "threshold", "threshold-not-met")
    refused(judge(TWO, *released(ALICE), *released(ALICE)), "threshold", "threshold-not-met")
    refused(judge(TWO, *released(ALICE, MALLORY)), "threshold", "threshold-not-met")
    others = released(ALICE), released(EDDIE, version="2.0.0")
    refused(judge(TWO, *others[0], *others[1]), "threshold", "threshold-not-met")


def test_a_threshold_stops_under_warn_too():
    refused(judge(TWO, *released(ALICE), mode=Mode.WARN), "threshold", "threshold-not-met")


SCANNED = (
    f'[default]\nattestations = [{{type = "{SCAN}", keys = ["eddie"], '
    'where = {"result.verdict" = "clean"}}]'
)
CLEAN = {"result": {"verdict": "clean"}}


def test_a_demanded_attestation_passes_when_its_key_signed_it_about_this_manifest():
    verdict = judge(SCANNED, *released(ALICE), scan(EDDIE, **CLEAN))
    assert result(verdict, "attestations").outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: scan(MALLORY, **CLEAN),
        lambda: scan(ALICE, **CLEAN),
        lambda: scan(EDDIE, manifest("two"), **CLEAN),
        lambda: scan(EDDIE, kind="https://scan.example/v2", **CLEAN),
        lambda: scan(EDDIE, result={"verdict": "dirty"}),
        lambda: scan(EDDIE, result="clean"),
        lambda: scan(EDDIE),
        lambda: replace(scan(EDDIE, **CLEAN), bundle=b"{}"),
    ],
)
def test_an_attestation_by_another_key_or_about_something_else_is_none(wrong):
    attestations = (*released(ALICE), wrong())
    refused(judge(SCANNED, *attestations), "attestations", "attestation-missing")
    warned = judge(SCANNED, *attestations, mode=Mode.WARN)
    assert result(warned, "attestations").outcome is Outcome.WARNED


@pytest.mark.parametrize("kind", ["application/a", "text/plain"])
def test_what_is_attached_as_something_else_attests_nothing(kind):
    made = scan(EDDIE, **CLEAN)
    other = oci.parse_manifest(changed(made.referrer.raw, "artifactType", kind))
    attestations = (*released(ALICE), replace(made, referrer=other))
    refused(judge(SCANNED, *attestations), "attestations", "attestation-missing")


def test_an_attestation_of_another_tool_may_be_signed_in_either_form():
    own = f'[default]\nattestations = [{{type = "{SCAN}"}}]'
    made = scan(ALICE)
    low = bundles.parse(made.bundle).signature.value
    either = changed(made.bundle, "dsseEnvelope.signatures.0.sig", high_s(low))
    bundle = bundles.parse(either)
    about = referrer.write(bundle, SCAN, manifest().descriptor(), ALICE.public_key)
    assert judge(own, *released(ALICE), Attestation(about, bundle.raw)).error is None


def high_s(signature: bytes) -> str:
    """The other signature that is as valid, as OpenSSL makes half of the time."""
    r, s = decode_dss_signature(signature)
    return base64.b64encode(encode_dss_signature(r, P256_ORDER - s)).decode()


def test_without_named_keys_the_publisher_attests():
    own = f'[default]\nattestations = [{{type = "{SCAN}"}}]'
    assert judge(own, *released(ALICE), scan(ALICE)).error is None
    refused(judge(own, *released(ALICE), scan(EDDIE)), "attestations", "attestation-missing")


@pytest.mark.parametrize(("wanted", "found"), [(True, 1), (1, True), ("1", 1), (1, "1")])
def test_values_of_another_type_are_not_equal(wanted, found):
    terms = Terms(attestations=(Required(SCAN, None, {"ok": wanted}),))
    verdict = judge(Policy(default=terms), *released(ALICE), scan(ALICE, ok=found))
    refused(verdict, "attestations", "attestation-missing")


def cube_with(*kinds):
    layers = [oci.Descriptor.of(kind, b"x") for kind in kinds]
    return oci.write_manifest(artifact_type=media_types.CUBE, config=oci.EMPTY, layers=layers)


def test_only_allowed_kinds_of_content_are_loaded():
    plain = '[default]\nmedia_types = ["application/vnd.memcube.plaintext.*"]'
    good, bad = cube_with(media_types.RECORDS), cube_with(media_types.RECORDS, media_types.LORA)
    assert judge(plain, *released(ALICE, manifest_=good), cube=good).error is None
    attested = released(ALICE, manifest_=bad)
    refused(judge(plain, *attested, cube=bad), "content", "media-type-not-allowed")
    warned = judge(plain, *attested, cube=bad, mode=Mode.WARN)
    assert result(warned, "content").outcome is Outcome.WARNED


def test_an_unsigned_cube_is_not_excused_from_its_kinds():
    plain = '[default]\nmedia_types = ["application/vnd.memcube.plaintext.*"]\nmode = "enforce"'
    bad = cube_with(media_types.LORA)
    refused(judge(plain, *released(ALICE), cube=bad), "content", "media-type-not-allowed")


MONTH = '[default]\nmax_staleness = "30d"'


def test_what_is_known_ages():
    for age, reason in (
        (timedelta(days=30), None),
        (timedelta(days=30, seconds=1), "stale"),
        (timedelta(minutes=-5), None),
        (timedelta(minutes=-5, seconds=-1), "clock-set-back"),
    ):
        verdict = judge(MONTH, known_at=NOW - age)
        if reason is None:
            assert verdict.error is None
        else:
            refused(verdict, "freshness", reason)
            warned = judge(MONTH, known_at=NOW - age, mode=Mode.WARN)
            assert result(warned, "freshness").reason == reason
    assert judge("", known_at=NOW - timedelta(days=9999)).error is None


def test_a_policys_mode_goes_before_the_users():
    unsigned = [scan(EDDIE)]
    refused(
        judge('[default]\nmode = "enforce"', *unsigned, mode=Mode.WARN),
        "release",
        "signature-missing",
    )
    assert judge('[default]\nmode = "warn"', *unsigned).standing == "unsigned"


def test_a_policy_knows_copies():
    mapped = f'{ONLY_ALICE}[scopes."mirror.example/copies/**"]\norigin = "registry.example/alice"'
    verdict = judge(mapped, where=f"{MIRROR}:latest")
    assert result(verdict, "origin").reason == "copy"
    assert verdict.standing == "trusted"
    stranger = released(MALLORY)
    refused(
        judge(mapped, *stranger, where=f"{MIRROR}:latest"), "publisher", "publisher-not-in-policy"
    )


def test_a_copy_obeys_the_terms_of_both_names():
    lax = f'{ONLY_ALICE}[scopes."mirror.example/**"]\nmode = "warn"\n'
    accept = Acceptance(origin=ORIGIN)
    where = f"{MIRROR}:latest"
    verdict = judge(lax, *released(MALLORY), where=where, accept=accept)
    refused(verdict, "publisher", "publisher-not-in-policy")
    strict = '[scopes."mirror.example/**"]\npublishers = ["eddie"]\n'
    verdict = judge(ONLY_ALICE + strict, where=where, accept=accept)
    refused(verdict, "publisher", "publisher-not-in-policy")


def test_joined_terms_demand_what_both_demand():
    one = Terms("a.example/**", (ALICE.public_key, EDDIE.public_key), 2, mode=Mode.WARN)
    other = Terms(
        "b.example/**",
        (EDDIE.public_key,),
        1,
        (Required(SCAN),),
        (("x/*",),),
        timedelta(days=1),
        Mode.ENFORCE,
    )
    for joined in (one.joined(other), other.joined(one)):
        assert joined.publishers == (EDDIE.public_key,)
        assert joined.threshold == 2
        assert joined.attestations == (Required(SCAN),)
        assert not joined.allows_media_type("y/z")
        assert joined.max_staleness == timedelta(days=1)
        assert joined.mode is Mode.ENFORCE
    assert one.joined(one) == one


SECOND = timedelta(seconds=1)
LOG_DEMANDS = [(one, other) for one in LogDemand for other in LogDemand]


@pytest.mark.parametrize(("one", "other"), LOG_DEMANDS)
def test_joined_terms_take_the_stronger_demand_for_a_log_and_for_witnesses(one, other):
    named = [NoteKey(name, EDDIE.public_key, cosigns=True) for name in ("w.example", "v.example")]
    groups = [Witnesses(frozenset({key}), 1) for key in named]
    here = Terms("a.example/**", log=one, witnesses=(groups[0],))
    there = Terms("b.example/**", log=other, witnesses=(groups[1],))
    order = [LogDemand.OFF, LogDemand.OFFERED, LogDemand.REQUIRED]
    for joined in (here.joined(there), there.joined(here)):
        assert joined.log is max(one, other, key=order.index)
        assert set(joined.witnesses) == set(groups)


def test_joined_terms_leave_open_what_both_leave_open():
    one, other = Terms("a.example/**"), Terms("b.example/**")
    joined = one.joined(other)
    assert (joined.publishers, joined.mode, joined.max_staleness) == (None, None, None)
    assert (joined.threshold, joined.witnesses) == (1, ())
    for mode in Mode:
        for left, right in ((mode, None), (None, mode), (mode, mode)):
            both = replace(one, mode=left).joined(replace(other, mode=right))
            assert both.mode is mode
    for left, right in ((None, SECOND), (SECOND, None), (SECOND, 2 * SECOND), (2 * SECOND, SECOND)):
        both = replace(one, max_staleness=left).joined(replace(other, max_staleness=right))
        assert both.max_staleness == SECOND
    alice, eddie = ALICE.public_key, EDDIE.public_key
    for left, right, common in (
        ((alice,), None, (alice,)),
        (None, (alice,), (alice,)),
        ((), None, ()),
        ((alice,), (eddie,), ()),
        ((alice, eddie), (eddie,), (eddie,)),
    ):
        both = replace(one, publishers=left).joined(replace(other, publishers=right))
        assert both.publishers == common


def test_every_list_of_kinds_has_to_allow_a_kind():
    terms = Terms(media_types=(("a/b", "x/*"), ("a/*", "x/y")))
    allowed = [
        kind
        for kind in ("a/b", "a/a", "a/c", "x/y", "x/z", "a/bc", "xa/b")
        if terms.allows_media_type(kind)
    ]
    assert allowed == ["a/b", "x/y"]
    assert not Terms(media_types=(("x/*",),)).allows_media_type("xa/b")
    assert Terms().allows_media_type("any/thing")
    assert not Terms(media_types=((),)).allows_media_type("any/thing")


@pytest.mark.parametrize("host", ["a.example", "z.example"])
def test_an_organisations_scope_decides_wherever_it_stands_in_the_alphabet(host):
    top = Policy((Terms(f"{host}/**", threshold=3),))
    both = Policy((Terms(f"{host}/b/c"),), above=top)
    assert both.terms_of(f"{host}/b/c").threshold == 3


def test_an_organisation_that_leaves_a_name_open_still_gives_its_defaults():
    here = Policy((Terms("a.example/**"),), default=Terms(threshold=2))
    top = Policy((Terms("b.example/**"),), default=Terms(threshold=3))
    joined = replace(here, above=top)
    for name, scope, threshold in (
        ("a.example/x", "a.example/**", 1),
        ("b.example/x", "b.example/**", 1),
        ("c.example/x", "default", 3),
    ):
        terms = joined.terms_of(name)
        assert (terms.scope, terms.threshold) == (scope, threshold)
    open_top = replace(here, above=replace(top, default=None))
    assert open_top.terms_of("c.example/x").threshold == 2
    assert replace(here, default=None, above=Policy()).terms_of("c.example/x") == Terms()


def test_the_organisations_log_goes_before_the_users():
    one, other = (NoteKey("log.example", key.public_key) for key in (EDDIE, signer(7)))
    user = Policy(logs={"a.example": one, "b.example": one})
    both = replace(user, above=Policy(logs={"a.example": other}))
    assert [both.log_of(f"{name}.example") for name in "abc"] == [other, one, None]
    assert user.log_of("a.example") == one


@pytest.mark.parametrize(
    ("scope", "location", "origin"),
    [
        ("m.example/copies/**", "m.example/copies/notes", "r.example/alice/notes"),
        ("m.example/copies/**", "m.example/copies/a/b", "r.example/alice/a/b"),
        ("m.example/notes", "m.example/notes", "r.example/alice"),
        ("m.example/*", "m.example/notes", None),
        ("*.example/**", "m.example/notes", None),
    ],
)
def test_a_mapped_scope_names_the_origin_of_each_location(scope, location, origin):
    assert Terms(scope, origin="r.example/alice").origin_at(location) == origin
    assert Terms(scope).origin_at(location) is None
    if origin is None:
        with pytest.raises(InvalidPolicyError):
            Policy((Terms(scope, origin="r.example/alice"),))
    assert Policy((Terms(scope),))


@pytest.mark.parametrize(
    ("pattern", "closeness"),
    [
        ("a.example/b/**", ((3, 0), (3, 0), (0, 0))),
        ("*/b/*", ((1, 0), (3, 0), (1, 0))),
        ("*.example/b", ((2, 7), (3, 0))),
        ("*.a.example/b", ((2, 9), (3, 0))),
        ("**", ((0, 0),)),
    ],
)
def test_how_closely_a_pattern_fits_is_ranked_part_by_part(pattern, closeness):
    assert Pattern(pattern).closeness == closeness
