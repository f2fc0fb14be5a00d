"""The status of a release after its publication: deprecated, yanked, or reinstated.

Of several statements by the publisher the one with the latest `statedAt` counts; of two at the same
moment the stricter one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

from memcube_signing.predicates.kind import Kind
from memcube_signing.predicates.reading import Reader, malformed
from memcube_signing.release import require_origin
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://memcube.org/status/v1"
_MESSAGE_CHARS: Final = 500
_FIELDS: Final = {"origin", "version", "status", "reason", "message", "replacement", "statedAt"}


class State(StrEnum):
    """What a publisher says of a release; the later in this list, the stricter."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    YANKED = "yanked"


class Reason(StrEnum):
    """Why. `compromised` and `harmful` forbid also an exact version or digest."""

    OUTDATED = "outdated"
    WRONG = "wrong"
    LICENCE = "licence"
    PERSONAL_DATA = "personal-data"
    HARMFUL = "harmful"
    COMPROMISED = "compromised"
    OTHER = "other"

    @property
    def is_dangerous(self) -> bool:
        """Whether nobody should use such a release, however it was asked for."""
        return self in (Reason.HARMFUL, Reason.COMPROMISED, Reason.PERSONAL_DATA)


_ORDER: Final = tuple(State)


@frozen
class Status:
    """What the publisher of `origin` says since `stated_at` of `version`, the manifest `subject`.

    `message` is a printable line for people; `replacement` a reference to use instead.
    """

    subject: Digest
    origin: str
    version: str
    state: State
    reason: Reason
    stated_at: datetime
    message: str | None = None
    replacement: str | None = None

    def __post_init__(self) -> None:
        require_origin(self.origin)
        if self.stated_at.tzinfo is None or self.stated_at.microsecond:
            raise malformed("its statedAt is not in UTC and whole seconds")
        # What is written must be readable again: text is checked by the reader's own rules.
        fields = Reader({"version": self.version} | self._texts(), "status")
        fields.text("version", chars=128)
        fields.optional_text("message", chars=_MESSAGE_CHARS)
        fields.optional_text("replacement", chars=_MESSAGE_CHARS)

    def to_statement(self) -> Statement:
        """The in-toto statement of this status."""
        predicate: dict[str, Any] = {
            "origin": self.origin,
            "version": self.version,
            "status": str(self.state),
            "reason": str(self.reason),
            "statedAt": timestamps.write_seconds(self.stated_at),
            **self._texts(),
        }
        return Statement(self.origin, self.subject, PREDICATE_TYPE, predicate)

    def _texts(self) -> dict[str, str]:
        texts = {"message": self.message, "replacement": self.replacement}
        return {name: text for name, text in texts.items() if text is not None}


def current(statements: Iterable[Status]) -> Status | None:
    """The status that counts among `statements` about one release; None where there is none."""
    return max(
        statements,
        key=lambda status: (status.stated_at, _ORDER.index(status.state)),
        default=None,
    )


def read(said: Statement) -> Status:
    """The status in a statement of its predicate type.

    Raises:
        InvalidStatementError: a field is missing, unknown or breaks its rule.
    """
    fields = Reader(said.predicate, "status")
    fields.only(_FIELDS)
    status = Status(
        subject=said.subject,
        origin=fields.text("origin"),
        version=fields.text("version", chars=128),
        state=State(fields.choice("status", tuple(State))),
        reason=Reason(fields.choice("reason", tuple(Reason))),
        stated_at=fields.moment("statedAt"),
        message=fields.optional_text("message", chars=_MESSAGE_CHARS),
        replacement=fields.optional_text("replacement", chars=_MESSAGE_CHARS),
    )
    if said.name != status.origin:
        raise malformed("its subject is not named by its origin")
    return status


KIND: Final = Kind(PREDICATE_TYPE, read)
