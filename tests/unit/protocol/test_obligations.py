"""A derived cube owes what its ancestors ask, and is told where its own terms contradict them."""

from __future__ import annotations

import pytest
from memcube_protocol.governance import Governance
from memcube_protocol.obligations import Obligation, Work, inherited, obligations_of

A, SA, NC = Obligation.ATTRIBUTION, Obligation.SHARE_ALIKE, Obligation.NON_COMMERCIAL


def work(name: str, licence: str, **rules) -> Work:
    return Work(name, licence, Governance(**rules) if rules else None)


@pytest.mark.parametrize(
    ("licence", "asked"),
    [
        ("CC0-1.0", set()),
        ("MIT", {A}),
        ("CC-BY-4.0", {A, Obligation.STATE_CHANGES}),
        ("CC-BY-SA-3.0", {A, SA, Obligation.STATE_CHANGES}),
        ("CC-BY-NC-SA-4.0", {A, SA, NC, Obligation.STATE_CHANGES}),
        ("CC-BY-ND-4.0", {A, Obligation.NO_DERIVATIVES}),
        ("GPL-3.0-or-later", {A, SA, Obligation.STATE_CHANGES, Obligation.DISCLOSE_SOURCE}),
        ("LicenseRef-house", {Obligation.UNKNOWN}),
        ("NOASSERTION", {Obligation.UNKNOWN}),
        ("CC-XX-4.0", {Obligation.UNKNOWN}),
    ],
)
def test_a_licence_asks_for_this(licence, asked):
    assert obligations_of(licence) == asked


def test_each_obligation_names_every_work_that_asks_for_it():
    owed = inherited(work("c", "CC-BY-SA-4.0"), [work("a", "CC-BY-4.0"), work("b", "MIT")])
    assert dict(owed.owed)[A] == ("a", "b")
    assert owed.conflicts == ()


def test_a_cube_without_ancestors_owes_nothing():
    assert inherited(work("c", "GPL-3.0-only"), []).owed == ()


@pytest.mark.parametrize(
    ("child", "parent", "words"),
    [
        (work("c", "MIT"), work("p", "CC-BY-ND-4.0"), "no derived works"),
        (work("c", "MIT"), work("p", "CC-BY-SA-4.0"), "asks for CC-BY-SA-4.0"),
        (work("c", "MIT"), work("p", "CC-BY-NC-4.0"), "not for commercial use"),
        (work("c", "MIT"), work("p", "MIT", redistribution="forbidden"), "redistributed"),
        (
            work("c", "MIT", allowed_uses=("training",)),
            work("p", "MIT", allowed_uses=("research",)),
            "allows training",
        ),
        (
            work("c", "MIT", priority="high"),
            work("p", "MIT", allowed_uses=("research",)),
            "allows every use",
        ),
    ],
)
def test_a_contradiction_is_told(child, parent, words):
    (conflict,) = inherited(child, [parent]).conflicts
    assert words in conflict


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (work("c", "CC-BY-SA-4.0"), work("p", "CC-BY-SA-4.0")),
        (work("c", "CC-BY-NC-4.0"), work("p", "CC-BY-NC-4.0")),
        (
            work("c", "MIT", redistribution="forbidden"),
            work("p", "MIT", redistribution="forbidden"),
        ),
        (
            work("c", "MIT", allowed_uses=("research",)),
            work("p", "MIT", allowed_uses=("research", "training")),
        ),
    ],
)
def test_terms_that_agree_are_no_conflict(child, parent):
    assert inherited(child, [parent]).conflicts == ()
