"""What a publisher's scan found, as people read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memcube_protocol.config import ACTIVATION
from memcube_signing.predicates import scan as scans
from memcube_signing.predicates.scan import (
    NOT_RECOMPUTED,
    SEVERITIES,
    Coverage,
    Finding,
    Recomputed,
    Scan,
)

from memcube.trust.attested import values_of

if TYPE_CHECKING:
    from memcube.consuming.verifying import Verified


def attested_scan(verified: Verified) -> Scan | None:
    """The latest scan of a verified cube by its publisher; None where there is none."""
    publisher = verified.verdict.publisher
    if publisher is None:
        return None
    found = values_of(scans.KIND, verified.attestations, verified.cube.digest, (publisher,))
    return scans.latest(one.value for one in found)


def opacity_of(verified: Verified, memory_id: str, text: str | None) -> str:
    """What is known of a KV cache beyond its fit: `text` is the source text that it carries."""
    path = f"{ACTIVATION}/{memory_id}/"
    scan = attested_scan(verified)
    for one in scan.recomputed if scan else ():
        if one.path.startswith(path):
            agrees = "its publisher computed it anew from its text"
            return agrees if one.agrees else "warning: its publisher found that its text DIFFERS"
    if text is None:
        return "opaque: without its source text nobody can read what it says"
    return "opaque: nobody compared it with the text beside it"


def scan_lines(found: Scan | None) -> list[str]:
    """What people read of a scan: one line, and one for each kind of finding that is not minor."""
    if found is None:
        return ["Scanned: no, as far as its publisher says"]
    by = f"{found.scanner} {found.scanner_version}, rules {found.rules_version}"
    counts = ", ".join(f"{check} {count}" for check, count in sorted(found.counts.items()) if count)
    return [
        f"Scanned: {counts or 'nothing found'} ({by})",
        *_worst(found.findings),
        *(_opaque_line(finding) for finding in found.findings if finding.rule == NOT_RECOMPUTED),
        *map(recomputed_line, found.recomputed),
    ]


def coverage_line(covered: Coverage) -> str:
    """What people read of how much a scan looked at."""
    return (
        f"Looked at {covered.read_bytes} of {covered.size_bytes} bytes: of {covered.files} files "
        f"{covered.sampled_files} by a sample, {covered.unread_files} (tensors, token ids) not"
    )


def recomputed_line(one: Recomputed) -> str:
    """What people read of a KV cache that was compared with its text."""
    verdict = "agrees with its text" if one.agrees else "DIFFERS from its text"
    how = ", ".join(f"{name} {value}" for name, value in sorted(one.environment.items()))
    measured = f"difference {one.difference}, tolerance {one.tolerance}"
    return f"Recomputed: {one.path} {verdict} ({measured}; {how})"


def _opaque_line(finding: Finding) -> str:
    return f"Opaque: {finding.path} was not compared with the text beside it"


def place_of(finding: Finding) -> str:
    """A finding as people read it, without what was found."""
    where = f"{finding.path}, {finding.place}" if finding.place else finding.path
    return f"{finding.rule} in {where}"


def _worst(findings: Sequence[Finding]) -> list[str]:
    """A warning for every rule of medium or high severity."""
    serious = [finding for finding in findings if SEVERITIES.index(finding.severity) >= 2]
    rules = Counter((finding.severity, finding.check, finding.rule) for finding in serious)
    first = {finding.rule: place_of(finding) for finding in reversed(serious)}
    return [
        f"warning: {severity} {check}: {first[rule]}"
        + (f" (and {count - 1} more)" if count > 1 else "")
        for (severity, check, rule), count in sorted(rules.items())
    ]
