"""In-toto statements (in-toto Attestation Framework, Statement v1): a predicate about one subject.

Fields that the framework does not name are ignored, as it demands; what a predicate may hold is its
own type's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidDigestError, InvalidStatementError
from memcube_protocol.values import frozen

TYPE: Final = "https://in-toto.io/Statement/v1"
_HINT: Final = "see docs/spec/statements.md, Statement"
_TEXT_CHARS: Final = 1024


@frozen
class Statement:
    """What is said (`predicate`, of the type `predicate_type`) about the content `subject`.

    `name` is the subject's name, which nothing is decided by.
    """

    name: str
    subject: Digest
    predicate_type: str
    predicate: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """This statement in canonical JSON (RFC 8785).

        Raises:
            InvalidJsonError: the predicate holds what JSON cannot.
            LimitExceededError: more than 1 MiB.
        """
        content = canonical_json.dump(
            {
                "_type": TYPE,
                "subject": [
                    {"name": self.name, "digest": {self.subject.algorithm: self.subject.hex}}
                ],
                "predicateType": self.predicate_type,
                "predicate": dict(self.predicate),
            }
        )
        limits.require_at_most("statement", len(content), limits.STATEMENT_BYTES)
        return content


def parse(payload: bytes) -> Statement:
    """The statement about exactly one subject that `payload` holds, in strict JSON.

    Raises:
        LimitExceededError: more than 1 MiB.
        InvalidJsonError: not strict JSON: duplicate keys among others.
        InvalidStatementError: not a statement v1, or not about exactly one digest.
    """
    limits.require_at_most("statement", len(payload), limits.STATEMENT_BYTES)
    fields = canonical_json.parse_object(payload, what="statement")
    if fields.get("_type") != TYPE:
        raise _invalid(f"its _type is not {TYPE}", "wrong-statement-type")
    predicate = fields.get("predicate")
    if not isinstance(predicate, dict):
        raise _invalid("it has no predicate")
    name, subject = _subject(fields.get("subject"))
    return Statement(name, subject, _text(fields.get("predicateType"), "predicateType"), predicate)


def _subject(value: object) -> tuple[str, Digest]:
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise _invalid("it is not about exactly one subject", "wrong-subject")
    digests = value[0].get("digest")
    if not isinstance(digests, dict) or len(digests) != 1:
        raise _invalid("its subject has not exactly one digest", "wrong-subject")
    ((algorithm, hex_digits),) = digests.items()
    if not isinstance(hex_digits, str):
        raise _invalid("its subject's digest is not text", "wrong-subject")
    try:
        digest = Digest(algorithm, hex_digits)
    except InvalidDigestError as error:
        raise _invalid(f"its subject: {error}", "wrong-subject") from None
    return _text(value[0].get("name", ""), "subject name", at_least=0), digest


def _text(value: object, what: str, *, at_least: int = 1) -> str:
    if not isinstance(value, str) or not at_least <= len(value) <= _TEXT_CHARS:
        raise _invalid(f"it has no {what} of at most {_TEXT_CHARS} characters")
    return value


def _invalid(why: str, reason: str = "malformed-statement") -> InvalidStatementError:
    return InvalidStatementError(f"not an acceptable statement: {why}", hint=_HINT, reason=reason)
