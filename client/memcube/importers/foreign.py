"""A record of another system, taken apart field by field so that nothing of it is lost.

What has a place in a record is taken; what is left goes under `extensions.<system>`. Where a value
had to be changed to fit (a scale, a missing time zone), the original is kept there as well.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from memcube_protocol import timestamps
from memcube_protocol.canonical_json import MAX_SAFE_INTEGER
from memcube_protocol.errors import InvalidError, InvalidRecordError
from memcube_protocol.records import ID_CHARS, LIST_ITEMS, NAME_CHARS, require_id

from memcube.importers.report import ImportReport

_DEPTH: Final = 40
_SECRET: Final = re.compile(
    r"(?:.*[_-])?(?:api[_-]?keys?|pass(?:word|wd|phrase)|secret(?:[_-]?key)?|access[_-]?key"
    r"|private[_-]?key|(?:access|refresh|auth|bearer|session)[_-]?token|authorization|credentials?)",
    re.IGNORECASE,
)
_URL_SECRET: Final = re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]+@")
_ZONE: Final = re.compile(r"(?:[Zz]|[+-]\d\d:?\d\d)$")


class Foreign:
    """The fields of one foreign record, taken once each; `extensions` holds the rest."""

    def __init__(self, system: str, values: Mapping[str, Any], report: ImportReport) -> None:
        self._left = dict(values)
        self._system = system
        self._report = report

    def take(self, key: str) -> Any:
        """The value of `key`, which then counts as placed; None where it is absent."""
        return self._left.pop(key, None)

    def keep(self, key: str, value: Any) -> None:
        """Put `value` back, to be kept under extensions."""
        self._left[key] = value

    def text(self, key: str) -> str | None:
        """A short line of text; what is not one stays among the extensions."""
        value = self._left.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARS:
            return None
        del self._left[key]
        return clean(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Distinct short lines of text; anything else stays among the extensions."""
        value = self._left.get(key)
        if not isinstance(value, list) or not value or len(value) > LIST_ITEMS:
            return ()
        if not all(isinstance(item, str) and 0 < len(item) <= NAME_CHARS for item in value):
            return ()
        items = tuple(dict.fromkeys(map(clean, value)))
        if len(items) == len(value):
            del self._left[key]
        return items

    def time(self, key: str) -> str | None:
        """A time in canonical form; one without a zone is read as UTC, and the original kept."""
        value = self._left.get(key)
        if not isinstance(value, str) or not value:
            return None
        zoned = value if _ZONE.search(value) else f"{value}Z"
        try:
            time = timestamps.normalise(zoned)
        except InvalidError:
            self._report.note(f"{key} is not a time everywhere: kept as it is under extensions")
            return None
        if zoned == value:
            del self._left[key]
        else:
            self._report.note(f"{key} has no time zone: read as UTC")
        return time

    def confidence(self, key: str) -> float | None:
        """A number from 0 to 1; one up to 100 is taken for a percentage, and the original kept."""
        value = self._left.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            return None
        if value <= 1:
            del self._left[key]
            return value
        self._report.note(f"{key} above 1 is read as a percentage")
        return value / 100

    def extensions(self, record_id: str) -> dict[str, Mapping[str, Any]]:
        """What was not taken, as `extensions` of the record `record_id`, without secrets."""
        left = {key: value for key, value in self._left.items() if value is not None}
        if not left:
            return {}
        return {self._system: storable(without_secrets(left, self._report, record_id))}


def record_id(text: str) -> str:
    """`text` as a record id: as it is where it may be one, else percent-encoded, else its hash."""
    text = unicodedata.normalize("NFC", clean(text))
    for candidate in (text, quote(text, safe="/:@!$&'()*+,;=~#?")):
        try:
            require_id(candidate)
        except InvalidRecordError:
            continue
        return candidate
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{quote(text, safe='/')[: ID_CHARS - 50]}~{digest[:32]}"


def id_of_text(text: str) -> str:
    """An id for a record that has none: a hash of its text, so that it is the same next time."""
    return f"sha256-{hashlib.sha256(clean(text).encode()).hexdigest()[:32]}"


def clean(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold, replaced."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def storable(value: Any, depth: int = 0) -> Any:
    """`value` as canonical JSON can hold it: huge integers and very deep parts become text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return (
            value
            if math.isfinite(value) and not MAX_SAFE_INTEGER < abs(value) < 1e21
            else str(value)
        )
    if depth > _DEPTH:
        return clean(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return [storable(item, depth + 1) for item in value]
    return {clean(key): storable(item, depth + 1) for key, item in value.items()}


def without_secrets(value: Any, report: ImportReport, where: str) -> Any:
    """`value` without passwords and keys; each is reported by its place `where`, never by its value."""
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, item in value.items():
            place = f"{where}.{key}"[:200]
            if item and isinstance(item, str) and _SECRET.fullmatch(key):
                report.drop_secret(place)
            else:
                kept[key] = without_secrets(item, report, place)
        return kept
    if isinstance(value, list):
        return [without_secrets(item, report, f"{where}[]"[:200]) for item in value]
    if isinstance(value, str) and _URL_SECRET.search(value):
        report.drop_secret(f"{where} (user and password of a URL)")
        return _URL_SECRET.sub("", value)
    return value
