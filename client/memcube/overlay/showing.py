"""Whether a record may be shown: not archived, not out of date, and as a search asks for."""

from __future__ import annotations

from datetime import datetime

from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record

from memcube.memories.plaintext import Filters
from memcube.mounting.sources import may_be_shown


def is_shown(record: Record, filters: Filters, now: datetime) -> bool:
    """Whether `record` is active and valid at `now`, and passes `filters`."""
    sensitivity = SENSITIVITIES.index(record.sensitivity or SENSITIVITIES[0])
    return (
        may_be_shown(record, now)
        and set(filters.tags) <= set(record.tags)
        and (not filters.types or record.type in filters.types)
        and filters.subject in (None, record.subject)
        and sensitivity <= SENSITIVITIES.index(filters.sensitivity)
    )
