"""Searching the records of a pulled cube: BM25 over the protocol's tokenizer, by Qdrant in this process.

An index belongs to one cube digest. It is built beside its place, then renamed into it, so that
readers see a whole one or none; it can be deleted at any time and is built anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from memcube_protocol import text
from memcube_protocol.content import BlobReader
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, StorageError
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.media_types import RECORDS
from memcube_protocol.oci import Manifest
from memcube_protocol.records import Record, parse_record
from memcube_protocol.shards import read_shards

from memcube.memories import plaintext_build, plaintext_context
from memcube.memories.plaintext_build import FOREVER, VECTOR, Records
from memcube.store import files

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

_FORMAT: Final = 2
_NOTE: Final = "index.json"
_NOTE_BYTES: Final = 64 * 1024
_LIMIT: Final = 1000
_QUERY_TERMS: Final = 64


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that answers a query, and its BM25 score."""

    record: Record
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a record must have to be found: all of `tags`, one of `types`, this `subject`.

    `sensitivity` is the highest that may be shown.
    """

    tags: Sequence[str] = ()
    types: Sequence[str] = ()
    subject: str | None = None
    sensitivity: str = SENSITIVITIES[-1]

    def __post_init__(self) -> None:
        if self.sensitivity not in SENSITIVITIES:
            raise InvalidError(
                f"sensitivity {self.sensitivity[:60]!r} is unknown",
                hint=f"use one of: {', '.join(SENSITIVITIES)}",
            )


def records_of(manifest: Manifest, blobs: BlobReader) -> Iterator[Record]:
    """Records of a cube, shard by shard, each checked before its first record is given.

    Raises:
        NotFoundError: a shard has not been pulled.
        IntegrityError, InvalidRecordError, LimitExceededError: a shard is damaged or hostile.
    """
    layers = (layer for layer in manifest.layers if layer.media_type == RECORDS)
    return read_shards((blobs.read(layer.digest), layer) for layer in layers)


class PlaintextIndex:
    """The records of one cube, ready to be searched. Use `open`; close it after use."""

    def __init__(self, shard: EdgeShard, note: dict[str, Any]) -> None:
        self._edge = plaintext_build.engine()
        self._shard = shard
        self._note = note

    @classmethod
    def open(cls, root: Path, cube: Digest, records: Records) -> Self:
        """The index of `cube` below the folder `root`, built from `records` where it is absent.

        Raises:
            MissingDependencyError: qdrant-edge-py is not installed.
            StorageError: the disk refuses, or the folder belongs to somebody else.
            MemcubeError: whatever reading the records raises; nothing is left behind then.
        """
        plaintext_build.engine()
        files.make_folder(root)
        place = root / f"{cube.algorithm}-{cube.hex}"
        found = cls._load(place, cube)
        if found is not None:
            return found
        with _building(root, place.name):
            found = cls._load(place, cube)
            return cls._make(place, cube, records) if found is None else found

    @classmethod
    def _load(cls, place: Path, cube: Digest) -> Self | None:
        """The index at `place`, or nothing if it is absent, damaged, or of another make."""
        if not place.is_symlink() and not place.exists():
            return None
        _require_own(place)
        note = _read_note(place)
        if note is None or note.get("cube") != str(cube) or note.get("format") != _FORMAT:
            return None
        try:
            with plaintext_build.engine_failures("opened"):
                shard = plaintext_build.engine().EdgeShard.load(str(place / "shard"))
        except StorageError:
            return None
        return cls(shard, note)

    @classmethod
    def _make(cls, place: Path, cube: Digest, records: Records) -> Self:
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
        try:
            files.make_folder(temporary)
            files.make_folder(temporary / "shard")
            found = asdict(plaintext_build.build(temporary / "shard", records))
            note = {"format": _FORMAT, "cube": str(cube), **found}
            files.replace_file(temporary / _NOTE, json.dumps(note).encode())
            with files.storage_errors(f"{place} cannot be made"):
                shutil.rmtree(place, ignore_errors=True)
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        made = cls._load(place, cube)
        if made is None:
            raise StorageError(
                f"the index just built at {place} cannot be read", hint="look at the disk's health"
            )
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._shard.close()

    def __len__(self) -> int:
        return int(self._note["records"])

    def search(
        self,
        query: str,
        limit: int = 10,
        filters: Filters | None = None,
        *,
        now: datetime | None = None,
    ) -> list[Hit]:
        """Up to `limit` records, best first: those with all terms, then those with some.

        Records that are archived, deleted, expired, or not valid at `now` are left out.
        """
        terms = text.query_terms(query)[:_QUERY_TERMS]
        limit = min(limit, _LIMIT)
        if not terms or limit < 1:
            return []
        conditions = self._conditions(filters or Filters(), now or datetime.now(UTC))
        dimensions, values = plaintext_build.merge_terms((term, 1.0) for term in terms)
        every = [self._matches("terms", dimension) for dimension in dimensions]
        hits = self._query(dimensions, values, limit, [*every, *conditions])
        if len(hits) < limit and len(dimensions) > 1:
            hits |= {
                position: hit
                for position, hit in self._query(dimensions, values, limit, conditions).items()
                if position not in hits
            }
        return list(hits.values())[:limit]

    def context(
        self,
        query: str,
        budget_tokens: int,
        *,
        filters: Filters | None = None,
        now: datetime | None = None,
        limit: int = 50,
        count_tokens: plaintext_context.CountTokens | None = None,
    ) -> str:
        """The best records for `query` as text for a prompt, in at most `budget_tokens` tokens.

        Between delimiters that no record can close, with ids to cite; empty if nothing is found.
        """
        hits = self.search(query, limit, filters, now=now)
        return plaintext_context.render((hit.record for hit in hits), budget_tokens, count_tokens)

    def _query(
        self, dimensions: list[int], values: list[float], limit: int, must: list[Any]
    ) -> dict[int, Hit]:
        edge = self._edge
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(edge.SparseVector(dimensions, values), using=VECTOR),
            filter=edge.Filter(must=must) if must else None,
            with_payload=["line", "checksum"],
        )
        with plaintext_build.engine_failures("searched"):
            points = self._shard.query(request)
        return {int(point.id): Hit(_record(point.payload or {}), point.score) for point in points}

    def _conditions(self, filters: Filters, now: datetime) -> list[Any]:
        edge = self._edge
        conditions = [self._matches("tags", tag) for tag in filters.tags]
        if filters.types:
            kinds = edge.MatchAny(list(filters.types))
            conditions.append(edge.FieldCondition("type", match=kinds))
        if filters.subject is not None:
            conditions.append(self._matches("subject", filters.subject))
        if filters.sensitivity != SENSITIVITIES[-1]:
            highest = edge.RangeFloat(lte=SENSITIVITIES.index(filters.sensitivity))
            conditions.append(edge.FieldCondition("sensitivity", range=highest))
        if self._note["timed"]:
            at = now.timestamp()
            begun, ends = edge.RangeFloat(gte=-FOREVER, lte=at), edge.RangeFloat(gt=at)
            conditions.append(edge.FieldCondition("from", range=begun))
            conditions.append(edge.FieldCondition("until", range=ends))
        return conditions

    def _matches(self, field: str, value: str | int) -> Any:
        return self._edge.FieldCondition(field, match=self._edge.MatchValue(value))


def _record(payload: dict[str, Any]) -> Record:
    line = str(payload.get("line", "")).encode()
    if payload.get("checksum") != plaintext_build.checksum(line):
        raise plaintext_build.damaged("a record of the index is damaged")
    return parse_record(line)


@contextmanager
def _building(root: Path, name: str) -> Iterator[None]:
    """One builder at a time of the index `name`; what a killed one left is removed."""
    with files.storage_errors(f"{root} cannot be locked"):
        descriptor = files.open_file(root / f".{name}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in root.glob(f".{name}.*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _require_own(place: Path) -> None:
    """Refuse an index that others could have put there: the engine trusts what it opens."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StorageError(
            f"{place} is not a private folder of yours, so it is not opened",
            hint="delete it: the index is built anew",
        )


def _read_note(place: Path) -> dict[str, Any] | None:
    content = files.read_file(place / _NOTE, _NOTE_BYTES)
    try:
        note = json.loads(content or b"")
    except ValueError:
        return None
    return note if isinstance(note, dict) else None
