"""Reading one object of parsed JSON or TOML, field by field, and refusing what is left over.

The same schema is written in two spellings: camelCase in a signed config, snake_case in
`memcube.toml`. A `Fields` is asked in camelCase and looks the key up in the spelling of its source.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, Self

from memcube_protocol import timestamps
from memcube_protocol.errors import InvalidConfigError, InvalidError

_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def camel_case(key: str) -> str:
    """The spelling of a signed config: keys as they are asked for."""
    return key


def snake_case(key: str) -> str:
    """The spelling of memcube.toml: `expiresAt` becomes `expires_at`."""
    return _CAPITAL.sub(r"_\1", key).lower()


def closest(word: str, known: Collection[str]) -> str | None:
    """Which of the `known` words somebody may have meant by `word`."""
    import difflib  # only a mistake needs it

    return next(iter(difflib.get_close_matches(word, known, 1)), None)


class Fields:
    """One object whose fields are taken once each; `finish` refuses the rest.

    `what` names the object in errors, as in `governance of memcube.toml`. Every method raises
    InvalidConfigError on a value of another type or outside its bounds.
    """

    def __init__(
        self, value: object, what: str, *, spelling: Callable[[str], str] = camel_case
    ) -> None:
        if not isinstance(value, Mapping):
            raise InvalidConfigError(f"{what} is not an object", hint="see docs/spec/config.md")
        self._left: dict[str, Any] = dict(value)
        self._asked: list[str] = []
        self._spelling = spelling
        self.what = what

    def take(self, key: str) -> Any:
        """The value of `key` as it is, or None where it is absent; null is no way to leave it out."""
        name = self._spelling(key)
        self._asked.append(name)
        if self._left.get(name, name) is None:
            raise self.refuse(key, "is null: leave it out")
        return self._left.pop(name, None)

    def has(self, key: str) -> bool:
        """Whether `key` is present and not taken yet."""
        return self._spelling(key) in self._left

    def text(
        self,
        key: str,
        default: str | None = None,
        *,
        chars: int = 200,
        pattern: re.Pattern[str] | None = None,
    ) -> str:
        """A printable line of at most `chars` characters; a field without `default` is required."""
        value = self.take(key)
        if value is None:
            if default is None:
                raise self.refuse(key, "is missing")
            return default
        return self._line(key, value, chars, pattern)

    def optional_text(
        self, key: str, *, chars: int = 200, pattern: re.Pattern[str] | None = None
    ) -> str | None:
        """A printable line, or None where the field is absent."""
        value = self.take(key)
        return None if value is None else self._line(key, value, chars, pattern)

    def texts(
        self,
        key: str,
        *,
        count: int = 64,
        chars: int = 100,
        pattern: re.Pattern[str] | None = None,
    ) -> tuple[str, ...]:
        """A list of distinct printable lines; empty where the field is absent."""
        values = tuple(self._line(key, item, chars, pattern) for item in self._list(key, count))
        if len(set(values)) != len(values):
            raise self.refuse(key, "names something twice")
        return values

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """One of `choices`."""
        value = self.text(key, default)
        if value not in choices:
            close = closest(value, choices)
            meant = f"; did you mean {close!r}?" if close else ""
            raise self.refuse(key, f"is {value[:60]!r}, not one of {', '.join(choices)}{meant}")
        return value

    def integer(self, key: str, *, least: int = 0, most: int = 2**53 - 1) -> int | None:
        """A whole number within bounds, or None where the field is absent."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.refuse(key, f"is not a whole number from {least} to {most}")
        return value

    def moment(self, key: str) -> datetime | None:
        """A point in time, to the second, in UTC; None where the field is absent."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, (datetime, date)):
            return self._moment_of_toml(key, value)
        try:
            return timestamps.read_seconds(str(value))
        except InvalidError:
            raise self.refuse(key, "is not a time in UTC such as 2026-11-20T09:30:00Z") from None

    def table(self, key: str) -> Fields:
        """The object below `key`; an empty one where the field is absent."""
        value = self.take(key)
        return self._child({} if value is None else value, key)

    def tables(self, key: str, *, count: int = 1024) -> tuple[Fields, ...]:
        """The objects in the list below `key`; none where the field is absent."""
        return tuple(
            self._child(value, f"{key}[{position}]")
            for position, value in enumerate(self._list(key, count))
        )

    def object(self, key: str) -> dict[str, Any]:
        """Any object below `key`, its inside unread; empty where the field is absent."""
        value = self.take(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refuse(key, "is not an object")
        return value

    def lines(self, *, count: int = 64, chars: int = 200) -> dict[str, str]:
        """Every field that is left, as a printable line by its name; both of at most `chars` characters."""
        names = sorted(self._left)
        if len(names) > count:
            raise InvalidConfigError(
                f"{self.what} has {len(names)} entries, the limit is {count}",
                hint="see docs/spec/config.md",
            )
        for name in names:
            self._line(name, name, chars, None)
        return {name: self._line(name, self._left.pop(name), chars, None) for name in names}

    def finish(self) -> None:
        """Refuse fields that nobody asked for.

        Raises:
            InvalidConfigError: names the field and the known one that is closest.
        """
        for name in sorted(self._left):
            close = closest(name, self._asked)
            known = f"known here: {', '.join(sorted(self._asked))}"
            raise InvalidConfigError(
                f"{self.what} has an unknown field {name[:80]!r}",
                hint=f"did you mean {close!r}?" if close else known,
            )

    def refuse(self, key: str, why: str) -> InvalidConfigError:
        """The error that says what is wrong with `key`."""
        return InvalidConfigError(
            f"{self._spelling(key)} of {self.what} {why}", hint="see docs/spec/config.md"
        )

    def _child(self, value: Any, key: str) -> Fields:
        return Fields(value, f"{self._spelling(key)} of {self.what}", spelling=self._spelling)

    def _list(self, key: str, count: int) -> list[Any]:
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refuse(key, "is not a list")
        if len(value) > count:
            raise self.refuse(key, f"has {len(value)} entries, the limit is {count}")
        return value

    def _line(self, key: str, value: Any, chars: int, pattern: re.Pattern[str] | None) -> str:
        if not isinstance(value, str):
            raise self.refuse(key, "is not a string")
        if not 1 <= len(value) <= chars:
            raise self.refuse(key, f"has {len(value)} characters, 1 to {chars} are allowed")
        if not is_printable_line(value):
            raise self.refuse(key, "holds a control or bidirectional override character")
        if pattern and not pattern.fullmatch(value):
            raise self.refuse(key, f"is {value[:80]!r}, which does not have the form asked for")
        return value

    def _moment_of_toml(self, key: str, value: date) -> datetime:
        if not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if value.tzinfo is None:
            raise self.refuse(key, "has no time zone: write it with a Z at the end")
        return timestamps.whole_seconds(value)


class Described(ABC):
    """A frozen value that is read from `Fields`, and held to the same rules when it is made in code."""

    __slots__ = ()

    def __post_init__(self) -> None:
        self._read(Fields(self.to_json(), self._what))

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """The value that `fields` describe.

        Raises:
            InvalidConfigError: a field is unknown, missing or out of bounds.
        """
        return cls(**cls._read(fields))

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The JSON object of this value; what is absent is left out."""

    @staticmethod
    @abstractmethod
    def _read(fields: Fields) -> dict[str, Any]:
        """The arguments of the value that `fields` describe, of which none is left over."""

    @property
    def _what(self) -> str:
        """What errors call it."""
        return type(self).__name__.lower()


def is_printable_line(text: str) -> bool:
    """Whether `text` shows as it reads: no control characters, no surrogates, no text-direction tricks."""
    return not any(
        char in _BIDI_CONTROLS or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        for char in text
    )


def write_moment(moment: datetime) -> str:
    """`moment` as configs hold it: UTC, to the second.

    Raises:
        InvalidConfigError: it has no time zone, or fractions of a second.
    """
    if moment.tzinfo is None or moment.microsecond:
        raise InvalidConfigError(
            f"{moment.isoformat()} is not a time of a config",
            hint="give it a time zone and round it to the second",
        )
    return timestamps.write_seconds(moment)
