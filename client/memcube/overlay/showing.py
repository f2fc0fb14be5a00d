"""Whether a record may be shown: not archived, not out of date, and as a search asks for."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from memcube_protocol import timestamps
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record

from memcube.memories.plaintext import Filters

_HIDDEN: Final = frozenset({"archived", "deleted"})


def is_shown(record: Record, filters: Filters, now: datetime) -> bool:
    """Whether `record` is active and valid at `now`, and passes `filters`."""
    sensitivity = SENSITIVITIES.index(record.sensitivity or SENSITIVITIES[0])
    return (
        record.status not in _HIDDEN
        and _is_valid(record, now)
        and set(filters.tags) <= set(record.tags)
        and (not filters.types or record.type in filters.types)
        and filters.subject in (None, record.subject)
        and sensitivity <= SENSITIVITIES.index(filters.sensitivity)
    )


def _is_valid(record: Record, now: datetime) -> bool:
    begins = record.valid_from
    ends = [time for time in (record.valid_to, record.expires_at) if time]
    return (begins is None or timestamps.moment(begins) <= now) and all(
        now < timestamps.moment(time) for time in ends
    )
