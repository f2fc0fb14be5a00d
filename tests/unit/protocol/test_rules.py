"""The rules of a cube, each at each act: the table of docs/spec/rules.md, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import EXIT_RULE, InvalidSettingError, RuleRefusedError, outcome_of
from memcube_protocol.governance import (
    PERSONAL_DATA,
    PROCESSING,
    REDISTRIBUTIONS,
    SENSITIVITIES,
    USES,
    WATERMARKS,
    Governance,
)
from memcube_protocol.rules import CLOCK_TOLERANCE, Act, Asked, require, rulings

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ALL = frozenset(Act)
HELD = ALL - {Act.PUBLISH, Act.EMBED}
PASSED = frozenset({Act.COPY, Act.REPUBLISH})


@dataclass(frozen=True)
class Row:
    """A rule with a value, the situation in which it is asked, and the acts that it forbids there."""

    governance: dict[str, Any]
    forbidden: frozenset[Act]
    asked: dict[str, Any] = field(default_factory=dict)
    owner_too: frozenset[Act] = frozenset()

    @property
    def rule(self) -> str:
        return next(iter(self.governance))

    def __str__(self) -> str:
        """The row's name: the same in every process, which the order of a set is not."""
        return " ".join(map(_spelled, (*self.governance.values(), *self.asked.values())))


def _spelled(value: Any) -> str:
    match value:
        case frozenset() | tuple():
            return "+".join(sorted(value))
        case Governance():
            return f"made under {'+'.join(value.allowed_uses) or value.licence}"
        case _:
            return str(value)


def acts(*names: Act) -> frozenset[Act]:
    return frozenset(names)


TABLE = [
    Row({"expires_at": NOW + DAY}, acts()),
    Row({"expires_at": NOW - CLOCK_TOLERANCE}, acts()),
    Row({"expires_at": NOW - DAY}, HELD, owner_too=HELD),
    Row({"retention_days": 30}, acts()),
    Row({"retention_days": 30}, acts(), {"held_since": NOW - 30 * DAY}),
    Row({"retention_days": 30}, HELD, {"held_since": NOW - 31 * DAY}),
    Row({"allowed_uses": ("research",)}, acts(Act.MOUNT, Act.EXPORT, Act.REPUBLISH)),
    Row({"allowed_uses": ("research",)}, acts(Act.REPUBLISH), {"uses": frozenset({"research"})}),
    Row(
        {"allowed_uses": ("research", "education")},
        acts(Act.MOUNT, Act.EXPORT, Act.REPUBLISH),
        {"uses": frozenset({"research", "commercial"})},
    ),
    Row(
        {"allowed_uses": ("research", "education")},
        acts(),
        {
            "uses": frozenset({"education"}),
            "made": Governance(allowed_uses=("research",)),
        },
    ),
    Row(
        {"allowed_uses": ("research",)},
        acts(Act.REPUBLISH),
        {
            "uses": frozenset({"research"}),
            "made": Governance(allowed_uses=("research", "commercial")),
        },
    ),
    Row({"processing": "local"}, acts()),
    Row(
        {"processing": "local"},
        acts(Act.MOUNT, Act.EMBED, Act.COPY, Act.REPUBLISH),
        {"leaves_to": ("api.example",)},
        acts(Act.EMBED),
    ),
    Row({"processing": "anywhere"}, acts(), {"leaves_to": ("api.example",)}),
    Row({"redistribution": "allowed"}, acts()),
    Row({"redistribution": "forbidden"}, PASSED),
    Row({"redistribution": "same-licence", "licence": "MIT"}, acts(Act.REPUBLISH)),
    Row(
        {"redistribution": "same-licence", "licence": "MIT"},
        acts(Act.REPUBLISH),
        {"made": Governance(licence="CC0-1.0")},
    ),
    Row(
        {"redistribution": "same-licence", "licence": "MIT"},
        acts(),
        {"made": Governance(licence="MIT")},
    ),
    Row(
        {
            "redistribution": "same-licence",
            "licence": "LicenseRef-a",
            "licence_url": "https://a.example",
        },
        acts(Act.REPUBLISH),
        {"made": Governance(licence="LicenseRef-a", licence_url="https://b.example")},
    ),
    Row({"watermark": "optional"}, acts()),
    Row({"watermark": "required"}, PASSED),
    Row({"sensitivity": "public"}, acts(), {"ceiling": "public"}),
    Row({"sensitivity": "internal"}, acts(Act.MOUNT), {"ceiling": "public"}, acts(Act.MOUNT)),
    Row(
        {"sensitivity": "confidential"},
        acts(Act.PUBLISH),
        {"ceiling": "confidential"},
        acts(Act.PUBLISH),
    ),
    Row({"sensitivity": "restricted"}, PASSED | {Act.PUBLISH}, owner_too=acts(Act.PUBLISH)),
    Row(
        {"sensitivity": "confidential"},
        acts(Act.REPUBLISH, Act.PUBLISH),
        {"made": Governance(sensitivity="internal")},
        acts(Act.PUBLISH),
    ),
    Row({"personal_data": "pseudonymous"}, acts(Act.REPUBLISH)),
    Row(
        {"personal_data": "personal"}, acts(Act.REPUBLISH, Act.PUBLISH), owner_too=acts(Act.PUBLISH)
    ),
    Row(
        {"personal_data": "personal"},
        acts(Act.PUBLISH),
        {"made": Governance(personal_data="personal")},
        acts(Act.PUBLISH),
    ),
    Row({"access": "private"}, acts()),
    Row({"priority": "high"}, acts()),
]


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_each_rule_forbids_the_acts_of_its_row_and_no_other(row: Row, act: Act) -> None:
    governance = Governance(**row.governance)
    for owner, forbidden in ((False, row.forbidden), (True, row.owner_too)):
        said = rulings(governance, Asked(act, NOW, owner=owner, **row.asked))
        refused = [ruling for ruling in said if not ruling.allows]
        assert [ruling.rule for ruling in refused] == [row.rule] * (act in forbidden)
        assert all(ruling.value and ruling.hint for ruling in refused)


@pytest.mark.parametrize("act", Act)
def test_a_cube_without_rules_is_refused_nothing(act: Act) -> None:
    asked = Asked(
        act, NOW, held_since=NOW - 9999 * DAY, leaves_to=("far.example",), ceiling="public"
    )
    assert rulings(Governance(), asked) == ()
    require("a/b", Governance(), asked)


def test_a_refusal_names_the_cube_the_rule_its_value_the_others_and_the_next_step() -> None:
    governance = Governance(redistribution="forbidden", watermark="required")
    with pytest.raises(RuleRefusedError) as caught:
        require("acme/atlas", governance, Asked(Act.COPY, NOW))
    error = caught.value
    assert (error.rule, error.value, error.act) == ("redistribution", "forbidden", "copy")
    assert "acme/atlas says redistribution = forbidden" in str(error)
    assert "also watermark = required" in str(error)
    assert error.hint
    assert outcome_of(error).exit_code == EXIT_RULE


def test_what_is_allowed_is_explained_too() -> None:
    governance = Governance(allowed_uses=("research",), sensitivity="internal")
    said = rulings(governance, Asked(Act.MOUNT, NOW, uses=frozenset({"research"})))
    assert [(one.rule, one.value, one.allows) for one in said] == [
        ("allowed_uses", "research", True),
        ("sensitivity", "internal", True),
    ]


@pytest.mark.parametrize("wrong", [{"uses": frozenset({"war"})}, {"ceiling": "top-secret"}])
def test_an_unknown_use_or_ceiling_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError, match="unknown"):
        Asked(Act.MOUNT, NOW, **wrong)


governances = st.builds(
    Governance,
    sensitivity=st.sampled_from(SENSITIVITIES),
    personal_data=st.sampled_from(PERSONAL_DATA),
    allowed_uses=st.lists(st.sampled_from(USES), unique=True).map(tuple),
    redistribution=st.sampled_from(REDISTRIBUTIONS),
    processing=st.sampled_from(PROCESSING),
    expires_at=st.none() | st.just(NOW - DAY) | st.just(NOW + DAY),
    retention_days=st.none() | st.integers(1, 400),
    watermark=st.sampled_from(WATERMARKS),
)
questions = st.builds(
    Asked,
    st.sampled_from(Act),
    st.just(NOW),
    owner=st.booleans(),
    uses=st.frozensets(st.sampled_from(USES)),
    ceiling=st.sampled_from(SENSITIVITIES),
    held_since=st.none() | st.integers(0, 500).map(lambda days: NOW - days * DAY),
    leaves_to=st.sampled_from([(), ("far.example",)]),
    made=st.none() | governances,
)


@given(governances, questions)
def test_require_raises_exactly_where_a_ruling_refuses(
    governance: Governance, asked: Asked
) -> None:
    refused = [ruling for ruling in rulings(governance, asked) if not ruling.allows]
    if not refused:
        require("a/b", governance, asked)
        return
    with pytest.raises(RuleRefusedError) as caught:
        require("a/b", governance, asked)
    assert (caught.value.rule, caught.value.value) == (refused[0].rule, refused[0].value)


@given(governances, questions)
def test_what_a_cube_is_made_of_unchanged_breaks_no_rule_about_its_terms(
    governance: Governance, asked: Asked
) -> None:
    """A fork that keeps every term is refused only what no holder may do."""
    fork = replace(asked, act=Act.REPUBLISH, made=governance, leaves_to=(), owner=False)
    refused = {ruling.rule for ruling in rulings(governance, fork) if not ruling.allows}
    assert not refused & {"allowed_uses", "personal_data", "processing"}
    assert governance.redistribution != "same-licence" or "redistribution" not in refused
