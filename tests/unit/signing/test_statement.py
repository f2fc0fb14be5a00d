"""In-toto statements: the edges of what they may hold."""

from __future__ import annotations

import pytest
from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidStatementError, LimitExceededError
from memcube_signing import statement
from memcube_signing.statement import TYPE, Statement

SUBJECT = Digest.of(b"x")
NAMED = {"name": "x", "digest": {"sha256": SUBJECT.hex}}


def written(**changes) -> bytes:
    whole = {"_type": TYPE, "subject": [NAMED], "predicateType": "p", "predicate": {}}
    return canonical_json.dump({name: value for name, value in (whole | changes).items() if value != ...})  # fmt: skip


def refused(reason: str, **changes) -> None:
    with pytest.raises(InvalidStatementError) as caught:
        statement.parse(written(**changes))
    assert caught.value.reason == reason
    assert caught.value.hint


def test_a_statement_reads_back():
    said = Statement("x", SUBJECT, "p", {"a": 1})
    assert statement.parse(said.to_bytes()) == said
    assert statement.parse(written(extra=1)) == Statement("x", SUBJECT, "p", {})


@pytest.mark.parametrize("length", [1, 1024])
def test_a_predicate_type_has_up_to_1024_characters(length):
    assert statement.parse(written(predicateType="p" * length)).predicate_type == "p" * length


@pytest.mark.parametrize("value", ["", "p" * 1025, None, 7, ["p"], ...])
def test_a_predicate_type_is_nothing_else(value):
    refused("malformed-statement", predicateType=value)


@pytest.mark.parametrize("name", ["", "n", "n" * 1024])
def test_a_subjects_name_has_up_to_1024_characters_or_none(name):
    assert statement.parse(written(subject=[NAMED | {"name": name}])).name == name


def test_a_subjects_name_may_be_left_out():
    assert statement.parse(written(subject=[{"digest": NAMED["digest"]}])).name == ""


@pytest.mark.parametrize("name", ["n" * 1025, None, 7, ["n"]])
def test_a_subjects_name_is_nothing_else(name):
    refused("malformed-statement", subject=[NAMED | {"name": name}])


@pytest.mark.parametrize("subject", [..., None, [], {}, NAMED, ["x"], [NAMED, NAMED], "x"])
def test_a_statement_is_about_one_subject(subject):
    refused("wrong-subject", subject=subject)


@pytest.mark.parametrize(
    "digest",
    [
        *(None, [], "x", {}, {"sha256": None}, {"sha256": 7}, {"sha256": "x"}, {"md5": "0" * 32}),
        {"sha256": SUBJECT.hex, "sha512": "0" * 128},
    ],
)
def test_a_subject_has_one_digest_that_is_known(digest):
    refused("wrong-subject", subject=[{"name": "x", "digest": digest}])


@pytest.mark.parametrize("kind", [..., None, "x", TYPE + "1", TYPE.replace("v1", "v0.1")])
def test_another_type_of_statement_is_refused(kind):
    refused("wrong-statement-type", _type=kind)


@pytest.mark.parametrize("predicate", [..., None, [], "x", 7])
def test_a_predicate_is_an_object(predicate):
    refused("malformed-statement", predicate=predicate)


def test_a_statement_has_up_to_one_mebibyte():
    spare = limits.STATEMENT_BYTES - len(written(predicate={"a": ""}))
    most = written(predicate={"a": "x" * spare})
    assert len(most) == limits.STATEMENT_BYTES
    said = statement.parse(most)
    assert len(said.to_bytes()) == limits.STATEMENT_BYTES
    longer = written(predicate={"a": "x" * (spare + 1)})
    with pytest.raises(LimitExceededError):
        statement.parse(longer)
    with pytest.raises(LimitExceededError):
        Statement("x", SUBJECT, "p", {"a": "x" * (spare + 1)}).to_bytes()
