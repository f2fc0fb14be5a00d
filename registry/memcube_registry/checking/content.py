"""Whether the store holds every blob, whole and with the bytes that its digest names.

Each blob's size is checked by reading its last byte. Those that are drawn, or all of them, are read
and hashed, several at once and in constant memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final, TypeAlias

from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError, StorageError
from sqlalchemy import func, select
from sqlmodel import col

from memcube_registry.blobs.models import Blob
from memcube_registry.checking.findings import Findings, Rule
from memcube_registry.database import Database
from memcube_registry.storage.interface import Reader, size_at

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What the database says of a blob. `is_lost`: its bytes are known to be lost, or were."""

    id: int
    digest: str
    size_bytes: int
    location: str
    is_lost: bool = False


Note: TypeAlias = Callable[[StoredBlob, bool], None]
"""Hears of a blob whether its bytes are lost."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How many blobs are read whole, drawn at random by `seed`; None: all."""

    count: int | None
    seed: int

    def drawn(self, total: int) -> frozenset[int] | None:
        """Positions, among `total` blobs, of those that are read; None: all."""
        if self.count is None or self.count >= total:
            return None
        return frozenset(random.Random(self.seed).sample(range(total), self.count))  # noqa: S311 - a repeatable choice


def check_blobs(
    database: Database,
    store: Reader,
    sample: Sample,
    threads: int,
    findings: Findings,
    note: Note,
) -> int | None:
    """Check every blob that the database knows. What is collected meanwhile is no finding.

    `note` is told, in any of the threads, of each blob that was read whole, or whose bytes are lost.

    Returns:
        The seed of the draw; None where nothing was drawn, since every blob was read whole.
    """
    with database.read() as session:
        total = session.execute(select(func.count()).select_from(Blob)).scalar_one()
    drawn, position = sample.drawn(total), 0
    checker = _Checker(database, store, findings, note)
    with ThreadPoolExecutor(threads, thread_name_prefix="fsck") as pool:
        for page in pages(database):
            whole = [
                drawn is None or position + at in drawn or blob.is_lost
                for at, blob in enumerate(page)
            ]
            position += len(page)
            for _ in pool.map(checker.check, page, whole):
                pass
    return None if drawn is None else sample.seed


def pages(database: Database) -> Iterator[Sequence[StoredBlob]]:
    """Every blob, in portions, each read in a transaction of its own."""
    last = 0
    while True:
        query = (
            select(
                col(Blob.id),
                col(Blob.digest),
                col(Blob.size_bytes),
                col(Blob.location),
                col(Blob.lost_at).is_not(None),
            )
            .where(col(Blob.id) > last)
            .order_by(col(Blob.id))
            .limit(_PAGE)
        )
        with database.read() as session:
            page = [StoredBlob(*row) for row in session.execute(query)]
        if not page:
            return
        yield page
        last = page[-1].id


def is_known(database: Database, blob: StoredBlob) -> bool:
    """Whether its row is still there: else it was collected since it was listed."""
    query = select(col(Blob.location)).where(col(Blob.id) == blob.id)
    with database.read() as session:
        return session.execute(query).scalar_one_or_none() == blob.location


@dataclass(frozen=True, slots=True)
class _Checker:
    database: Database
    store: Reader
    findings: Findings
    note: Note

    def check(self, blob: StoredBlob, whole: bool) -> None:
        """Check one blob: its size, and its bytes if `whole`."""
        self.findings.count("blobs")
        try:
            if not self._has_its_size(blob):
                self.note(blob, True)
            elif whole:
                self.note(blob, not self._has_its_bytes(blob))
        except NotFoundError:
            if is_known(self.database, blob):
                self.findings.add(Rule.BLOB_MISSING, blob.digest, f"no object {blob.location}")
                self.note(blob, True)
        except StorageError as error:
            self.findings.add(Rule.BLOB_UNREADABLE, blob.digest, str(error))

    def _has_its_size(self, blob: StoredBlob) -> bool:
        found = size_at(self.store, blob.location, blob.size_bytes)
        if found == blob.size_bytes:
            return True
        held = "fewer" if found < blob.size_bytes else "more"
        detail = f"object {blob.location} has {held} than {blob.size_bytes} bytes"
        self.findings.add(Rule.BLOB_SIZE, blob.digest, detail)
        return False

    def _has_its_bytes(self, blob: StoredBlob) -> bool:
        expected = Digest.parse(blob.digest)
        hasher = expected.hasher()
        with closing(self.store.read(blob.location)) as pieces:
            for piece in pieces:
                hasher.update(piece)
                self.findings.count("bytes", len(piece))
        actual = Digest.finish(expected.algorithm, hasher)
        self.findings.count("blobs_read")
        if actual != expected:
            self.findings.add(
                Rule.BLOB_DIGEST, blob.digest, f"object {blob.location} has digest {actual}"
            )
        return actual == expected
