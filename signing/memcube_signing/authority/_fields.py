"""Fields of a key document: typed, in their one form."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidDigestError, InvalidError, InvalidStatementError

from memcube_signing.keys import PublicKey


def text(value: object) -> str:
    """`value`, if it is text."""
    if not isinstance(value, str):
        raise invalid("a field that holds text does not")
    return value


def integer(value: object) -> int:
    """`value`, if it is an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid("a field that holds a number does not")
    return value


def items(value: object) -> list[object]:
    """`value`, if it is a list."""
    if not isinstance(value, list):
        raise invalid("a field that holds a list does not")
    return value


def digest(value: object) -> Digest:
    """The digest that `value` writes."""
    try:
        return Digest.parse(text(value))
    except InvalidDigestError as error:
        raise invalid(str(error)) from None


def moment(value: object) -> datetime:
    """RFC 3339 in UTC and whole seconds, in its one form `2026-01-31T12:00:00Z`."""
    written = text(value)
    try:
        return timestamps.read_seconds(written)
    except InvalidError:
        raise invalid(f"{written[:40]!r} is not a time such as 2026-01-31T12:00:00Z") from None


def require_plain(value: datetime) -> None:
    """Refuse a time that is not in whole seconds of UTC since 1970."""
    if value.tzinfo is not UTC or value.microsecond or value.year < 1970:
        raise invalid(f"{value} is not in whole seconds of UTC since 1970")


def key(value: object) -> PublicKey:
    """The public key whose DER `value` holds in base64."""
    written = text(value)
    try:
        found = PublicKey(base64.b64decode(written, validate=True))
    except (binascii.Error, ValueError):
        raise invalid("a key is not in base64") from None
    if key_text(found) != written:
        raise invalid("the base64 of a key is not canonical")
    return found


def key_text(value: PublicKey) -> str:
    """What `key` reads."""
    return base64.b64encode(value.der).decode()


def invalid(why: str, reason: str = "malformed-key-document") -> InvalidStatementError:
    """The error of a key document that breaks a rule."""
    return InvalidStatementError(
        f"not an acceptable key document: {why}", hint="see docs/spec/keys.md", reason=reason
    )
