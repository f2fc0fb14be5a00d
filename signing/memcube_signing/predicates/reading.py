"""Reading a predicate field by field: each value checked as it is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidDigestError, InvalidError, InvalidStatementError
from memcube_protocol.fields import is_printable_line

TEXT_CHARS: Final = 1024
ITEMS: Final = 8192


class Reader:
    """The fields of one JSON object of a predicate; `what` names it in errors.

    Every method raises InvalidStatementError on an absent field, one of another type, or one out of
    bounds. `None` comes back only where `optional` allows an absent field.
    """

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, Mapping):
            raise malformed(f"its {what} is not an object")
        self._fields: Mapping[str, Any] = value
        self.what = what

    def only(self, names: Collection[str]) -> None:
        """Refuse fields beside `names`: for the types that are memcube's own.

        Raises:
            InvalidStatementError: there is one.
        """
        if unknown := sorted(self._fields.keys() - set(names)):
            raise malformed(
                f"its {self.what} has the unknown field {unknown[0][:80]!r}", "unknown-field"
            )

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._fields

    def text(self, name: str, *, chars: int = TEXT_CHARS) -> str:
        """A printable line of 1 to `chars` characters."""
        value = self._fields.get(name)
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= chars
            or not is_printable_line(value)
        ):
            raise malformed(f"its {self.what} has no printable {name} of 1 to {chars} characters")
        return value

    def optional_text(self, name: str, *, chars: int = TEXT_CHARS) -> str | None:
        """A printable line, or None where the field is absent."""
        return self.text(name, chars=chars) if self.has(name) else None

    def choice(self, name: str, choices: Collection[str]) -> str:
        """One of `choices`."""
        value = self.text(name)
        if value not in choices:
            raise malformed(f"{name} of its {self.what} is {value[:80]!r}")
        return value

    def integer(self, name: str) -> int:
        """A whole number from 0."""
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise malformed(f"its {self.what} has no whole number {name}")
        return value

    def moment(self, name: str) -> datetime:
        """A time in UTC and whole seconds, `2026-01-31T12:00:00Z`."""
        text = self.text(name, chars=40)
        try:
            return timestamps.read_seconds(text)
        except InvalidError:
            raise malformed(
                f"{name} of its {self.what} is not a time such as 2026-01-31T12:00:00Z"
            ) from None

    def optional_moment(self, name: str) -> datetime | None:
        """A time, or None where the field is absent."""
        return self.moment(name) if self.has(name) else None

    def table(self, name: str) -> Reader:
        """The object in the field `name`; an empty one where it is absent."""
        return Reader(self._fields.get(name, {}), f"{name} of its {self.what}")

    def mapping(self, name: str) -> Mapping[str, Any]:
        """The object in the field `name`, unread; an empty one where it is absent."""
        value = self._fields.get(name, {})
        if not isinstance(value, dict):
            raise malformed(f"{name} of its {self.what} is not an object")
        return value

    def tables(self, name: str) -> tuple[Reader, ...]:
        """The objects in the list `name`; none where it is absent."""
        return tuple(Reader(item, f"{name}[] of its {self.what}") for item in self._list(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """The printable lines in the list `name`; none where it is absent."""
        items = self._list(name)
        return tuple(
            Reader({"item": item}, f"{name} of its {self.what}").text("item") for item in items
        )

    def digest_set(self, name: str = "digest") -> Digest:
        """The digest in an in-toto DigestSet: `sha256`, else `sha512`."""
        digests = self.mapping(name)
        for algorithm in ("sha256", "sha512"):
            if isinstance(digits := digests.get(algorithm), str):
                return _digest(algorithm, digits)
        raise malformed(f"its {self.what} has no sha256 or sha512 digest")

    def _list(self, name: str) -> list[Any]:
        value = self._fields.get(name, [])
        if not isinstance(value, list) or len(value) > ITEMS:
            raise malformed(f"{name} of its {self.what} is not a list of at most {ITEMS}")
        return value


def digest_set(digest: Digest) -> dict[str, str]:
    """`digest` as an in-toto DigestSet."""
    return {digest.algorithm: digest.hex}


def malformed(why: str, reason: str = "malformed-predicate") -> InvalidStatementError:
    """The error that says what is wrong with a predicate."""
    return InvalidStatementError(
        f"not an acceptable attestation: {why}",
        hint="see docs/spec/attestations.md",
        reason=reason,
    )


def _digest(algorithm: str, digits: str) -> Digest:
    try:
        return Digest(algorithm, digits)
    except InvalidDigestError as error:
        raise malformed(str(error)) from None
