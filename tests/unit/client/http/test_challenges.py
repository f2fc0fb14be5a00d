import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.http.challenges import Challenge, parse_challenges
from memcube_protocol.errors import NetworkError

TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [Challenge("basic", {})]),
        ('Basic realm="a b"', [Challenge("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "r",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'Negotiate, Basic realm="x" , Bearer Realm = y',
            [
                Challenge("negotiate", {}),
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "y"}),
            ],
        ),
        ("Negotiate abc==, Basic", [Challenge("negotiate", {}), Challenge("basic", {})]),
        (r'Basic realm="a\"b"', [Challenge("basic", {"realm": 'a"b'})]),
    ],
)
def test_challenges_of_every_form_are_read(header: str, challenges: list[Challenge]) -> None:
    assert parse_challenges(header) == challenges


@pytest.mark.parametrize(
    "header",
    [
        'Bearer realm="x',
        'Bearer realm="x" service="y"',
        'Bearer realm="x",realm="y"',
        "Bearer =x",
        '"Bearer"',
        "Bearer realm=é",
        "Basic realm=x\r\nSet-Cookie: y",
        "B " * 9000,
    ],
)
def test_malformed_challenges_are_refused(header: str) -> None:
    with pytest.raises(NetworkError):
        parse_challenges(header)


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), VALUE, min_size=1))))
def test_what_is_written_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges(header) == [
        Challenge(scheme.lower(), parameters) for scheme, parameters in challenges
    ]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(header: str) -> None:
    with contextlib.suppress(NetworkError):
        parse_challenges(header)
