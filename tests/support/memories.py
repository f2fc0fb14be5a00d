"""Records for tests: Hypothesis strategies, and a handful made by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st
from memcube_protocol import timestamps
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import STATUSES, TYPES, Record, Relation, Source

TEXTS = st.text(min_size=1, max_size=30)
IDS = st.from_regex(r"[A-Za-z0-9._:/#~-]{1,24}", fullmatch=True) | st.sampled_from(
    ["记忆", "é-1", "😀"]
)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(  # noqa: DTZ001
    timestamps.write
)
SAFE = 2**53 - 1
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.floats(-1e6, 1e6) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


def several(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, max_size=3, unique=True).map(tuple)


RELATIONS = st.builds(
    Relation, type=TEXTS, target=IDS, valid_from=optional(TIMES), valid_to=optional(TIMES)
)
SOURCES = st.builds(
    Source,
    system=TEXTS,
    conversation=optional(TEXTS),
    uri=optional(TEXTS),
    method=optional(TEXTS),
    author=optional(TEXTS),
)
RECORDS = st.builds(
    Record,
    id=IDS,
    text=TEXTS,
    type=st.sampled_from(sorted(TYPES)) | st.just("acme:recipe"),
    subject=optional(TEXTS),
    created_at=optional(TIMES),
    updated_at=optional(TIMES),
    valid_from=optional(TIMES),
    valid_to=optional(TIMES),
    recorded_at=optional(TIMES),
    expires_at=optional(TIMES),
    source=optional(SOURCES),
    tags=several(TEXTS),
    entities=several(TEXTS),
    relations=several(RELATIONS),
    confidence=optional(st.floats(0, 1) | st.integers(0, 1)),
    sensitivity=optional(st.sampled_from(SENSITIVITIES)),
    status=optional(st.sampled_from(sorted(STATUSES))),
    version=optional(st.integers(1, SAFE)),
    supersedes=several(IDS),
    attachments=several(st.sampled_from(["a.png", "b/c.pdf"])),
    extensions=st.dictionaries(
        st.sampled_from(["acme", "memos", "x-1"]),
        st.dictionaries(TEXTS, VALUES, max_size=3),
        max_size=2,
    ),
)


def note(number: int, text: str = "", **fields: object) -> Record:
    """A record with an id that sorts by its number."""
    return Record(id=f"note-{number:07d}", text=text or f"Note number {number}.", **fields)  # type: ignore[arg-type]
