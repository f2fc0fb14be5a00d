"""The decision who may do what: every combination, and that strangers learn nothing."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_registry.accounts.models import Role
from memcube_registry.accounts.scopes import Act
from memcube_registry.catalog.models import Visibility
from memcube_registry.delivery.decision import Form, Part, Question, Verdict, decide, includes

questions = st.builds(
    Question,
    act=st.sampled_from(Act),
    part=st.sampled_from(Part),
    form=st.sampled_from(Form),
    visibility=st.sampled_from([None, *Visibility]),
    is_anonymous=st.booleans(),
    is_in_scope=st.booleans(),
    can_widen_scope=st.booleans(),
    role=st.sampled_from([None, *Role]),
    reads_public=st.booleans(),
)


@given(questions)
def test_a_stranger_cannot_tell_a_private_cube_from_an_absent_one(question: Question) -> None:
    stranger = replace(question, role=None)
    private = decide(replace(stranger, visibility=Visibility.PRIVATE))
    absent = decide(replace(stranger, visibility=None))
    assert private == absent


@given(questions)
def test_a_token_out_of_scope_cannot_either(question: Question) -> None:
    narrow = replace(question, is_in_scope=False)
    private = decide(replace(narrow, visibility=Visibility.PRIVATE))
    assert private == decide(replace(narrow, visibility=None))


@given(questions)
def test_whether_a_cube_exists_changes_nothing_for_a_foreign_push(question: Question) -> None:
    foreign = replace(question, role=None, act=Act.WRITE)
    assert len({decide(replace(foreign, visibility=v)).verdict for v in (None, *Visibility)}) == 1


@given(questions)
def test_a_wider_scope_or_a_higher_role_never_takes_a_right_away(question: Question) -> None:
    if decide(question).verdict is Verdict.ALLOW:
        assert decide(replace(question, is_in_scope=True)).verdict is Verdict.ALLOW
        assert decide(replace(question, role=Role.OWNER)).verdict is Verdict.ALLOW


@given(questions)
def test_nobody_anonymous_writes_or_deletes(question: Question) -> None:
    anonymous = replace(question, is_anonymous=True, form=Form.OPEN)
    if anonymous.act is not Act.READ:
        assert decide(anonymous).verdict is Verdict.CHALLENGE


@given(questions)
def test_only_the_open_form_is_delivered(question: Question) -> None:
    for form in (Form.SEALED, Form.MARKED):
        assert decide(replace(question, form=form)).verdict is Verdict.HIDE


@given(questions)
def test_every_decision_names_its_rule(question: Question) -> None:
    assert decide(question).rule


@pytest.mark.parametrize(
    ("act", "least"),
    [
        (Act.READ, Role.READER),
        (Act.WRITE, Role.WRITER),
        (Act.DELETE, Role.MAINTAINER),
        (Act.ADMIN, Role.OWNER),
    ],
)
def test_each_act_on_a_private_cube_needs_its_role(act: Act, least: Role) -> None:
    for role in Role:
        question = Question(
            act=act,
            visibility=Visibility.PRIVATE,
            is_anonymous=False,
            is_in_scope=True,
            role=role,
        )
        assert (decide(question).verdict is Verdict.ALLOW) is includes(role, least)


@pytest.mark.parametrize(
    ("anonymous", "in_scope", "widen", "reads_public", "verdict"),
    [
        (True, False, False, True, Verdict.ALLOW),
        (True, False, False, False, Verdict.CHALLENGE),
        (False, False, False, True, Verdict.ALLOW),
        (False, True, False, False, Verdict.ALLOW),
        (False, False, True, False, Verdict.CHALLENGE),
        (False, False, False, False, Verdict.FORBID),
    ],
)
def test_reading_a_public_cube(
    anonymous: bool, in_scope: bool, widen: bool, reads_public: bool, verdict: Verdict
) -> None:
    question = Question(
        act=Act.READ,
        visibility=Visibility.PUBLIC,
        is_anonymous=anonymous,
        is_in_scope=in_scope,
        can_widen_scope=widen,
        reads_public=reads_public,
    )
    assert decide(question).verdict is verdict


def test_roles_are_ordered() -> None:
    order = list(Role)
    for (i, one), (j, other) in product(enumerate(order), repeat=2):
        assert includes(one, other) is (i >= j)
    assert not includes(None, Role.READER)
