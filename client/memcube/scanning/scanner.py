"""Scanning the files of a cube, each by what it is, into one statement."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from memcube_protocol import media_types
from memcube_protocol.content import BlobReader, read_verified
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.shards import decompress
from memcube_protocol.timestamps import whole_seconds
from memcube_protocol.values import frozen
from memcube_signing.predicates.scan import (
    CHECKS,
    FINDINGS,
    NOT_RECOMPUTED,
    SEVERITIES,
    Coverage,
    Finding,
    Scan,
)

from memcube.scanning.encodings import decoded
from memcube.scanning.files import HEAD_BYTES, SAMPLE_BYTES, needs_head, scan_file
from memcube.scanning.text import Match, scan_lines, scan_sample, scan_text
from memcube.scanning.versions import RULES_VERSION

if TYPE_CHECKING:
    from memcube_protocol.build import Build

SCANNER: Final = "memcube"
_TEXTS: Final = {media_types.CARD, media_types.LORA_CONFIG}
_PLACE_CHARS: Final = 200
_PLACES: Final = 100
"""Places that are told of one rule in one file; all are counted."""
WITHOUT_TEXT: Final = "cache-without-source-text"
Found = tuple[Finding, int]
"""A finding, and how many like it there are: 1, or those beyond the places that are kept."""


@frozen
class _Looked:
    """What was found in one file, and how many of its bytes were read."""

    found: tuple[Found, ...]
    read_bytes: int


class LayerScanner:
    """Looks at layers that `blobs` holds, one by one and at each once. Safe for several threads."""

    def __init__(self, blobs: BlobReader) -> None:
        self._blobs = blobs
        self._looked: dict[tuple[str, str, Digest], _Looked] = {}
        self._lock = threading.Lock()

    def findings(self, file: CubeFile) -> Iterator[Finding]:
        """What the rules find in `file`, which need not be part of a cube yet.

        Raises:
            NotFoundError: the layer is not there.
            IntegrityError, InvalidRecordError: it is damaged.
        """
        return (finding for finding, _ in self.look(file).found)

    def look(self, file: CubeFile) -> _Looked:
        """As `findings`, with what a statement counts."""
        key = (file.path, file.media_type, file.digest)
        with self._lock:
            known = self._looked.get(key)
        if known is None:
            found, read_bytes = _file(file, self._blobs)
            known = _Looked(tuple(found), read_bytes)
            with self._lock:
                self._looked[key] = known
        return known


def scan_cube(
    cube: Cube | Build, layers: LayerScanner, *, name: str, version: str, now: datetime
) -> Scan:
    """What the rules find in a cube or build whose `layers` can be seen; `version` is that of memcube.

    Raises:
        NotFoundError: a layer is not there.
        IntegrityError, InvalidRecordError: a layer is damaged.
    """
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    read: list[tuple[CubeFile, int]] = []
    for file in cube.files:
        looked = layers.look(file)
        read.append((file, looked.read_bytes))
        for finding, count in looked.found:
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
        coverage=_coverage(read),
    )


def _coverage(read: Sequence[tuple[CubeFile, int]]) -> Coverage:
    return Coverage(
        files=len(read),
        sampled_files=sum(0 < count < file.size for file, count in read),
        unread_files=sum(not count and bool(file.size) for file, count in read),
        size_bytes=sum(file.size for file, _ in read),
        read_bytes=sum(count for _, count in read),
    )


def _file(file: CubeFile, blobs: BlobReader) -> tuple[Iterable[Found], int]:
    """What is found in a file, and how many of its bytes are read for it."""
    if file.media_type == media_types.RECORDS:
        raw = decompress(blobs.read(file.digest), file.descriptor())
        return _counted(scan_lines(raw), file.path), file.size
    if file.media_type in _TEXTS:
        text = read_verified(blobs, file.digest, file.size).decode("utf-8", "replace")
        return _counted(scan_text(text), file.path), file.size
    if file.media_type == media_types.KV_MANIFEST:
        raw = read_verified(blobs, file.digest, file.size)
        return _cache(file, raw), file.size
    if file.media_type == media_types.ATTACHMENT:
        return _attachment(file, blobs)
    return (), 0


def _attachment(file: CubeFile, blobs: BlobReader) -> tuple[Iterable[Found], int]:
    """A text is read up to 1 MiB; of other data only a sample, for the rules are made for text."""
    head = _head(blobs, file, SAMPLE_BYTES)
    text = decoded(head)
    if text is not None or needs_head(head):
        head = _head(blobs, file, HEAD_BYTES)
        text = decoded(head)
    matches = scan_sample(head[:SAMPLE_BYTES]) if text is None else scan_text(text)
    told = [(finding, 1) for finding in scan_file(file.path, head)]
    return (*told, *_counted(matches, file.path)), len(head)


def _cache(file: CubeFile, raw: bytes) -> Iterator[Found]:
    """A KV cache: its text if it carries one; that the numbers say the same, nobody can read in them."""
    from memcube_protocol.activation import KvManifest

    try:
        text = KvManifest.parse(raw).source.text
    except MemcubeError:
        text = None
    if text is None:
        yield Finding("opaque-memory", WITHOUT_TEXT, "medium", file.path), 1
    else:
        yield Finding("opaque-memory", NOT_RECOMPUTED, "info", file.path), 1
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


def _head(blobs: BlobReader, file: CubeFile, size_bytes: int) -> bytes:
    """The first bytes of an attachment; the store hashed it when it came."""
    stop = min(file.size, size_bytes)
    return b"".join(blobs.read(file.digest, start=0, stop=stop))[:stop] if stop else b""
