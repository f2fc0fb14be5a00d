"""What is stated about a cube is sorted by what a registry can check, and never taken on trust."""

from __future__ import annotations

from dataclasses import replace

from memcube_registry.catalog import statements
from memcube_registry.catalog.statements import Attached
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.predicates import attest
from memcube_signing.predicates.scan import Recomputed, Scan
from memcube_signing.predicates.status import Reason, State, Status
from memcube_signing.release import sign_release
from support.signing import ALICE, CREATED, MALLORY, ORIGIN, manifest, release

CUBE = manifest()
SCAN = Scan(CUBE.digest, ORIGIN, "memcube", "1", "1", CREATED, ("secrets",), (), {"secrets": 0})
YANKED = Status(
    CUBE.digest, ORIGIN, release().version, State.YANKED, Reason.WRONG, CREATED, "wrong"
)


def attached(bundle: Bundle, signer: PrivateKey = ALICE, kind: str = "x") -> Attached:
    manifest = referrer.write(bundle, kind, CUBE.descriptor(), signer.public_key)
    return Attached(manifest, bundle.raw)


RELEASE = attached(sign_release(release(), ALICE))


def read(*found: Attached) -> statements.Statements:
    return statements.read(CUBE, found)


def test_statements_of_the_key_of_the_release_count() -> None:
    said = read(attached(attest(SCAN, ALICE)), RELEASE, attached(attest(YANKED, ALICE)))
    assert [one.value.version for one in said.releases] == [release().version]
    assert said.scan == SCAN
    assert said.status == YANKED
    assert all(one.is_publishers and one.signed_sha256 for one in said.said)


def test_statements_of_another_key_are_listed_and_do_not_count() -> None:
    said = read(RELEASE, *(attached(attest(value, MALLORY), MALLORY) for value in (SCAN, YANKED)))
    assert said.scan is None
    assert said.status is None
    assert [one.is_publishers for one in said.said] == [True, False, False]


def test_a_key_that_only_the_referrer_names_is_nobodys() -> None:
    said = read(RELEASE, attached(attest(SCAN, MALLORY), ALICE))
    assert said.scan is None
    assert said.said[1].why_not == "unknown-key"


def test_a_release_of_another_manifest_makes_no_publisher() -> None:
    other = attached(sign_release(replace(release(), subject=manifest("two").digest), ALICE))
    said = read(other, attached(attest(SCAN, ALICE)))
    assert said.releases == ()
    assert said.scan is None
    assert [one.why_not for one in said.said] == ["release-not-verified", None]


def test_a_release_that_does_not_name_its_signer_makes_no_publisher() -> None:
    stolen = attached(sign_release(release(), ALICE), MALLORY)
    assert read(stolen).releases == ()


def test_a_withdrawal_of_another_version_does_not_count() -> None:
    said = read(RELEASE, attached(attest(replace(YANKED, version="9.9.9"), ALICE)))
    assert said.status is None


def test_what_is_no_bundle_states_nothing() -> None:
    broken = Attached(RELEASE.referrer, b"{}")
    said = read(broken)
    assert [(one.name, one.key) for one in said.said] == [("unreadable", None)]


def test_of_two_scans_in_one_second_the_one_that_compared_more_counts() -> None:
    one = Recomputed("activation/kv/manifest.json", "mip1-base:0", "0", "0", {})
    compared = replace(SCAN, recomputed=(one,))
    for order in ((SCAN, compared), (compared, SCAN)):
        said = read(RELEASE, *(attached(attest(value, ALICE)) for value in order))
        assert said.scan == compared
