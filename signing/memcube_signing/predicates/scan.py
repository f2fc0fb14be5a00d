"""Scan results: which checks ran over a cube, with which rules, and what they found.

A finding names a place and a rule and never repeats what was found: an attestation that quotes a
secret would publish it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

from memcube_signing.predicates.kind import Kind
from memcube_signing.predicates.reading import Reader, malformed
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://memcube.org/scan/v1"
CHECKS: Final = ("secrets", "personal-data", "prompt-injection", "unsafe-files", "opaque-memory")
NOT_RECOMPUTED: Final = "cache-not-recomputed"
"""The rule of a KV cache that carries its source text and was not compared with it."""
SEVERITIES: Final = ("info", "low", "medium", "high")
FINDINGS: Final = 1000
_RULE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
RECOMPUTED: Final = 256
_DECIMAL: Final = re.compile(r"(?:0|[1-9]\d{0,15})(?:\.\d{1,15})?(?:e[+-]\d{1,3})?|inf")
_FIELDS: Final = {
    *("scanner", "scannedAt", "checks", "findings", "counts", "coverage", "recomputed"),
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing found: by which check and rule, how bad, in which file, and where there.

    `place` says where in the file: a record's id, a line, a key. It never holds what was found.
    """

    check: str
    rule: str
    severity: str
    path: str
    place: str = ""

    def __post_init__(self) -> None:
        if self.check not in CHECKS or self.severity not in SEVERITIES:
            raise malformed(f"{self.check[:40]!r}, {self.severity[:40]!r} is no check and severity")
        if not _RULE.fullmatch(self.rule):
            raise malformed(f"{self.rule[:80]!r} is not the name of a rule")

    def to_json(self) -> dict[str, str]:
        """The JSON object of this finding."""
        value = {
            "check": self.check,
            "rule": self.rule,
            "severity": self.severity,
            "path": self.path,
        }
        return value | ({"place": self.place} if self.place else {})


@frozen
class Coverage:
    """How much was looked at: of `files`, so many by a sample of their beginning, so many not at all.

    What is not looked at are tensors and token ids, which the format itself checks. `read_bytes` of
    the `size_bytes` that all files have in the cube were read.
    """

    files: int
    sampled_files: int
    unread_files: int
    size_bytes: int
    read_bytes: int

    def __post_init__(self) -> None:
        if self.sampled_files + self.unread_files > self.files or self.read_bytes > self.size_bytes:
            raise malformed("its coverage is more than there is")

    def to_json(self) -> dict[str, int]:
        """The JSON object of this coverage."""
        return {
            "files": self.files,
            "sampledFiles": self.sampled_files,
            "unreadFiles": self.unread_files,
            "bytes": self.size_bytes,
            "readBytes": self.read_bytes,
        }


@frozen
class Recomputed:
    """A KV cache computed anew from its source text and compared, token by token.

    `difference` is the largest distance of a token's row from the computed one, as a share of the mean
    length of the rows of its tensor; the cache `agrees` if that is at most `tolerance`. Both are
    decimal texts. `environment` is what it was computed with: program versions, device, attention.
    """

    path: str
    base: str
    difference: str
    tolerance: str
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        for number in (self.difference, self.tolerance):
            if not _DECIMAL.fullmatch(number):
                raise malformed(f"{number[:40]!r} is not a decimal number from 0")

    @property
    def agrees(self) -> bool:
        """Whether the cache says what its text says, within the tolerance."""
        return float(self.difference) <= float(self.tolerance)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this comparison."""
        return {
            "path": self.path,
            "base": self.base,
            "difference": self.difference,
            "tolerance": self.tolerance,
            "environment": dict(self.environment),
        }


@frozen
class Scan:
    """What `scanner` (name and version), with the rules of `rules_version`, found in `subject`.

    `checks` are those that ran. `counts` says per check how many findings there were; `findings` may
    hold only the worst 1 000 of them. Of the KV caches only those in `recomputed` were compared with
    their texts.
    """

    subject: Digest
    name: str
    scanner: str
    scanner_version: str
    rules_version: str
    scanned_at: datetime
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    coverage: Coverage | None = None
    recomputed: tuple[Recomputed, ...] = ()

    def __post_init__(self) -> None:
        if len(self.recomputed) > RECOMPUTED:
            raise malformed(f"it holds more than {RECOMPUTED} comparisons")
        if len(self.findings) > FINDINGS:
            raise malformed(f"it holds more than {FINDINGS} findings")
        if not self.checks or not set(self.checks) <= set(CHECKS):
            raise malformed("it does not say which of the known checks ran")
        if self.counts.keys() != set(self.checks):
            raise malformed("its counts are not those of its checks")
        if not {finding.check for finding in self.findings} <= set(self.checks):
            raise malformed("it has a finding of a check that did not run")
        for check in self.checks:
            if sum(found.check == check for found in self.findings) > self.counts[check]:
                raise malformed(f"it counts fewer findings of {check} than it holds")

    @property
    def worst(self) -> str | None:
        """The highest severity among the findings; None where nothing was found."""
        return max((f.severity for f in self.findings), key=SEVERITIES.index, default=None)

    def to_statement(self) -> Statement:
        """The in-toto statement of this scan."""
        predicate: dict[str, Any] = {
            "scanner": {
                "name": self.scanner,
                "version": self.scanner_version,
                "rules": self.rules_version,
            },
            "scannedAt": timestamps.write_seconds(self.scanned_at),
            "checks": list(self.checks),
            "counts": dict(self.counts),
            "findings": [finding.to_json() for finding in self.findings],
        }
        if self.coverage:
            predicate["coverage"] = self.coverage.to_json()
        if self.recomputed:
            predicate["recomputed"] = [one.to_json() for one in self.recomputed]
        return Statement(self.name, self.subject, PREDICATE_TYPE, predicate)


def latest(scans: Iterable[Scan]) -> Scan | None:
    """The scan that counts: the latest; of two in one second the one that compared and found more."""
    return max(
        scans,
        key=lambda scan: (scan.scanned_at, len(scan.recomputed), sum(scan.counts.values())),
        default=None,
    )


def read(said: Statement) -> Scan:
    """The scan in a statement of its predicate type.

    Raises:
        InvalidStatementError: a field is missing, unknown or breaks its rule.
    """
    fields = Reader(said.predicate, "scan")
    fields.only(_FIELDS)
    scanner, counts = fields.table("scanner"), fields.table("counts")
    scanner.only({"name", "version", "rules"})
    checks = fields.texts("checks")
    return Scan(
        subject=said.subject,
        name=said.name,
        scanner=scanner.text("name"),
        scanner_version=scanner.text("version"),
        rules_version=scanner.text("rules"),
        scanned_at=fields.moment("scannedAt"),
        checks=checks,
        findings=tuple(map(_finding, fields.tables("findings"))),
        counts={name: counts.integer(name) for name in fields.mapping("counts")},
        coverage=_coverage(fields.table("coverage")) if fields.has("coverage") else None,
        recomputed=tuple(map(_recomputed, fields.tables("recomputed"))),
    )


def _coverage(fields: Reader) -> Coverage:
    names = ("files", "sampledFiles", "unreadFiles", "bytes", "readBytes")
    fields.only(names)
    return Coverage(*map(fields.integer, names))


def _recomputed(fields: Reader) -> Recomputed:
    fields.only(("path", "base", "difference", "tolerance", "environment"))
    environment = fields.table("environment")
    return Recomputed(
        fields.text("path"),
        fields.text("base"),
        fields.text("difference"),
        fields.text("tolerance"),
        {name: environment.text(name) for name in fields.mapping("environment")},
    )


def _finding(fields: Reader) -> Finding:
    fields.only({"check", "rule", "severity", "path", "place"})
    return Finding(
        fields.text("check"),
        fields.text("rule"),
        fields.text("severity"),
        fields.text("path"),
        fields.optional_text("place") or "",
    )


KIND: Final = Kind(PREDICATE_TYPE, read)
