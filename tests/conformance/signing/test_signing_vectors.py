"""The golden vectors of signed statements: this reader agrees with them, and they never change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conformance.signing.generate import FILES, FOLDER, text_of
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_signing import dsse, referrer
from memcube_signing.job import Job, JobPattern
from memcube_signing.keys import PublicKey
from memcube_signing.release import verify_release


def cases(name: str, kind: str) -> list[Any]:
    values = json.loads((FOLDER / name).read_text("utf-8"))[kind]
    return [pytest.param(value, id=value.get("name") or value.get("type")) for value in values]


def refused(case: dict[str, Any], error: MemcubeError) -> None:
    assert error.code == case["code"]
    assert getattr(error, "reason", error.code) == case["reason"]
    assert error.hint


@pytest.mark.parametrize("name", FILES)
def test_the_vectors_are_what_the_code_writes_today(name):
    """Change them only with a new version of the format, and then keep the old ones."""
    assert (FOLDER / name).read_text("utf-8") == text_of(name)


@pytest.mark.parametrize("case", cases("keys.json", "accept"))
def test_a_key_has_this_id(case):
    key = PublicKey.from_pem(case["pem"])
    assert (key.id, key.algorithm, key.to_pem()) == (case["id"], case["algorithm"], case["pem"])


@pytest.mark.parametrize("case", cases("keys.json", "reject"))
def test_a_key_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        PublicKey.from_pem(case["pem"])
    refused(case, caught.value)


@pytest.mark.parametrize("case", cases("pae.json", "accept"))
def test_the_signed_bytes_are_these(case):
    assert dsse.pae(case["type"], base64.b64decode(case["payload"])) == base64.b64decode(
        case["pae"]
    )


@pytest.mark.parametrize("case", cases("releases.json", "accept"))
def test_a_release_says_this(case):
    release = verify_release(
        base64.b64decode(case["bundle"]),
        keys=[PublicKey.from_pem(case["key"])],
        subject=Digest.parse(case["subject"]),
    )
    assert release.to_statement().predicate == case["predicate"]


@pytest.mark.parametrize("case", cases("releases.json", "reject"))
def test_a_bundle_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        verify_release(
            base64.b64decode(case["bundle"]),
            keys=[PublicKey.from_pem(case["key"])],
            subject=Digest.parse(case["subject"]),
        )
    refused(case, caught.value)


def test_a_job_fits_these_patterns_and_no_others():
    vectors = json.loads((FOLDER / "jobs.json").read_text("utf-8"))
    job = Job.from_json(vectors["job"])
    for case in vectors["patterns"]:
        pattern = JobPattern(case["issuer"], tuple(case["claims"].items()))
        assert pattern.fits(job.issuer, job.all_claims) == case["fits"], case
        assert not pattern.fits("https://other.example", job.all_claims)


def test_a_pattern_that_could_mean_more_than_it_says_is_refused():
    for case in json.loads((FOLDER / "jobs.json").read_text("utf-8"))["reject"]:
        with pytest.raises(MemcubeError):
            JobPattern(case["issuer"], tuple(case["claims"].items()))


@pytest.mark.parametrize("case", cases("referrers.json", "accept"))
def test_a_referrer_has_these_bytes(case):
    read = referrer.read(oci.parse_manifest(case["manifest"].encode()))
    assert read.subject == oci.Descriptor.from_json(case["subject"])
    assert read.bundle.digest == Digest.of(base64.b64decode(case["bundle"]))
    assert read.offered_key == PublicKey.from_pem(case["key"])
