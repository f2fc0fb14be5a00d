"""Scanning the files of a cube, each by what it is, into one statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from memcube_protocol import limits, media_types
from memcube_protocol.activation import KvManifest
from memcube_protocol.content import BlobReader, read_verified
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.errors import MemcubeError
from memcube_protocol.shards import decompress
from memcube_signing.predicates.reading import whole_seconds
from memcube_signing.predicates.scan import CHECKS, FINDINGS, SEVERITIES, Finding, Scan

from memcube.scanning.files import HEAD_BYTES, scan_file
from memcube.scanning.text import Match, scan_lines, scan_text
from memcube.scanning.versions import RULES_VERSION

SCANNER: Final = "memcube"
_TEXTS: Final = {media_types.CARD, media_types.LORA_CONFIG}
_PLACE_CHARS: Final = 200
_PLACES: Final = 100
"""Places that are told of one rule in one file; all are counted."""
Found = tuple[Finding, int]
"""A finding, and how many like it there are: 1, or those beyond the places that are kept."""


def scan_cube(cube: Cube, blobs: BlobReader, *, name: str, version: str, now: datetime) -> Scan:
    """What the rules find in `cube`, whose layers `blobs` holds; `version` is that of memcube.

    Raises:
        NotFoundError: a layer is not there.
        IntegrityError, InvalidRecordError: a layer is damaged.
    """
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    for file in cube.files:
        for finding, count in _file(file, blobs):
            counts[finding.check] += count
            findings.append(finding)
    findings.sort(key=lambda found: (-SEVERITIES.index(found.severity), found))
    return Scan(
        subject=cube.digest,
        name=name,
        scanner=SCANNER,
        scanner_version=version,
        rules_version=RULES_VERSION,
        scanned_at=whole_seconds(now),
        checks=CHECKS,
        findings=tuple(findings[:FINDINGS]),
        counts={check: counts[check] for check in CHECKS},
    )


def _file(file: CubeFile, blobs: BlobReader) -> Iterator[Found]:
    if file.media_type == media_types.RECORDS:
        raw = decompress(blobs.read(file.digest), file.descriptor())
        yield from _counted(scan_lines(raw), file.path)
    elif file.media_type in _TEXTS:
        text = read_verified(blobs, file.digest, file.size).decode("utf-8", "replace")
        yield from _counted(scan_text(text), file.path)
    elif file.media_type == media_types.KV_MANIFEST:
        yield from _cache(file, read_verified(blobs, file.digest, file.size))
    elif file.media_type == media_types.ATTACHMENT:
        yield from _attachment(file, _head(blobs, file))


def _attachment(file: CubeFile, head: bytes) -> Iterator[Found]:
    for finding in scan_file(file.path, head):
        yield finding, 1
    if b"\x00" not in head:
        text = head.decode("utf-8", "replace")
        yield from _counted(scan_text(text), file.path)


def _cache(file: CubeFile, raw: bytes) -> Iterator[Found]:
    """A KV cache: its text if it carries one, else a note that nobody can read what it says."""
    try:
        text = KvManifest.parse(raw).source.text
    except MemcubeError:
        text = None
    if text is None:
        yield Finding("opaque-memory", "cache-without-source-text", "medium", file.path), 1
    else:
        yield from _counted(scan_text(text), file.path)


def _counted(matches: Iterable[Match], path: str) -> Iterator[Found]:
    """Findings of `matches`: one a place of each rule, and the rest only as a number."""
    places: Counter[tuple[str, str]] = Counter()
    rules: dict[str, tuple[str, str]] = {}
    for match in matches:
        rule = match.rule
        place = match.place[:_PLACE_CHARS] if match.place.isprintable() else ""
        places[rule.name, place] += 1
        rules[rule.name] = (rule.check, rule.severity)
    told: Counter[str] = Counter()
    beyond: Counter[str] = Counter()
    for (name, place), count in places.items():
        check, severity = rules[name]
        told[name] += 1
        if told[name] <= _PLACES:
            yield Finding(check, name, severity, path, place), count
        else:
            beyond[name] += count
    for name, count in beyond.items():
        check, severity = rules[name]
        yield Finding(check, name, severity, path), count


def _head(blobs: BlobReader, file: CubeFile) -> bytes:
    """The first bytes of an attachment; the store hashed it when it came."""
    stop = min(file.size, HEAD_BYTES)
    return b"".join(blobs.read(file.digest, start=0, stop=stop))[: limits.MIB] if stop else b""
