"""Fields of a key document: typed, in their one form."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Final

from memcube_protocol.errors import InvalidStatementError

from memcube_signing._values import Values, is_plain
from memcube_signing.keys import PublicKey


def invalid(why: str, reason: str = "malformed-key-document") -> InvalidStatementError:
    """The error of a key document that breaks a rule."""
    return InvalidStatementError(
        f"not an acceptable key document: {why}", hint="see docs/spec/keys.md", reason=reason
    )


typed: Final = Values(invalid)
"""Takes the values of a key document."""


def require_plain(value: datetime) -> None:
    """Refuse a time that is not in whole seconds of UTC since 1970."""
    if not is_plain(value):
        raise invalid(f"{value} is not in whole seconds of UTC since 1970")


def key(value: object) -> PublicKey:
    """The public key whose DER `value` holds in base64."""
    written = typed.text(value)
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
