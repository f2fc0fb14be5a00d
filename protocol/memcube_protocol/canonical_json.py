"""JSON as memcube reads it (strict) and writes it (RFC 8785).

Strict means: UTF-8 without a byte-order mark, no duplicate keys, no NaN or Infinity, at most
`limits.JSON_DEPTH` levels, integers within ±(2^53 - 1), no lone surrogates.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import rfc8785

from memcube_protocol import limits
from memcube_protocol.errors import InvalidJsonError

_HINT: Final = "write it as plain JSON (RFC 8259): unique keys, finite numbers, UTF-8"
MAX_SAFE_INTEGER: Final = 2**53 - 1
_EXPONENT_FROM: Final = 1e21
"""From here on RFC 8785 writes floats with an exponent, below as the digits of an integer."""

_BRACKET: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
"""A string, even one without an end, or a bracket outside of strings; never matches twice over a place."""


_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of half a character; UTF-8 itself has none."""


def parse(
    content: bytes | bytearray | memoryview, *, what: str = "JSON", any_integer: bool = False
) -> Any:
    """The value of strict JSON `content`; `what` names it in errors.

    `any_integer` takes integers of any size: in what is passed on to others, who may know them.

    Raises:
        InvalidJsonError: it breaks a rule of the module's docstring.
    """
    try:
        text = bytes(content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(what, f"it is not UTF-8 (byte {error.start})") from None
    if text.startswith("\ufeff"):
        raise _invalid(what, "it begins with a byte-order mark")
    _check_depth(text, what)
    try:
        value = (_FOREIGN_DECODER if any_integer else _DECODER).decode(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(what, str(error)) from None
    _check_strings(text, value, what)
    return value


def parse_object(
    content: bytes | bytearray | memoryview, *, what: str = "JSON", any_integer: bool = False
) -> dict[str, Any]:
    """The object that strict JSON `content` holds; see `parse`.

    Raises:
        InvalidJsonError: not strict JSON, or not an object.
    """
    value = parse(content, what=what, any_integer=any_integer)
    if not isinstance(value, dict):
        raise _invalid(what, "it is not an object")
    return value


def dump(value: Any) -> bytes:
    """Canonical bytes of `value` (RFC 8785): sorted keys, no spaces, UTF-8; `parse` reads them.

    Raises:
        InvalidJsonError: a float that is not finite, an integer beyond 2^53 - 1 (also one written
            as a float), more than `limits.JSON_DEPTH` levels, or another type.
    """
    try:
        if _is_plain(value, 0):
            return _ENCODER.encode(value).encode()
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise _invalid("value", str(error)) from None


def _is_plain(value: Any, depth: int) -> bool:
    """Whether the standard library's encoder, which is compiled, writes `value` as RFC 8785 has it.

    It does but for floats and for keys beyond ASCII, which it writes and sorts in its own way.

    Raises:
        InvalidJsonError: it would be written in a form that `parse` refuses.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(abs(value) <= MAX_SAFE_INTEGER)
    if isinstance(value, float):
        if MAX_SAFE_INTEGER < abs(value) < _EXPONENT_FROM:
            raise _invalid("value", f"the float {value!r} is an integer beyond 2^53 - 1")
        return False
    if not isinstance(value, (dict, list, tuple)):
        return False
    if depth == limits.JSON_DEPTH:
        raise _invalid("value", f"it nests deeper than {limits.JSON_DEPTH} levels")
    plain = kind is list or kind is tuple or (kind is dict and all(map(_is_plain_key, value)))
    for item in value.values() if isinstance(value, dict) else value:
        plain = _is_plain(item, depth + 1) and plain  # each is looked at
    return plain


def _is_plain_key(key: Any) -> bool:
    return type(key) is str and key.isascii()


def _check_depth(text: str, what: str) -> None:
    """Refuse too many levels before the recursive parser sees them; brackets in strings are skipped."""
    if text.count("[") + text.count("{") <= limits.JSON_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > limits.JSON_DEPTH:
                raise _invalid(what, f"it nests deeper than {limits.JSON_DEPTH} levels")
        elif match[0] in "]}":
            depth -= 1


def _check_strings(text: str, value: Any, what: str) -> None:
    if not ("\\u" in text and _SURROGATE.search(text)):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _invalid(what, "it holds a lone surrogate") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {key[:80]!r} stands twice in one object")
        value[key] = item
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _safe_int(digits: str) -> int:
    if len(digits) > 17 or abs(number := int(digits)) > MAX_SAFE_INTEGER:
        raise ValueError(f"integer {digits[:32]} lies beyond 2^53 - 1")
    return number


def _finite_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {digits[:32]} is too large")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_safe_int,
    parse_float=_finite_float,
)
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":"), sort_keys=True
)
_FOREIGN_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_refuse_constant,
    parse_float=_finite_float,
)


def _invalid(what: str, why: str) -> InvalidJsonError:
    return InvalidJsonError(f"{what[:200]} is not acceptable JSON: {why}", hint=_HINT)
