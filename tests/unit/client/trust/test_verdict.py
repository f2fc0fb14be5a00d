"""The words of a verdict, which scripts and policies read."""

from __future__ import annotations

import pytest
from memcube.trust import Mode, Outcome, Scope, Standing, question
from memcube.trust.verdict import RuleResult, Verdict
from support.signing import ALICE, ORIGIN, manifest, release


def told(standing: Standing, outcome: Outcome) -> dict[str, str]:
    rules = (RuleResult("log", outcome, "so it is"),)
    value = Verdict(ORIGIN, manifest().digest, standing, rules).to_json()
    return {"standing": value["standing"], "outcome": value["rules"][0]["outcome"]}


def test_how_a_rule_ended_and_what_a_cube_may_be_called_are_stable_words() -> None:
    assert [told(Standing.LOCAL, one)["outcome"] for one in Outcome] == [
        *("passed", "first-use", "warned", "failed", "skipped")
    ]
    assert [told(one, Outcome.PASSED)["standing"] for one in Standing] == [
        *("trusted", "first-use", "local", "unsigned", "refused")
    ]
    assert [*map(str, Mode), *map(str, Scope)] == ["enforce", "warn", "remote", "local"]


def test_what_was_said_and_by_whom_is_given_by_name() -> None:
    given = (ORIGIN, manifest().digest, Standing.LOCAL, (), None, None, None, None, None)
    assert Verdict(*given).to_json()["rules"] == []
    with pytest.raises(TypeError):
        Verdict(*given, ())


def test_one_signature_in_two_bundles_is_one_signature() -> None:
    once = question.Signed(release(), ALICE.public_key, b"a bundle")
    assert question.Signed(release(), ALICE.public_key, b"another bundle") == once
