"""What a check of a registry found."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from memcube_registry.field_names import fields

LISTED_MAX: Final = 1000
"""How many findings are kept one by one; the others are counted only."""


class Weight(StrEnum):
    """What a finding means: something acknowledged is lost or wrong, or something may be tidied up."""

    DAMAGE = "damage"
    LEFTOVER = "leftover"


class Rule(StrEnum):
    """What is checked. Every rule stands in docs/guide/check-and-back-up.md."""

    DATABASE = "database"
    BLOB_MISSING = "blob-missing"
    BLOB_SIZE = "blob-size"
    BLOB_DIGEST = "blob-digest"
    BLOB_UNREADABLE = "blob-unreadable"
    MANIFEST_BYTES = "manifest-bytes"
    MANIFEST_FIELDS = "manifest-fields"
    MANIFEST_BLOBS = "manifest-blobs"
    MANIFEST_CHILDREN = "manifest-children"
    TAG = "tag"
    USAGE = "usage"
    LOG_ENTRIES = "log-entries"
    LOG_TILES = "log-tiles"
    LOG_CHECKPOINT = "log-checkpoint"
    LOG_SEEN = "log-seen"
    UNLINKED_BLOB = "unlinked-blob"
    ORPHAN_OBJECT = "orphan-object"
    ORPHAN_UPLOAD = "orphan-upload"
    LOST_UPLOAD = "lost-upload"

    @property
    def weight(self) -> Weight:
        """Whether a finding of this rule is damage."""
        leftovers = (self.UNLINKED_BLOB, self.ORPHAN_OBJECT, self.ORPHAN_UPLOAD, self.LOST_UPLOAD)
        return Weight.LEFTOVER if self in leftovers else Weight.DAMAGE


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: by which rule, where, and how."""

    rule: Rule
    what: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """The finding for programs."""
        return {
            "rule": self.rule.value,
            "weight": self.rule.weight.value,
            "what": self.what,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check: what was looked at, and what was found.

    `seed` drew the blobs that were read whole; None: all were.
    """

    checked: Mapping[str, int]
    counts: Mapping[Rule, int]
    findings: tuple[Finding, ...]
    seed: int | None

    @property
    def damage(self) -> int:
        """How many findings are damage."""
        return sum(n for rule, n in self.counts.items() if rule.weight is Weight.DAMAGE)

    @property
    def leftovers(self) -> int:
        """How many findings are leftovers."""
        return sum(n for rule, n in self.counts.items() if rule.weight is Weight.LEFTOVER)

    def to_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "seed": self.seed,
            "checked": fields(self.checked),
            "damage": self.damage,
            "leftovers": self.leftovers,
            "counts": {rule.value: count for rule, count in self.counts.items()},
            "findings": [finding.to_json() for finding in self.findings],
        }


class Findings:
    """Collects what is found and counts what was looked at. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checked: Counter[str] = Counter()
        self._counts: Counter[Rule] = Counter()
        self._listed: list[Finding] = []

    def add(self, rule: Rule, what: str, detail: str) -> None:
        """Note a finding."""
        with self._lock:
            self._counts[rule] += 1
            if len(self._listed) < LISTED_MAX:
                self._listed.append(Finding(rule, what, detail))

    def count(self, what: str, number: int = 1) -> None:
        """Note that `number` more of `what` were looked at."""
        with self._lock:
            self._checked[what] += number

    def report(self, seed: int | None) -> Report:
        """Everything that was noted so far."""
        with self._lock:
            return Report(dict(self._checked), dict(self._counts), tuple(self._listed), seed)
