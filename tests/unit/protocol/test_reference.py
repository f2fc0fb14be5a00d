from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidReferenceError, MemcubeError
from memcube_protocol.reference import (
    Reference,
    is_host,
    is_immutable_tag,
    is_name,
    is_tag,
    tag_of_version,
)
from support.attempts import attempt

COMPONENTS = st.from_regex(r"[a-z0-9]{1,5}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
NAMES = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
HOSTS = st.sampled_from(
    ["", "localhost", "example.org", "registry:5000", "127.0.0.1:80", "[::1]:5000", "[fe80::1]"]
)
TAGS = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
DIGESTS = st.none() | st.binary().map(Digest.of)


@settings(max_examples=200)
@given(HOSTS, NAMES, TAGS, DIGESTS)
def test_a_reference_is_read_back_as_it_was_written(
    host: str, name: str, tag: str | None, digest: Digest | None
) -> None:
    reference = attempt(lambda: Reference(host, name, tag, digest))
    if isinstance(reference, InvalidReferenceError):
        assert not host
        assert "reads as a host" in str(reference)
    else:
        assert Reference.parse(str(reference)) == reference


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text(alphabet="abA0./:@_-[]é\n", max_size=40))
def test_text_is_a_reference_in_its_one_spelling_or_refused(text: str) -> None:
    result = attempt(lambda: Reference.parse(text))
    assert isinstance(result, MemcubeError) or str(result) == text


def test_the_parts_are_told_apart_as_docker_does() -> None:
    digest = Digest.of(b"")
    reference = Reference.parse(f"localhost:5000/alice/notes:1.0@{digest}")
    assert (reference.host, reference.name, reference.tag) == (
        "localhost:5000",
        "alice/notes",
        "1.0",
    )
    assert reference.namespace == "alice"
    assert reference.target == str(digest)
    assert reference.location == "localhost:5000/alice/notes"
    assert Reference.parse("alice/notes").target == "latest"
    assert Reference.parse("alice/notes:1.0").target == "1.0"
    assert Reference.parse("localhost/notes").host == "localhost"
    assert Reference.parse("a.b").name == "a.b"


def test_a_default_host_fills_in_for_none() -> None:
    bare = Reference.parse("alice/notes:1.0")
    assert str(bare.with_host("example.org")) == "example.org/alice/notes:1.0"
    assert bare.with_host("example.org").with_host("other.org").host == "example.org"
    assert bare.with_digest(Digest.of(b"")).digest == Digest.of(b"")


@pytest.mark.parametrize("name", ["a.b/c", "localhost/c"])
def test_a_name_that_would_read_as_a_host_is_refused_without_one(name: str) -> None:
    with pytest.raises(InvalidReferenceError, match="reads as a host"):
        Reference("", name)
    assert Reference("example.org", name).name == name


def test_a_host_that_would_read_as_a_namespace_is_refused() -> None:
    with pytest.raises(InvalidReferenceError, match="port or a dot"):
        Reference("registry", "alice/notes")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Alice/notes",
        "alice//notes",
        "/alice/notes",
        "alice/notes/",
        "alice/notes:",
        "alice/notes:.x",
        "alice/notes:" + "a" * 129,
        "alice/no..tes",
        "alice/no___tes",
        "alice/-notes",
        "alice/notes@",
        "alice/notes@sha256:abc",
        "example.org:99999/alice/notes",
        "[::::]:80/a/b",
        "[zz]:80/a/b",
        "exa mple.org/a",
        "https://example.org/a",
        "a" * 256,
        "alice/notes:1.0\n",
    ],
)
def test_what_breaks_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(MemcubeError):
        Reference.parse(text)


def test_versions_become_tags_that_never_move() -> None:
    assert tag_of_version("1.2.0+b1") == "1.2.0_b1"
    assert tag_of_version("1.0.0-rc.1") == "1.0.0-rc.1"
    assert is_immutable_tag("1.2.0_b1")
    assert not is_immutable_tag("1.2")
    assert not is_immutable_tag("latest")
    for version in (
        "1.2",
        "v1.2.3",
        "01.2.3",
        "1.2.3_b1",
        "1.2.3+",
        "1.2.3-01",
        "1.0.0+" + "a" * 200,
    ):
        with pytest.raises(InvalidReferenceError):
            tag_of_version(version)


def test_names_tags_and_hosts_are_judged_alone() -> None:
    assert is_name("a/b/c")
    assert not is_name("a" * 256)
    assert is_tag("v1")
    assert not is_tag("-v1")
    assert is_host("example.org:443")
    assert not is_host("example.org:65536")
    assert not is_host("example..org")
    assert not is_host("-example.org")
