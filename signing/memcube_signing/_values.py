"""Values of a signed document: each of its one type, in its one form, or refused in the document's words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidDigestError, InvalidError, InvalidStatementError
from memcube_protocol.values import frozen


@frozen
class Values:
    """Takes values of one kind of document; `refusal` makes the error of one that breaks a rule."""

    refusal: Callable[[str], InvalidStatementError]

    def text(self, value: object) -> str:
        """`value`, if it is text."""
        if not isinstance(value, str):
            raise self.refusal("a field that holds text does not")
        return value

    def integer(self, value: object) -> int:
        """`value`, if it is an integer."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refusal("a field that holds a number does not")
        return value

    def items(self, value: object) -> list[object]:
        """`value`, if it is a list."""
        if not isinstance(value, list):
            raise self.refusal("a field that holds a list does not")
        return value

    def digest(self, value: object) -> Digest:
        """The digest that `value` writes."""
        text = self.text(value)
        try:
            return Digest.parse(text)
        except InvalidDigestError as error:
            raise self.refusal(str(error)) from None

    def moment(self, value: object) -> datetime:
        """RFC 3339 in UTC and whole seconds, in its one form `2026-01-31T12:00:00Z`."""
        text = self.text(value)
        try:
            return timestamps.read_seconds(text)
        except InvalidError:
            raise self.refusal(
                f"{text[:40]!r} is not a time such as 2026-01-31T12:00:00Z"
            ) from None


def is_plain(moment: datetime) -> bool:
    """Whether `moment` is in whole seconds of UTC since 1970."""
    return moment.tzinfo is UTC and not moment.microsecond and moment.year >= 1970
