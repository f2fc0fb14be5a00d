"""A record that was found or read."""

from __future__ import annotations

from memcube_protocol.records import Record
from memcube_protocol.values import frozen


@frozen
class Hit:
    """A record, how well it answers, and where it is of: `cube` is the reference's text, or the overlay's name.

    `score` orders the hits of one search in one cube: BM25's where words alone are searched, else
    between 0 and 1. Those of two cubes are not comparable. An index that stands for itself knows no cube.
    """

    record: Record
    score: float
    cube: str = ""
