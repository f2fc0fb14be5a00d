"""Names of accounts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidReferenceError
from memcube_protocol.reference import RESERVED_NAMESPACES, Reference, is_name
from memcube_registry.accounts.names import require_account_name, skeleton_of


@pytest.mark.parametrize("name", ["alice", "a1", "acme-labs", "acme_labs", "42", "x" * 64])
def test_ordinary_names_are_taken(name: str) -> None:
    assert require_account_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "x" * 65, "Alice", "alice.example", "a--b", "-a", "a-", "a/b", "á", "a b", "a\n"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidReferenceError):
        require_account_name(name)


@pytest.mark.parametrize("name", [*sorted(RESERVED_NAMESPACES), "localhost", "memcube"])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidReferenceError):
        require_account_name(name)


@pytest.mark.parametrize("name", ["adrnin", "l0gin", "1ogin", "a-p-i", "rnernc-ube", "log-in"])
def test_names_that_look_reserved_are_refused(name: str) -> None:
    with pytest.raises(InvalidReferenceError, match="looks like"):
        require_account_name(name)


@pytest.mark.parametrize(
    ("one", "other"), [("acme", "acrne"), ("o0o", "ooo"), ("il1", "lli"), ("a-b", "ab")]
)
def test_names_that_the_eye_confuses_have_one_skeleton(one: str, other: str) -> None:
    assert skeleton_of(one) == skeleton_of(other)


@given(st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True))
def test_every_name_that_is_taken_is_a_namespace_and_never_a_host(name: str) -> None:
    try:
        require_account_name(name)
    except InvalidReferenceError:
        return
    assert is_name(name)
    assert Reference.parse(f"{name}/cube").namespace == name


@given(st.from_regex(r"[a-z0-9_-]{0,40}", fullmatch=True))
def test_the_skeleton_of_a_skeleton_without_pairs_is_itself(name: str) -> None:
    skeleton = skeleton_of(name)
    assert not set(skeleton) & set("01i-_")
