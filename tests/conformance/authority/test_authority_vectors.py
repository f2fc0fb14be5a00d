"""The golden vectors of key documents: this reader agrees with them, and they never change."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from conformance.authority.generate import FILE, TIME, text
from memcube_protocol.errors import InvalidStatementError, KeyNotAuthorisedError, MemcubeError
from memcube_signing.authority import proposal
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.inclusion import first_unlogged
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy

VECTORS = json.loads(FILE.read_text("utf-8"))


def cases(*path: str) -> list[Any]:
    group = VECTORS
    for name in path:
        group = group[name]
    return [pytest.param(case, id=case["name"]) for case in group]


def found(case: dict[str, Any]) -> Authority | None:
    return resolve(VECTORS["authority"], [raw.encode() for raw in case["bundles"]])


def moment(value: str | None) -> datetime | None:
    return datetime.strptime(value, TIME).replace(tzinfo=UTC) if value else None


def refusal(error: MemcubeError) -> dict[str, str]:
    assert isinstance(error, InvalidStatementError | KeyNotAuthorisedError)
    return {"code": error.code, "reason": error.reason}


def test_the_vectors_are_what_the_code_writes_today():
    """Change them only with a new version of the format, and then keep the old ones."""
    assert FILE.read_text("utf-8") == text()


@pytest.mark.parametrize("case", cases("chains", "accept"))
def test_the_document_in_force_is_found(case):
    authority = found(case)
    current = authority.current if authority else None
    assert (current.seq if current else None) == case["seq"]
    assert (str(current.digest) if current else None) == case["digest"]


@pytest.mark.parametrize("case", cases("chains", "reject"))
def test_what_must_be_refused_is(case):
    with pytest.raises(MemcubeError) as caught:
        found(case)
    assert refusal(caught.value) == {"code": case["code"], "reason": case["reason"]}


@pytest.mark.parametrize("case", cases("judgements"))
def test_the_judgement_on_a_release_is_the_same(case):
    authority, created_at = found(case), moment(case["createdAt"])
    signers = {key_id: moment(at) for key_id, at in case["signers"].items()}
    if "reject" in case:
        with pytest.raises(KeyNotAuthorisedError) as caught:
            authority.judge(case["origin"], signers, created_at)
        assert refusal(caught.value) == case["reject"]
        return
    judged = authority.judge(case["origin"], signers, created_at)
    said = {"seq": judged.seq, "keyIds": [*judged.key_ids], "retired": judged.retired}
    assert said == case["accept"]


@pytest.mark.parametrize("case", cases("logged", "chains"))
def test_what_the_log_does_not_show_is_found(case):
    policy = LogPolicy(NoteKey.parse(VECTORS["logged"]["logKey"]))
    unlogged = first_unlogged(found(case), policy)
    assert (unlogged.seq if unlogged else None) == case["unlogged"]


@pytest.mark.parametrize("case", cases("proposals", "accept"))
def test_a_proposal_is_read(case):
    read = proposal.parse(case["file"].encode())
    assert sorted(read.key_ids) == case["signedBy"]
    assert read.to_bytes().decode() == case["file"]


@pytest.mark.parametrize("case", cases("proposals", "reject"))
def test_a_wrong_proposal_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        proposal.parse(case["file"].encode())
    assert refusal(caught.value) == {"code": case["code"], "reason": case["reason"]}
