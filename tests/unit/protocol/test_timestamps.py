from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import timestamps
from memcube_protocol.errors import InvalidError
from support.attempts import attempt

ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]
)
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)  # noqa: DTZ001


@settings(max_examples=100)
@given(MOMENTS)
def test_an_instant_has_one_spelling_that_is_read_back(at: datetime) -> None:
    text = timestamps.write(at)
    assert timestamps.is_canonical(text)
    assert timestamps.moment(text) == at
    assert timestamps.normalise(at.isoformat()) == text
    assert timestamps.normalise(text) == text


@settings(max_examples=200)
@given(st.text(max_size=30) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,10})?Z"))
def test_text_is_canonical_or_refused(text: str) -> None:
    result = attempt(lambda: timestamps.moment(text))
    assert isinstance(result, InvalidError) == (not timestamps.is_canonical(text))
    spelled = attempt(lambda: timestamps.normalise(text))
    assert isinstance(spelled, InvalidError) or timestamps.is_canonical(spelled)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-13",
        "2026-01-13T20:51:42",
        "2026-01-13T20:51:42+00:00",
        "2026-01-13T20:51:42.0Z",
        "2026-01-13T20:51:42.50Z",
        "2026-01-13T20:51:42.Z",
        "2026-01-13t20:51:42z",
        "2026-02-30T20:51:42Z",
        "2026-01-13T24:00:00Z",
        "2026-01-13T23:59:60Z",
        "0000-01-13T23:59:00Z",
        "2026-01-13T20:51:42.1234567891Z",
        "٢٠٢٦-01-13T20:51:42Z",
        "2026-01-13T20:51:42Z\n",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        timestamps.require_canonical(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2026-01-13T20:51:42.394870000+00:00", "2026-01-13T20:51:42.39487Z"),
        ("2026-01-13 20:51:42.123456789-01:30", "2026-01-13T22:21:42.123456789Z"),
        ("2026-01-13t20:51:42.000z", "2026-01-13T20:51:42Z"),
        ("2026-01-13T20:51:42+0200", "2026-01-13T18:51:42Z"),
    ],
)
def test_nanoseconds_and_zones_are_kept(text: str, canonical: str) -> None:
    assert timestamps.normalise(text) == canonical


def test_times_without_a_zone_or_beyond_the_calendar_are_refused() -> None:
    with pytest.raises(InvalidError, match="ambiguous"):
        timestamps.write(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidError):
        timestamps.write(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=3))))
    with pytest.raises(InvalidError):
        timestamps.normalise("9999-12-31T23:59:59-05:00")


@settings(max_examples=100)
@given(MOMENTS)
def test_whole_seconds_are_read_back_and_fractions_refused(at: datetime) -> None:
    second = timestamps.whole_seconds(at)
    text = timestamps.write_seconds(at)
    assert timestamps.read_seconds(text) == second
    assert second.tzinfo is UTC
    with pytest.raises(InvalidError, match="whole seconds"):
        timestamps.read_seconds(text.replace("Z", ".5Z"))
