"""CI jobs as releases name them, and patterns of jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidStatementError
from memcube_signing.job import RECORDED, Job, JobPattern
from support.signing import JOB

ISSUER = "https://ci.example"


def pattern(**claims: str) -> JobPattern:
    return JobPattern(ISSUER, tuple(claims.items()))


def test_what_is_written_reads_back():
    assert Job.from_json(JOB.to_json()) == JOB
    assert JOB.all_claims["sub"] == JOB.subject


def test_only_claims_about_source_recipe_and_run_are_recorded():
    said = {"ref": "refs/heads/main", "actor": "ada", "user_email": "ada@example.org", "sub": "x"}
    assert Job.of_claims(ISSUER, "x", said).claims == (("ref", "refs/heads/main"),)
    assert not {name for name in RECORDED if "actor" in name or "user" in name}


def test_a_claim_that_would_not_show_as_it_reads_is_left_out():
    said = {"ref": "a\u202eb", "sha": "x" * 513, "run_id": "1"}
    assert Job.of_claims(ISSUER, "x", said).claims == (("run_id", "1"),)


@pytest.mark.parametrize(
    "issuer",
    ["", "ci.example", "ftp://ci.example", "https://", "https://ci.example/", "https://[", "https://a@b",
     "https://ci.example?x", "https://ci.example#x", "https://ci ex", "https://ci.exämple", "https://" + "a" * 255],
)  # fmt: skip
def test_an_issuer_has_one_spelling(issuer):
    with pytest.raises(InvalidStatementError):
        Job(issuer, "x")


@pytest.mark.parametrize(
    "claims", [(("b", "1"), ("a", "1")), (("a", "1"), ("a", "2")), (("sub", "x"),), (("A", "1"),)]
)
def test_claims_are_sorted_and_named_once(claims):
    with pytest.raises(InvalidStatementError):
        Job(ISSUER, "x", claims)


def test_every_claim_of_a_pattern_has_to_fit():
    wanted = pattern(ref="refs/tags/*", repository="alice/notes")
    assert wanted.fits(ISSUER, {"ref": "refs/tags/v1", "repository": "alice/notes"})
    assert not wanted.fits(ISSUER, {"ref": "refs/tags/v1", "repository": "mallory/notes"})
    assert not wanted.fits(ISSUER, {"ref": "refs/tags/v1"})
    assert not wanted.fits(
        "https://other.example", {"ref": "refs/tags/v1", "repository": "alice/notes"}
    )


@pytest.mark.parametrize("wanted", ["*", "alice*", "a/*/b", "**", "a/**", "", "a\n"])
def test_a_star_stands_only_at_the_end_after_a_divider(wanted):
    with pytest.raises(InvalidStatementError):
        pattern(ref=wanted)


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and "*" not in text))
def test_without_a_star_only_the_very_same_fits(text):
    wanted = pattern(ref=text)
    assert wanted.fits(ISSUER, {"ref": text})
    assert not wanted.fits(ISSUER, {"ref": f"{text}x"})
