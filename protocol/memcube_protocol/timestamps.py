"""Points in time as text: RFC 3339 in UTC, in one canonical form (docs/spec/records.md, "Times").

`2026-01-13T20:51:42Z` or `2026-01-13T20:51:42.39487Z`: capital T and Z, years 0001 to 9999, one to
nine digits of a second without a trailing zero, no leap second. One instant has one spelling.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from memcube_protocol.errors import InvalidError

_CANONICAL: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{0,8}[1-9])?Z", re.ASCII)
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII
)


def is_canonical(text: str) -> bool:
    """Whether `text` is a time in the canonical form and on the calendar."""
    if not _CANONICAL.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return True


def require_canonical(text: str, what: str = "time") -> str:
    """`text` itself, if it is a canonical time.

    Raises:
        InvalidError: another form, or no such day or hour.
    """
    if not is_canonical(text):
        raise _invalid(f"{what} {text[:64]!r} is not a canonical UTC time")
    return text


def moment(text: str) -> datetime:
    """The instant of a canonical time, cut to microseconds: for comparisons.

    Raises:
        InvalidError: not a canonical time.
    """
    return datetime.fromisoformat(require_canonical(text)[:-1][:26]).replace(tzinfo=UTC)


def read_seconds(text: str) -> datetime:
    """The instant of a canonical time in whole seconds, such as `2026-01-31T12:00:00Z`.

    Raises:
        InvalidError: not a canonical time, or one with a fraction of a second.
    """
    if "." in text:
        raise _invalid(f"{text[:64]!r} is not in whole seconds")
    return moment(text)


def write_seconds(at: datetime) -> str:
    """What `read_seconds` reads: an aware datetime, cut to the second.

    Raises:
        InvalidError: as `write`.
    """
    return write(at.replace(microsecond=0))


def whole_seconds(at: datetime) -> datetime:
    """`at` in UTC without its fraction of a second, as signed statements hold it."""
    return at.astimezone(UTC).replace(microsecond=0)


def write(at: datetime) -> str:
    """Canonical text of an aware datetime.

    Raises:
        InvalidError: `at` has no time zone, or lies beyond the year 9999 in UTC.
    """
    if at.tzinfo is None:
        raise _invalid("a time without a time zone is ambiguous")
    try:
        utc = at.astimezone(UTC)
    except OverflowError:
        raise _invalid(f"{at.isoformat()} lies outside the years 1 to 9999") from None
    return _spell(utc, f"{utc.microsecond:06d}")


def normalise(text: str) -> str:
    """Canonical form of any RFC 3339 time, nanoseconds kept; a space for the T is understood.

    Raises:
        InvalidError: not RFC 3339, or no such day or hour.
    """
    match = _RFC3339.fullmatch(text)
    if not match:
        raise _invalid(f"{text[:64]!r} is not a time with a zone (RFC 3339)")
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    try:
        utc = datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid(f"{text[:64]!r} is on no calendar") from None
    return _spell(utc, fraction or "")


def _spell(utc: datetime, fraction: str) -> str:
    digits = fraction.rstrip("0")
    whole = utc.replace(microsecond=0, tzinfo=None).isoformat()
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"


def _invalid(what: str) -> InvalidError:
    return InvalidError(
        what, hint="write times as 2026-01-31T12:00:00Z: RFC 3339, UTC, no trailing zeros"
    )
