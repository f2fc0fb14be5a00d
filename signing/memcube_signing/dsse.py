"""DSSE envelopes (Dead Simple Signing Envelope 1.0): what is signed, and how it is written as JSON.

A signature is taken over the pre-authentication encoding (PAE) of the payload's type and bytes, and
verified over the bytes received: a payload is never written anew before it is checked.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.errors import InvalidStatementError
from memcube_protocol.values import frozen

_HINT: Final = "see docs/spec/statements.md, Envelope"
_TEXT_CHARS: Final = 256


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a signer signs (DSSE, "PAE definition"); lengths are decimal byte counts."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@frozen
class Signature:
    """One signature, and the unauthenticated hint that names its key (empty: none given)."""

    value: bytes
    key_id: str = ""


@frozen
class Envelope:
    """A payload with its type and its signatures, none of them verified yet.

    Raises:
        InvalidStatementError: no signature or no payload.
        LimitExceededError: a payload over 1 MiB.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        limits.require_at_most("statement", len(self.payload), limits.STATEMENT_BYTES)
        if not self.signatures:
            raise _invalid("it holds no signature", "no-signature")

    @property
    def signed(self) -> bytes:
        """The bytes that every signature covers."""
        return pae(self.payload_type, self.payload)

    @classmethod
    def from_json(cls, value: object) -> Envelope:
        """The envelope that parsed JSON holds.

        Raises:
            InvalidStatementError: a field is missing, unknown, of the wrong type or not canonical.
        """
        fields = known_fields(value, "envelope", {"payload", "payloadType", "signatures"})
        signatures = fields.get("signatures")
        if not isinstance(signatures, list):
            raise _invalid("it has no list of signatures")
        return cls(
            text_field(fields, "payloadType", "envelope"),
            _decode(fields, "payload", "envelope"),
            tuple(_signature(item) for item in signatures),
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this envelope; a key hint is written even where it is empty, as some want it."""
        return {
            "payload": _encode(self.payload),
            "payloadType": self.payload_type,
            "signatures": [
                {"sig": _encode(signature.value), "keyid": signature.key_id}
                for signature in self.signatures
            ],
        }


def known_fields(value: object, what: str, names: set[str]) -> Mapping[str, Any]:
    """`value` as an object that holds no field beside `names`.

    Raises:
        InvalidStatementError: not an object, or a field that this version does not know.
    """
    if not isinstance(value, dict):
        raise _invalid(f"its {what} is not an object")
    if unknown := sorted(value.keys() - names):
        raise _invalid(f"its {what} has the unknown field {unknown[0][:80]!r}", "unknown-field")
    return value


def text_field(fields: Mapping[str, Any], name: str, what: str) -> str:
    """The text of 1 to 256 characters in the field `name`.

    Raises:
        InvalidStatementError: absent, empty, longer, or not text.
    """
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_CHARS:
        raise _invalid(f"its {what} has no {name} of 1 to {_TEXT_CHARS} characters")
    return value


def _signature(value: object) -> Signature:
    fields = known_fields(value, "signature", {"sig", "keyid"})
    key_id = fields.get("keyid") or ""
    if not isinstance(key_id, str) or len(key_id) > _TEXT_CHARS:
        raise _invalid("the keyid of its signature is not short text")
    return Signature(_decode(fields, "sig", "signature"), key_id)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(fields: Mapping[str, Any], name: str, what: str) -> bytes:
    """Standard base64 with padding, in its one canonical form."""
    text = fields.get(name)
    if not isinstance(text, str) or not text:
        raise _invalid(f"its {what} has no {name}")
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _invalid(f"its {name} is not standard base64", "not-base64") from None
    if _encode(content) != text:
        raise _invalid(f"the base64 of its {name} is not canonical", "not-base64")
    return content


def _invalid(why: str, reason: str = "malformed-envelope") -> InvalidStatementError:
    return InvalidStatementError(
        f"not an acceptable signed statement: {why}", hint=_HINT, reason=reason
    )
