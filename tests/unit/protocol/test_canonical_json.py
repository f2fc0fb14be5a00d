from __future__ import annotations

import json
import math
from collections import defaultdict
from enum import StrEnum

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import InvalidJsonError, MemcubeError
from support.attempts import attempt

SAFE = canonical_json.MAX_SAFE_INTEGER
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
DEEP: list[object] = []
for _ in range(limits.JSON_DEPTH):
    DEEP = [DEEP]
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def same(one: object, other: object) -> bool:
    """Equal as JSON: integers and floats of one value are one number, booleans are none."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@settings(max_examples=200)
@given(VALUES)
def test_what_is_dumped_is_parsed_back_and_dumps_to_the_same_bytes(value: object) -> None:
    try:
        content = canonical_json.dump(value)
    except InvalidJsonError:
        return
    back = canonical_json.parse(content)
    assert same(back, value)
    assert canonical_json.dump(back) == content


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_error(content: bytes) -> None:
    result = attempt(lambda: canonical_json.parse(content))
    assert not isinstance(result, MemcubeError) or isinstance(result, InvalidJsonError)


@settings(max_examples=200)
@given(st.text(alphabet='{}[]",:\\u0d8"1e-.ntf ', max_size=60))
def test_what_is_accepted_the_standard_parser_reads_the_same(text: str) -> None:
    try:
        value = canonical_json.parse(text.encode())
    except InvalidJsonError:
        return
    assert same(value, json.loads(text))


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":1,"a":1}',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"9007199254740992",
        b"-9007199254740992",
        b"123456789012345678901234567890",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"{} {}",
        b"",
        b"'a'",
        b'"a\nb"',
    ],
)
def test_what_is_not_strict_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidJsonError):
        canonical_json.parse(content)


def test_a_byte_order_mark_is_named() -> None:
    with pytest.raises(InvalidJsonError, match="byte-order mark"):
        canonical_json.parse(b"\xef\xbb\xbf{}")


def test_integers_of_any_size_are_taken_for_others() -> None:
    for content in (b"123456789012345678901234567890", b"[-9007199254740992]"):
        found = canonical_json.parse(content, any_integer=True)
        assert found == json.loads(content)
    with pytest.raises(InvalidJsonError):
        canonical_json.parse(b"1" * 5000, any_integer=True)


def test_depth_is_bounded_and_brackets_in_strings_do_not_count() -> None:
    deepest = b"[" * limits.JSON_DEPTH + b"]" * limits.JSON_DEPTH
    assert canonical_json.parse(deepest)
    with pytest.raises(InvalidJsonError, match="nests deeper"):
        canonical_json.parse(b"[" + deepest + b"]")
    with pytest.raises(InvalidJsonError, match="nests deeper"):
        canonical_json.parse(b'[{"a":' * 1000)
    assert canonical_json.parse(b'["' + b'[{\\"' * 500 + b'"]')


def test_hostile_strings_are_judged_in_linear_time() -> None:
    with pytest.raises(InvalidJsonError):
        canonical_json.parse(b'"' + b'\\"[' * 300_000)
    with pytest.raises(InvalidJsonError):
        canonical_json.parse(b'"[' + b"\\" * 1_000_001)


def test_canonical_bytes_follow_rfc_8785() -> None:
    value = {"\u20ac": 1.0, "\r": 0.5, "\ud83d\ude00": 1e-7, "1": [0.1, -0.0, 333333333.33333329]}
    value = {key.encode("utf-16", "surrogatepass").decode("utf-16"): v for key, v in value.items()}
    assert canonical_json.dump(value) == (
        '{"\\r":0.5,"1":[0.1,0,333333333.3333333],"€":1,"😀":1e-7}'.encode()
    )


class Colour(StrEnum):
    RED = "red"


ODD = st.sampled_from(
    [
        Colour.RED,
        {Colour.RED: 1},
        (),
        (1, "a"),
        defaultdict(int, a=1),
        '\x00\x1f\x7f\u2028"\\/\b\f\n\r\t',
    ]
)


@example({"\uffff": 1, "\U0001f600": 2})  # sorted by UTF-16, not by code points
@settings(max_examples=300)
@given(
    st.recursive(
        LEAVES | ODD,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.text(max_size=3) | st.text("ab\uffff\U0001f600", max_size=3), inner, max_size=4
            )
        ),
    )
)
def test_the_compiled_encoder_writes_what_the_reference_does(value: object) -> None:
    written = attempt(lambda: canonical_json.dump(value))
    if not isinstance(written, MemcubeError):
        assert written == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, 2.0**53, -1e20, DEEP, {1: 2}, {"a": b""}, "\ud800", object()],
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidJsonError):
        canonical_json.dump(value)


def test_an_object_is_wanted_where_one_is_asked_for() -> None:
    assert canonical_json.parse_object(b'{"a":1}') == {"a": 1}
    with pytest.raises(InvalidJsonError, match="config"):
        canonical_json.parse_object(b"[]", what="config")
