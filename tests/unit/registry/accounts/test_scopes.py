"""Scopes of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidRequestError
from memcube_registry.accounts.scopes import Act, Scope, format_scopes, parse_scopes

names = st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}", fullmatch=True)
scopes = st.builds(Scope, st.sampled_from(Act), names | st.just(""))


@given(st.sets(scopes, min_size=1, max_size=8))
def test_scopes_round_trip(given_scopes: set[Scope]) -> None:
    assert set(parse_scopes(format_scopes(given_scopes))) == given_scopes


@given(st.text(max_size=60))
def test_any_text_is_scopes_or_refused(text: str) -> None:
    try:
        parse_scopes(text)
    except InvalidRequestError:
        return


@pytest.mark.parametrize(
    "text", ["", " ", "read", "pull:", "pull:A", "pull:a//b", "pull:a:b", "push:../x", "*", "Pull"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_scopes(text)


def test_push_and_delete_include_pull_and_admin_everything() -> None:
    covered = {act: {a for a in Act if Scope(act).covers(a, "a/b")} for act in Act}
    assert covered == {
        Act.READ: {Act.READ},
        Act.WRITE: {Act.READ, Act.WRITE},
        Act.DELETE: {Act.READ, Act.DELETE},
        Act.ADMIN: set(Act),
    }


@pytest.mark.parametrize(
    ("within", "repository", "covered"),
    [
        ("", "alice/notes", True),
        ("alice", "alice/notes", True),
        ("alice", "alice", True),
        ("alice", "alicea/notes", False),
        ("alice/notes", "alice/notes", True),
        ("alice/notes", "alice/notes2", False),
        ("alice/notes", "alice/notes/deep", False),
        ("alice/notes", "alice", False),
        ("alice", "bob/alice", False),
    ],
)
def test_a_scope_covers_a_namespace_or_exactly_one_repository(
    within: str, repository: str, covered: bool
) -> None:
    assert Scope(Act.READ, within).covers(Act.READ, repository) is covered
