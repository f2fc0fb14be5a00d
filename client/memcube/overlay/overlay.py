"""The overlay: remembering, forgetting and searching in a cube folder of one's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import Any, Final, Self

from memcube_protocol import limits, timestamps
from memcube_protocol.errors import InvalidRecordError, NotFoundError
from memcube_protocol.records import Record, Source
from memcube_protocol.vectors import indexed_text

from memcube.memories.plaintext.filters import Filters, allows
from memcube.memories.plaintext.hit import Hit
from memcube.memories.plaintext.question import weights_of
from memcube.mounting.forgotten import ForgottenRecord
from memcube.overlay.copies import copies_of
from memcube.overlay.segments import Segments, make_durable
from memcube.overlay.term_index import TermIndex
from memcube.packing.draft import FILE_NAME, Draft
from memcube.packing.kinds import name_of_folder
from memcube.packing.templates import agent_config
from memcube.store import Store, files

TEXT_BYTES: Final = 64 * limits.KIB
"""One memory; what is longer is a document, and belongs into a cube that is built from it."""
RECORDS: Final = 20_000
"""Records of one overlay: they are kept in memory, and read at every start."""
BYTES: Final = 64 * limits.MIB
"""What their files hold together, before the last record."""

SYSTEM: Final = "memcube"
METHOD: Final = "remembered"


class Overlay:
    """The memories that an agent writes itself, in a cube folder. Use `open`.

    Safe for several threads and processes: each change is on the disk before it is acknowledged,
    and each call sees what others have changed before it.
    """

    def __init__(
        self,
        folder: Path,
        draft: Draft,
        *,
        agent: str | None,
        store: Store | None,
        clock: Callable[[], datetime],
    ) -> None:
        self.folder = folder
        self.name = draft.name
        self._agent = agent
        self._store = store
        self._clock = clock
        self._segments = Segments(folder)
        self._lock = RLock()
        self._records: dict[str, Record] = {}
        self._said: dict[bytes, str] = {}
        self._index = TermIndex()

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        name: str | None = None,
        agent: str | None = None,
        store: Store | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """The overlay in `folder`, which is made where it is absent.

        `name` is the cube's in a new folder, by default the folder's own; `agent` the author of
        what is remembered. With a `store`, forgetting says which cubes there hold the record still.

        Raises:
            InvalidConfigError, InvalidRecordError, InvalidJsonError, LimitExceededError: the folder
                holds what is no cube.
            StorageError: it cannot be read or made, is a link, or others can write it.
        """
        root = Path(folder).absolute()
        make_durable(root)
        files.require_ours(root)
        segments = Segments(root)
        with segments.changing():
            content = files.read_file(root / FILE_NAME, limits.CONFIG_BYTES)
            if content is None:
                content = agent_config(name or name_of_folder(root)).encode()
                Draft.parse(content)
                files.replace_file(root / FILE_NAME, content)
        overlay = cls(root, Draft.parse(content), agent=agent, store=store, clock=clock)
        overlay._look()
        return overlay

    def remember(
        self,
        text: str,
        *,
        type: str | None = None,  # noqa: A002 - the field's own name
        tags: Sequence[str] | None = None,
        agent: str | None = None,
        conversation: str | None = None,
        uri: str | None = None,
        replaces: str | None = None,
        **fields: Any,
    ) -> Record:
        """The record of `text`, on the disk when this returns.

        What is known already, of the same type and subject, is not written twice. The record called
        `replaces`, if it is there, goes in the same step. `agent` wins over that of the overlay;
        `fields` are further ones of `Record`, such as subject or valid_to; None leaves one out.

        Raises:
            InvalidRecordError: a field breaks its rule; nothing is written.
            LimitExceededError: more than 64 KiB, or 20 000 records or 64 MiB already.
            ConflictError: other processes kept the folder busy for half a minute.
            DiskFullError, ReadOnlyError, StorageError: it is not kept.
        """
        now = self._clock()
        record = Record(
            id=_new_id(now),
            text=_require_said(text),
            type=type or "fact",
            tags=tuple(dict.fromkeys(tags or ())),
            created_at=timestamps.write(now),
            recorded_at=timestamps.write(now),
            source=Source(
                system=SYSTEM,
                method=METHOD,
                author=agent or self._agent,
                conversation=conversation,
                uri=uri,
            ),
            **fields,
        )
        with self._lock, self._segments.changing():
            self._look()
            known = self._records.get(self._said.get(_fingerprint(record), ""))
            if replaces in self._records:
                self._require_bytes()
                self._segments.replace(replaces, record)
            elif known is not None and allows(Filters(), known, now):
                return known
            else:
                self._require_room()
                self._segments.append(record)
            self._look()
        return record

    def forget(self, record_id: str) -> ForgottenRecord:
        """Remove the record; what is said of copies is exact for the cubes in the local store.

        Raises:
            NotFoundError: the folder holds no such record.
            ConflictError, DiskFullError, ReadOnlyError, StorageError: it is not removed.
        """
        with self._lock, self._segments.changing():
            self._look()
            record = self._find(record_id)
            self._segments.remove(record_id)
            self._look()
        if self._store is None:
            return ForgottenRecord(record)
        return ForgottenRecord(record, copies_of(self._store, self.name, record_id))

    def read(self, record_id: str) -> Record:
        """The record called `record_id`.

        Raises:
            NotFoundError: the folder holds none that may be shown.
        """
        with self._lock:
            self._look()
            record = self._find(record_id)
        if not allows(Filters(), record, self._clock()):
            raise NotFoundError(
                f"record {record_id} of the overlay {self.name} is archived or out of date",
                hint="it can be forgotten; its dates stand in the folder",
            )
        return record

    def records(self) -> Iterator[Record]:
        """All records that may be shown now, sorted by id."""
        with self._lock:
            self._look()
            shown, now = sorted(self._records.items()), self._clock()
        return (record for _, record in shown if allows(Filters(), record, now))

    def search(
        self,
        query: str,
        limit: int = 10,
        filters: Filters | None = None,
        *,
        now: datetime | None = None,
    ) -> list[Hit]:
        """Up to `limit` records, best first, as a cube's own index gives them: by their words."""
        filters, now = filters or Filters(), now or self._clock()
        hits: list[Hit] = []
        with self._lock:
            self._look()
            for name, score in self._index.ranked(weights_of(query, len(self._index))):
                if len(hits) >= limit:
                    break
                if allows(filters, self._records[name], now):
                    hits.append(Hit(self._records[name], score, self.name))
        return hits

    def close(self) -> None:
        """Nothing to do: no file stays open between two calls."""

    def _require_bytes(self) -> None:
        limits.require_at_most(str(self.folder), self._segments.size_bytes, BYTES)

    def _require_room(self) -> None:
        self._require_bytes()
        limits.require_at_most(str(self.folder), len(self._records) + 1, RECORDS, unit="records")

    def _find(self, record_id: str) -> Record:
        if record_id not in self._records:
            raise NotFoundError(
                f"the overlay {self.name} holds no record {record_id[:80]!r}",
                hint="records of mounted cubes can be read, but not forgotten",
            )
        return self._records[record_id]

    def _look(self) -> None:
        """Take in what is different in the folder."""
        with self._lock:
            fresh, gone = self._segments.look()
            for record_id in (*gone, *(record.id for record in fresh)):
                old = self._records.pop(record_id, None)
                if old is not None and self._said.get(_fingerprint(old)) == record_id:
                    del self._said[_fingerprint(old)]
                self._index.remove(record_id)
            for record in fresh:
                self._records[record.id] = record
                self._said[_fingerprint(record)] = record.id
                self._index.add(record.id, indexed_text(record))


def _new_id(now: datetime) -> str:
    """Sorted by time, so that memories of one day lie beside each other in a pushed cube."""
    moment = now.astimezone(UTC)
    return f"m-{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z-{secrets.token_hex(4)}"


def _require_said(text: str) -> str:
    """`text`, if it says something.

    Raises:
        InvalidRecordError: nothing but spaces.
        LimitExceededError: more than 64 KiB.
    """
    if not text.strip():
        raise InvalidRecordError("the memory is empty", hint="say what is to be remembered")
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    limits.require_at_most("the memory", size_bytes, TEXT_BYTES)
    return text


def _fingerprint(record: Record) -> bytes:
    said = "\0".join((record.type, record.subject or "", record.text))
    return sha256(said.encode("utf-8", "surrogatepass")).digest()
