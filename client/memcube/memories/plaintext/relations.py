"""Records by their relations: what a record points to, and what points to it, step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Final

from memcube_protocol import timestamps
from memcube_protocol.errors import NotFoundError
from memcube_protocol.records import Record, Relation
from memcube_protocol.values import frozen

DEPTH: Final = 8
"""Most steps that are followed."""
Find = Callable[[str], Record]
Pointing = Callable[[str], Iterator[Record]]
"""Gives the records that have a relation to an id."""


@frozen
class Neighbour:
    """A record, the relation that leads to it from the record `via`, and how many steps away it is.

    `incoming` says that the relation is the neighbour's own, and points back.
    """

    record: Record
    relation: str
    via: str
    distance: int
    incoming: bool = False


def neighbours(
    start: Record,
    find: Find,
    pointing: Pointing,
    *,
    allowed: Callable[[Record], bool],
    now: datetime,
    types: Collection[str] = (),
    depth: int = 1,
) -> Iterator[Neighbour]:
    """Records around `start`, the nearest first, each once; relations may form cycles.

    Relations of other `types`, if some are given, or outside their validity at `now` are not followed,
    nor are records that are not `allowed`.
    """
    seen, ring = {start.id}, [start]

    def leads_on(record_id: str, relation: Relation) -> bool:
        of_type = not types or relation.type in types
        return record_id not in seen and of_type and _holds(relation, now)

    for distance in range(1, min(depth, DEPTH) + 1):
        following: list[Record] = []
        for at in ring:
            for record, relation, incoming in _edges(at, find, pointing, leads_on):
                seen.add(record.id)
                if not allowed(record):
                    continue
                following.append(record)
                yield Neighbour(record, relation.type, at.id, distance, incoming)
        ring = following


def _edges(
    at: Record, find: Find, pointing: Pointing, leads_on: Callable[[str, Relation], bool]
) -> Iterator[tuple[Record, Relation, bool]]:
    """Records one step from `at`; read only where `leads_on` says so, as thousands may lead to the same."""
    for relation in at.relations:
        if not leads_on(relation.target, relation):
            continue
        try:
            yield find(relation.target), relation, False
        except NotFoundError:
            continue  # a target may lie outside of the cube
    for record in pointing(at.id):
        for relation in record.relations:
            if relation.target == at.id and leads_on(record.id, relation):
                yield record, relation, True


def _holds(relation: Relation, now: datetime) -> bool:
    begins, ends = relation.valid_from, relation.valid_to
    begun = begins is None or timestamps.moment(begins) <= now
    return begun and (ends is None or now < timestamps.moment(ends))
