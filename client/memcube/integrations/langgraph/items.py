"""Between LangGraph's items (a namespace, a key, a JSON object) and records.

An item is a record whose text is what can be searched for; namespace, key and value stand in its
extension `langgraph`. That extension is believed in the overlay alone: a cube that was bought would
otherwise put words into the namespaces of the user's graphs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from langgraph.store.base import PutOp, SearchItem
from langgraph.store.base.embed import get_text_at_path
from memcube_protocol import timestamps
from memcube_protocol.errors import ConflictError
from memcube_protocol.records import Record
from memcube_protocol.values import frozen

from memcube.integrations.plain_records import plain

Namespace = tuple[str, ...]

CUBES: Final = "cubes"
OVERLAY: Final = "overlay"
SYSTEM: Final = "langgraph"
"""The name of our extension of a record."""


@frozen
class Entry:
    """An item and the record that holds it; `searchable` is false for one put with `index=False`."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    record: Record
    created_at: datetime
    updated_at: datetime
    searchable: bool = True

    def item(self, score: float | None = None) -> SearchItem:
        """The item as LangGraph knows it."""
        return SearchItem(
            self.namespace, self.key, self.value, self.created_at, self.updated_at, score
        )


def cube_namespace(name: str) -> Namespace:
    """Where the records of the mounted cube `name` (its reference's text) are: labels have no periods."""
    return (CUBES, name.replace("%", "%25").replace(".", "%2E"))


def entry_of_cube(record: Record, name: str, released_at: datetime) -> Entry:
    """A record of the cube `name`, which was made at `released_at`, as an item."""
    return _plain_entry(record, cube_namespace(name), released_at)


def entry_of_overlay(record: Record) -> Entry:
    """A record of the overlay as the item that was put, or as one that was remembered otherwise."""
    put = record.extensions.get(SYSTEM)
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    if put is None or not _is_ours(put):
        return _plain_entry(record, (OVERLAY,), epoch)
    return Entry(
        tuple(put["namespace"]),
        put["key"],
        put["value"],
        record,
        timestamps.moment(put["created_at"]),
        _moment(record.recorded_at, epoch),
        searchable=put["searchable"],
    )


def fields_of(op: PutOp, created_at: datetime) -> dict[str, Any]:
    """The record's fields for what `op` puts, all but its text."""
    return {
        "subject": subject_of(op.namespace, op.key),
        "extensions": {
            SYSTEM: {
                "namespace": list(op.namespace),
                "key": op.key,
                "value": dict(op.value or {}),
                "created_at": timestamps.write(created_at),
                "searchable": op.index is not False,
            }
        },
    }


def subject_of(namespace: Namespace, key: str) -> str:
    """The subject of one item's record and of no other's: equal words under two keys stay two items."""
    return "/".join(quote(part, safe=" ") for part in (*namespace, key))


def text_of(value: Mapping[str, Any], index: Literal[False] | list[str] | None) -> str:
    """What of an item is searched: the paths of `index`, its only text, or all of it as JSON."""
    if index:
        found = [text for path in index for text in get_text_at_path(dict(value), path)]
        if any(text.strip() for text in found):
            return "\n".join(found)
    only = next(iter(value.values())) if len(value) == 1 else None
    if isinstance(only, str) and only.strip():
        return only
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def require_own(namespace: Namespace) -> None:
    """Refuse to put into a namespace that is not the graphs'.

    Raises:
        ConflictError: it belongs to a mounted cube, or to what was remembered otherwise.
    """
    if namespace[0] in (CUBES, OVERLAY):
        raise ConflictError(
            f"nothing can be put into {'/'.join(namespace)[:200]}: {CUBES} and {OVERLAY} are memcube's",
            hint="mounted cubes do not change; put items into a namespace of your own",
        )


def _plain_entry(record: Record, namespace: Namespace, otherwise: datetime) -> Entry:
    created = _moment(record.created_at or record.recorded_at, otherwise)
    updated = _moment(record.updated_at, created)
    return Entry(namespace, record.id, plain(record), record, created, updated)


def _moment(text: str | None, otherwise: datetime) -> datetime:
    return otherwise if text is None else timestamps.moment(text)


def _is_ours(put: Mapping[str, Any]) -> bool:
    """Whether `put` is what `fields_of` writes: a person may have edited the folder."""
    return set(put) == {"namespace", "key", "value", "created_at", "searchable"} and all(
        _checks(put)
    )


def _checks(put: Mapping[str, Any]) -> Iterator[bool]:
    namespace = put["namespace"]
    yield isinstance(namespace, list | tuple) and bool(namespace)
    yield all(isinstance(label, str) and label for label in namespace)
    yield namespace[0] not in (CUBES, OVERLAY)
    yield isinstance(put["key"], str)
    yield isinstance(put["value"], dict)
    yield isinstance(put["searchable"], bool)
    yield isinstance(put["created_at"], str) and timestamps.is_canonical(put["created_at"])
