"""Reading big JSON files item by item: memory is bounded by one item, not by the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from memcube_protocol.errors import InvalidJsonError, LimitExceededError, NotFoundError

ITEM_CHARS: Final = 32 * 1024 * 1024
_PIECE_CHARS: Final = 1024 * 1024
_SPACE: Final = " \t\r\n"
_AFTER: Final = frozenset(",:]} \t\r\n")


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """Items of the JSON file `path`, as (key, item).

    Of a list, every item with an empty key; of an object, every item of its lists, and every other
    value, with the key where it stands.

    Raises:
        NotFoundError: there is no such file.
        InvalidJsonError: it is not JSON in UTF-8, or neither a list nor an object.
        LimitExceededError: an item of more than 32 Mi characters.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _Scanner(file, path.name).items()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", hint="look at the folder's path") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _invalid(path.name, str(error)) from None


class _Scanner:
    def __init__(self, file: TextIO, what: str) -> None:
        self._text = file
        self._what = what
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._ended = False

    def items(self) -> Iterator[tuple[str, Any]]:
        start = self._peek()
        if start == "[":
            for item in self._list():
                yield "", item
        elif start == "{":
            yield from self._object()
        else:
            raise _invalid(self._what, "it is neither a list nor an object")
        if self._peek():
            raise _invalid(self._what, "something follows its end")

    def _object(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        if self._peek() == "}":
            return self._take("}")
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise _invalid(self._what, "a key is not a string")
            self._take(":")
            if self._peek() == "[":
                for item in self._list():
                    yield key, item
            else:
                yield key, self._value()
            if self._peek() == "}":
                return self._take("}")
            self._take(",")

    def _list(self) -> Iterator[Any]:
        self._take("[")
        if self._peek() == "]":
            return self._take("]")
        while True:
            yield self._value()
            if self._peek() == "]":
                return self._take("]")
            self._take(",")

    def _value(self) -> Any:
        """The value that begins here; more is read until it is whole."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except ValueError as error:
                if self._ended:
                    raise _invalid(self._what, str(error)) from None
            else:
                # A number may go on in the next piece, after its point as well.
                if self._ended or self._buffer[end : end + 1] in _AFTER:
                    self._at = end
                    return value
            self._fill(max(_PIECE_CHARS, len(self._buffer) - self._at))

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                return ""
            self._fill(_PIECE_CHARS)

    def _take(self, wanted: str) -> None:
        if (found := self._peek()) != wanted:
            raise _invalid(self._what, f"{wanted!r} is missing where {found!r} stands")
        self._at += 1

    def _fill(self, chars: int) -> None:
        if len(self._buffer) - self._at > ITEM_CHARS:
            raise LimitExceededError(
                f"an item of {self._what} is longer than {ITEM_CHARS} characters",
                hint="split it into smaller items",
            )
        piece = self._text.read(chars)
        self._ended = not piece
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0


def _invalid(what: str, why: str) -> InvalidJsonError:
    return InvalidJsonError(
        f"{what} is not acceptable JSON: {why[:200]}", hint="export it once more from its system"
    )
