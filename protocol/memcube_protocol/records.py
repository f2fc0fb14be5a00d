"""Plaintext memories, one JSON object a line (docs/spec/records.md).

    {"created_at":"2026-01-13T20:51:42Z","id":"m-1","tags":["diet"],"text":"Ada is vegetarian.","type":"preference"}

`parse_record` takes any strict JSON, so that people can write records by hand; `write_record` gives
the canonical line (RFC 8785) that shards are made of.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import field, fields
from functools import partial
from operator import attrgetter
from typing import Any, Final, Protocol, runtime_checkable

from memcube_protocol import canonical_json, limits, timestamps
from memcube_protocol.errors import InvalidError, InvalidRecordError, MemcubeError
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.paths import require_safe
from memcube_protocol.values import frozen

TYPES: Final = frozenset(
    {
        "context",
        "event",
        "fact",
        "goal",
        "instruction",
        "preference",
        "procedure",
        "relationship",
        "skill",
    }
)
"""The types of MIP; any other one carries the prefix of who defined it: `acme:recipe`."""

STATUSES: Final = frozenset({"active", "pending", "archived", "deleted"})
"""`pending` is being reconciled with others; `archived` and `deleted` are never retrieved."""

ID_CHARS: Final = 200
LIST_ITEMS: Final = 1024
NAME_CHARS: Final = 1024
_ID: Final = re.compile(r'[^\s\x00-\x20\x7f"<>\[\]\\^`{|}]{1,200}')
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What counts as printable, and is not seen: of two of them any message can be spelled."""
_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}:[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_SYSTEM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_HINT: Final = "see docs/spec/records.md for every field of a record"


@frozen(kw_only=True)
class Source:
    """Where a memory comes from: the system, the conversation in it, a URI, how, and by whom."""

    system: str | None = None
    conversation: str | None = None
    uri: str | None = None
    method: str | None = None
    author: str | None = None


@frozen(kw_only=True)
class Relation:
    """A typed edge to the record `target`; `valid_from` and `valid_to` are canonical times."""

    type: str
    target: str
    valid_from: str | None = None
    valid_to: str | None = None


@frozen(kw_only=True)
class Record:
    """One plaintext memory. Times are canonical text (`timestamps`), absent fields None or empty.

    `id` is stable across versions and unique in its memory; `confidence` lies between 0 and 1;
    `expires_at` ends its use, `valid_to` its truth; `extensions` keeps, per system, what has no
    place above. `attachments` are paths in the cube.

    Raises:
        InvalidRecordError: a field breaks its rule.
    """

    id: str
    text: str
    type: str = "fact"
    subject: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    valid_from: str | None = None
    valid_to: str | None = None
    recorded_at: str | None = None
    expires_at: str | None = None
    source: Source | None = None
    tags: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()
    confidence: float | None = None
    sensitivity: str | None = None
    status: str | None = None
    version: int | None = None
    supersedes: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    extensions: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, Mapping[str, Any]]
    )

    def __post_init__(self) -> None:
        for (name, check), value in zip(_CHECKS, _VALUES(self), strict=True):
            if value is not None and value is not _EMPTY:
                check(value, name)


def parse_record(line: bytes | bytearray | memoryview, *, canonical: bool = False) -> Record:
    """The record that one line holds; a final newline is allowed unless it must be `canonical`.

    Raises:
        LimitExceededError: more than 1 MiB.
        InvalidJsonError: not one object of strict JSON.
        InvalidRecordError: an unknown field, or one that breaks its rule; or not `canonical`.
    """
    if len(line) > limits.RECORD_BYTES:
        limits.require_at_most("record", len(line), limits.RECORD_BYTES)
    values = canonical_json.parse_object(line, what="record")
    if canonical and ("type" not in values or _write(values) != line):
        raise _invalid("it is not in the canonical form that write_record gives")
    for name, value in values.items():
        if name not in _NAMES:
            raise InvalidRecordError(
                f"record field {name[:80]!r} is unknown",
                hint="keep fields of other systems under extensions.<system>",
            )
        if value is None:
            raise _invalid(f"{name} is null: leave the field out")
        read = _READERS.get(name)
        if read is not None:
            values[name] = read(value, name)
    if "id" not in values or "text" not in values:
        raise _invalid("a record has at least an id and a text")
    return Record(**values)


def write_record(record: Record) -> bytes:
    """The canonical line of `record` (RFC 8785), without a newline; absent fields are left out.

    Raises:
        LimitExceededError: more than 1 MiB.
        InvalidJsonError: an extension holds what JSON cannot.
    """
    line = _write(to_json(record))
    if len(line) > limits.RECORD_BYTES:
        limits.require_at_most(f"record {record.id!r}", len(line), limits.RECORD_BYTES)
    return line


def _write(values: Mapping[str, Any]) -> bytes:
    """RFC 8785, by the faster encoder where both agree: no floats but a plain confidence."""
    confidence = values.get("confidence", 1)
    spelled_alike = type(confidence) is int or (
        type(confidence) is float and _LEAST_ALIKE <= confidence < 1
    )
    if spelled_alike and "extensions" not in values:
        return _ENCODE(values).encode()
    return canonical_json.dump(values)


def to_json(record: Record) -> dict[str, Any]:
    """The JSON object of `record`; absent fields are left out."""
    value = {
        name: item
        for (name, _), item in zip(_CHECKS, _VALUES(record), strict=True)
        if item is not None and item is not _EMPTY and item != {}
    }
    if record.source is not None:
        value["source"] = _plain(record.source)
    if record.relations:
        value["relations"] = [_plain(relation) for relation in record.relations]
    if record.confidence in (0, 1):
        value["confidence"] = int(record.confidence or 0)
    return value


@runtime_checkable
class BinarySource(Protocol):
    """Something to read bytes from, such as a file opened in binary mode."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


def read_lines(
    source: BinarySource | Iterable[bytes], *, what: str = "records", unique: bool = True
) -> Iterator[Record]:
    """Records of JSON Lines, one at a time; `what` names the source in errors.

    `source` is a binary file or pieces of its content, cut anywhere. Blank lines are skipped.
    With `unique`, the ids seen so far are kept in memory; sorting finds repeated ones as well.

    Raises:
        LimitExceededError: a line of more than 1 MiB.
        InvalidJsonError, InvalidRecordError: naming the line; a repeated id too.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(split_lines(source, what=what), 1):
        if not line or line.isspace():
            continue
        try:
            record = parse_record(line)
        except MemcubeError as error:
            raise type(error)(f"{what}, line {number}: {error}", hint=error.hint) from None
        if unique and (first := seen.setdefault(record.id, number)) != number:
            raise InvalidRecordError(
                f"{what}, line {number}: id {record.id!r} stands in line {first} already",
                hint="give every record an id of its own",
            )
        yield record


def split_lines(
    source: BinarySource | Iterable[bytes], *, what: str = "records"
) -> Iterator[bytes]:
    """Lines of `source` without their newlines; memory is bounded by one piece and one record.

    Raises:
        LimitExceededError: a line of more than 1 MiB.
    """
    pending: list[bytes] = []
    pending_bytes = number = 0
    for piece in _pieces(source):
        first, *lines = piece.split(b"\n")
        for line in lines:
            number += 1
            limits.require_at_most(
                f"{what}, line {number}", pending_bytes + len(first), limits.RECORD_BYTES
            )
            yield b"".join((*pending, first))
            pending, pending_bytes, first = [], 0, line
        pending.append(first)
        pending_bytes += len(first)
        limits.require_at_most(f"{what}, line {number + 1}", pending_bytes, limits.RECORD_BYTES)
    if pending_bytes:
        yield b"".join(pending)


def _pieces(source: BinarySource | Iterable[bytes]) -> Iterable[bytes]:
    # A file is asked for pieces of its content: iterating it would give lines without a bound.
    if isinstance(source, BinarySource):
        return iter(partial(source.read, 256 * limits.KIB), b"")
    return source


def require_id(text: object, what: str = "id") -> None:
    """Refuse what is not a record id: 1 to 200 visible characters, NFC, no quotes or brackets.

    Raises:
        InvalidRecordError: naming `what`.
    """
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise _invalid(f"{what} {str(text)[:80]!r} is not 1 to {ID_CHARS} visible characters")
    if not text.isascii() and (
        not (unicodedata.is_normalized("NFC", text) and text.isprintable())
        or _INVISIBLE.search(text)
    ):
        raise _invalid(f"{what} {text[:80]!r} is not in normal form C, or holds hidden characters")


def _text(value: object, name: str) -> None:
    if not isinstance(value, str) or not value:
        raise _invalid(f"{name} is not a non-empty string")


def _short_text(value: object, name: str) -> None:
    if not isinstance(value, str) or not value or len(value) > NAME_CHARS:
        raise _invalid(f"{name} is not a string of 1 to {NAME_CHARS} characters")


def _type(value: object, name: str) -> None:
    if not isinstance(value, str) or (value not in TYPES and not _TYPE.fullmatch(value)):
        raise InvalidRecordError(
            f"{name} {str(value)[:80]!r} is unknown",
            hint=f"use {', '.join(sorted(TYPES))}, or your own with a prefix such as acme:recipe",
        )


def _time(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise _invalid(f"{name} is not a string")
    try:
        timestamps.require_canonical(value, name)
    except InvalidError as error:
        raise InvalidRecordError(str(error), hint=error.hint) from None


def _one_of(allowed: Collection[str], value: object, name: str) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise _invalid(f"{name} {str(value)[:80]!r} is not one of {', '.join(sorted(allowed))}")


def _confidence(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _invalid(f"{name} {str(value)[:80]} is not a number from 0 to 1")


def _version(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(f"{name} is not an integer")
    if not 1 <= value <= canonical_json.MAX_SAFE_INTEGER:
        raise _invalid(f"{name} {value} does not lie between 1 and 2^53 - 1")


def _each(check: Callable[[object, str], None], values: object, name: str) -> None:
    if not isinstance(values, tuple) or len(values) > LIST_ITEMS:
        raise _invalid(f"{name} is not a list of at most {LIST_ITEMS} items")
    for value in values:
        check(value, name)
    if len(set(values)) != len(values):
        raise _invalid(f"{name} holds an item twice")


def _path(value: object, name: str) -> None:
    _text(value, name)
    require_safe(str(value))


def _source(value: object, name: str) -> None:
    if not isinstance(value, Source) or value == Source():
        raise _invalid(f"{name} is not an object with at least one field")
    for part in _PARTS[Source]:
        item = getattr(value, part)
        if item is not None:
            _short_text(item, f"{name}.{part}")


def _relation(value: object, name: str) -> None:
    if not isinstance(value, Relation):
        raise _invalid(f"an item of {name} is not a relation")
    _short_text(value.type, f"{name}.type")
    require_id(value.target, f"{name}.target")
    for part in ("valid_from", "valid_to"):
        if (item := getattr(value, part)) is not None:
            _time(item, f"{name}.{part}")


def _extensions(value: object, name: str) -> None:
    if not isinstance(value, Mapping):
        raise _invalid(f"{name} is not an object")
    for system, content in value.items():
        if not isinstance(system, str) or not _SYSTEM.fullmatch(system):
            raise _invalid(f"{name} holds {str(system)[:80]!r}, which is not a system's name")
        if not isinstance(content, Mapping):
            raise _invalid(f"{name}.{system} is not an object")


def _read_list(value: object, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise _invalid(f"{name} is not a list with items: leave an empty one out")
    return tuple(value)


def _read_relations(value: object, name: str) -> tuple[Relation, ...]:
    return tuple(_read_fields(Relation, item, name) for item in _read_list(value, name))


def _read_fields(kind: type[Any], value: object, name: str) -> Any:
    if not isinstance(value, dict):
        raise _invalid(f"{name} is not an object")
    known = _PARTS[kind]
    for key, item in value.items():
        if key not in known or item is None:
            raise _invalid(f"{name} holds the unknown or null field {key[:80]!r}")
    if kind is Relation and not {"type", "target"} <= value.keys():
        raise _invalid(f"an item of {name} has a type and a target")
    return kind(**value)


def _plain(value: Source | Relation) -> dict[str, str]:
    items = ((part, getattr(value, part)) for part in _PARTS[type(value)])
    return {name: item for name, item in items if item is not None}


def _invalid(why: str) -> InvalidRecordError:
    return InvalidRecordError(f"not an acceptable record: {why}", hint=_HINT)


_CHECKS: Final[tuple[tuple[str, Callable[[Any, str], None]], ...]] = (
    ("id", require_id),
    ("text", _text),
    ("type", _type),
    ("subject", _short_text),
    ("created_at", _time),
    ("updated_at", _time),
    ("valid_from", _time),
    ("valid_to", _time),
    ("recorded_at", _time),
    ("expires_at", _time),
    ("source", _source),
    ("tags", partial(_each, _short_text)),
    ("entities", partial(_each, _short_text)),
    ("relations", partial(_each, _relation)),
    ("confidence", _confidence),
    ("sensitivity", partial(_one_of, SENSITIVITIES)),
    ("status", partial(_one_of, STATUSES)),
    ("version", _version),
    ("supersedes", partial(_each, require_id)),
    ("attachments", partial(_each, _path)),
    ("extensions", _extensions),
)
_NAMES: Final = frozenset(name for name, _ in _CHECKS)
_VALUES: Final = attrgetter(*(name for name, _ in _CHECKS))
_EMPTY: Final = ()
_PARTS: Final[dict[type[Any], tuple[str, ...]]] = {
    kind: tuple(part.name for part in fields(kind)) for kind in (Source, Relation)
}
_READERS: Final[dict[str, Callable[[object, str], Any]]] = {
    "source": partial(_read_fields, Source),
    "relations": _read_relations,
    **dict.fromkeys(("tags", "entities", "supersedes", "attachments"), _read_list),
}
_LEAST_ALIKE: Final = 1e-4
_ENCODE: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode
"""Equal to RFC 8785 for records without extensions: ASCII keys, and floats that both spell alike."""
