"""What a record must be to be found, and the fields of an index that decide it.

Conditions are values of their own, so that every engine asks the same thing. A record without a field
passes whatever excludes by it: most records have no times, and only those that do are indexed by them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from memcube_protocol import timestamps
from memcube_protocol.errors import InvalidError
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record
from memcube_protocol.values import frozen

HIDDEN: Final = frozenset({"archived", "deleted"})
"""Statuses of records that are never retrieved."""

TYPE: Final = "type"
SUBJECT: Final = "subject"
TAGS: Final = "tags"
SOURCE: Final = "source"
RELATES: Final = "relates"
SENSITIVITY: Final = "sensitivity"
FROM: Final = "from"
UNTIL: Final = "until"
EXPIRES: Final = "expires"
NAMES: Final = (TYPE, SUBJECT, TAGS, SOURCE, RELATES)
"""Fields that hold text, of which one must be equal."""
TIMES: Final = (FROM, UNTIL, EXPIRES)
"""Fields that hold seconds since 1970."""


@frozen
class OneOf:
    """The field holds one of `values`."""

    field: str
    values: tuple[str, ...]


@frozen
class AtMost:
    """The field is at most `value`."""

    field: str
    value: float


@frozen
class MoreThan:
    """The field is more than `value`."""

    field: str
    value: float


Condition = OneOf | AtMost | MoreThan


@frozen
class Conditions:
    """What must hold of a record, and what must not."""

    must: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()

    def within(self, held: Collection[str]) -> Conditions | None:
        """These, as far as the fields that entries have, `held`, decide; None if they exclude all."""
        if any(condition.field not in held for condition in self.must):
            return None
        return Conditions(self.must, tuple(one for one in self.must_not if one.field in held))

    def allow(self, record: Record) -> bool:
        """Whether they hold of `record`, and it is neither archived nor deleted."""
        if record.status in HIDDEN:
            return False
        fields = fields_of(record)
        holds = all(_holds(condition, fields) for condition in self.must)
        return holds and not any(_holds(condition, fields) for condition in self.must_not)


@frozen(kw_only=True)
class Filters:
    """What a record must have to be found: all of `tags`, one of `types`, this `subject`.

    One of `sources` must be its source's system, conversation, URI or author. `sensitivity` is the
    highest that may be shown. `valid_at` asks for what was, or will be, true at that time instead of
    now; what has expired now stays out either way.

    Raises:
        InvalidError: an unknown sensitivity, a time without a zone, or one text where several may stand.
    """

    tags: Sequence[str] = ()
    types: Sequence[str] = ()
    subject: str | None = None
    sources: Sequence[str] = ()
    sensitivity: str = SENSITIVITIES[-1]
    valid_at: datetime | None = None

    def __post_init__(self) -> None:
        for what in ("tags", "types", "sources"):
            require_several(what, getattr(self, what))
        if self.sensitivity not in SENSITIVITIES:
            raise InvalidError(
                f"sensitivity {self.sensitivity[:60]!r} is unknown",
                hint=f"use one of: {', '.join(SENSITIVITIES)}",
            )
        if self.valid_at is not None and self.valid_at.tzinfo is None:
            raise InvalidError(
                f"{self.valid_at} has no time zone", hint="use datetime.now(UTC) and its like"
            )

    def conditions(self, now: datetime) -> Conditions:
        """These filters at `now`."""
        named = {TYPE: self.types, SOURCE: self.sources}
        must: list[Condition] = [OneOf(TAGS, (tag,)) for tag in self.tags]
        must += [OneOf(field, tuple(values)) for field, values in named.items() if values]
        if self.subject is not None:
            must.append(OneOf(SUBJECT, (self.subject,)))
        today, asked = now.timestamp(), (self.valid_at or now).timestamp()
        outside: list[Condition] = [
            MoreThan(FROM, asked),
            AtMost(UNTIL, asked),
            AtMost(EXPIRES, today),
        ]
        if self.sensitivity != SENSITIVITIES[-1]:
            outside.append(MoreThan(SENSITIVITY, SENSITIVITIES.index(self.sensitivity)))
        return Conditions(tuple(must), tuple(outside))


def require_several(what: str, names: Collection[str]) -> None:
    """Refuse a text in the place of a list: its letters would be taken for names, and match nothing.

    Raises:
        InvalidError: it is one.
    """
    if isinstance(names, str):
        raise InvalidError(f"{what} {names[:60]!r} is a text, not a list", hint=f"write {what}=[…]")


def fields_of(record: Record) -> dict[str, Any]:
    """The fields of `record` that conditions ask for."""
    source = record.source
    said = (source.system, source.conversation, source.uri, source.author) if source else ()
    names: dict[str, Iterable[str | None]] = {
        TYPE: [record.type],
        SUBJECT: [record.subject],
        TAGS: record.tags,
        SOURCE: dict.fromkeys(said),
        RELATES: dict.fromkeys(relation.target for relation in record.relations),
    }
    fields: dict[str, Any] = {name: [one for one in names[name] if one] for name in NAMES}
    fields[SENSITIVITY] = SENSITIVITIES.index(record.sensitivity or SENSITIVITIES[0]) or None
    times = (record.valid_from, record.valid_to, record.expires_at)
    for name, time in zip(TIMES, times, strict=True):
        fields[name] = timestamps.moment(time).timestamp() if time else None
    return {name: value for name, value in fields.items() if value not in ([], None)}


def allows(filters: Filters, record: Record, now: datetime) -> bool:
    """Whether `record` may be shown under `filters`: what an engine decides, for a single record."""
    return filters.conditions(now).allow(record)


def _holds(condition: Condition, fields: dict[str, Any]) -> bool:
    value = fields.get(condition.field)
    if value is None:
        return False
    if isinstance(condition, OneOf):
        return not set(condition.values).isdisjoint(value)
    return value <= condition.value if isinstance(condition, AtMost) else value > condition.value
