"""The log as the routes use it: add, prove, show."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import sqlalchemy as sql
from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube_protocol.errors import (
    InvalidSettingError,
    MemcubeError,
    NotFoundError,
)
from memcube_signing.keys import PrivateKey
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import tiles
from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint
from memcube_signing.transparency.entry import TlogEntry
from memcube_signing.transparency.tiles import Tile
from sqlmodel import Session, col, func, select

from memcube_registry.batching import Batches
from memcube_registry.database import Database, table_of, utc_now
from memcube_registry.jobs.worker import Task
from memcube_registry.log.appending import Appender, Refused, current, read_tile
from memcube_registry.log.intake import Arrival, admitted
from memcube_registry.log.models import LogEntry, LoggedRelease
from memcube_registry.log.names import Names
from memcube_registry.log.submission import Submission
from memcube_registry.log.witnesses import Witnesses

BATCH: Final = 512
ASK_WITNESSES: Final = "ask-witnesses"
"""The kind of the periodic job."""

# Built once: an auditor asks for every bundle there is.
_ENTRIES: Final = table_of(LogEntry)
_BODIES, _NAME_TAGS = (
    sql.select(column)
    .where(_ENTRIES.c.number >= sql.bindparam("first"), _ENTRIES.c.number < sql.bindparam("end"))
    .order_by(_ENTRIES.c.number)
    for column in (_ENTRIES.c.body, _ENTRIES.c.name_tag)
)


@dataclass(frozen=True, slots=True)
class Preimage:
    """Where a statement behind leaves stands first for a cube, by whose rights it may be read."""

    repository: str
    number: int


class TransparencyLog:
    """The registry's one log. Safe for threads, and for several processes on one database."""

    def __init__(
        self,
        database: Database,
        seed: bytes,
        origin: str,
        witnesses: Witnesses,
        *,
        fixed: bool = False,
    ) -> None:
        """`seed` is the log key's; `origin` names a log that begins now; `fixed` insists on it."""
        self._database = database
        self._signer = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
        self.names = Names(hashlib.sha256(b"memcube-log-names\n" + seed).digest())
        self._witnesses = witnesses
        self._wanted, self._fixed = origin, fixed
        self._known: Appender | None = None
        adding = partial(self.add_all, is_own=True)
        self._adding: Batches[Submission, TlogEntry] = Batches(adding, BATCH)
        self._taking: Batches[Arrival, bytes] = Batches(self._take_all, BATCH)

    @property
    def has_witnesses(self) -> bool:
        """Whether somebody is to be asked for cosignatures."""
        return bool(self._witnesses)

    @property
    def key(self) -> NoteKey:
        """The log's name and key."""
        return self._appender().key

    def add(self, submission: Submission) -> TlogEntry:
        """The entry of a statement of the registry's own, in the log from now on: what is promised is on the disk.

        The same statement again has the entry that it had.

        Raises:
            ConflictError: another manifest has the place of this release.
            QuotaExceededError: its namespace fills twice as much of the log as its people may.
            UnavailableError: the database did not answer.
        """
        return self._adding.submit(submission).result()

    async def take(self, arrival: Arrival) -> bytes:
        """As `add`, for a request as it arrived; its entry as JSON.

        Raises:
            QuotaExceededError: its namespace fills as much of the log as it may.
            InvalidRequestError, InvalidJsonError, InvalidStatementError, SignatureInvalidError,
                LimitExceededError: see `submission.parse`.
            UnauthenticatedError, ForbiddenError, NotFoundError: not a cube that they may push to.
            ConflictError, UnavailableError: as `add`.
        """
        return await asyncio.wrap_future(self._taking.submit(arrival))

    def add_all(
        self, batch: Sequence[Submission], *, is_own: bool = False
    ) -> Sequence[TlogEntry | Refused]:
        """What becomes of each of `batch`, in one transaction."""
        now, appender = utc_now(), self._appender()
        outcomes = self._database.run(
            lambda session: appender.append(session, batch, now, is_own=is_own)
        )
        entry = next((one for one in outcomes if isinstance(one, TlogEntry)), None)
        if entry is None:
            return outcomes
        note = entry.checkpoint  # of all entries: they are proved against the tree after the batch
        if self._witnesses:
            note = self._witnesses.ask(self._database, note)
        timed = note.with_lines([self._time(note)])
        return [_seen(one, timed) if isinstance(one, TlogEntry) else one for one in outcomes]

    def checkpoint(self) -> SignedCheckpoint:
        """The newest checkpoint, cosigned by the log with the time of now."""
        with self._database.read() as session:
            note = self._appender().checkpoint(session)
        return note.with_lines([self._time(note)])

    def ask_again(self, task: Task) -> None:  # noqa: ARG002 - as every handler of a job
        """Ask those witnesses that have not cosigned the newest checkpoint: they were away, or we were."""
        with self._database.read() as session:
            state = current(session, self._wanted)
        if state.size:
            self._witnesses.ask(self._database, checkpoints.parse(state.note))

    def entry(self, leaf_hash: bytes) -> TlogEntry:
        """The entry with this leaf, proved against the newest checkpoint.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as session:
            return self._timed(self._appender().entry(session, leaf_hash))

    def tile(self, tile: Tile) -> bytes:
        """The content of a tile, an entry bundle, or a bundle of tags of namespaces.

        Raises:
            NotFoundError: the log is not so large.
        """
        with self._database.read() as session:
            if tile.level is not None:
                content = read_tile(session, tile.level, tile.number)[: tile.width * 32]
                complete = len(content) == tile.width * 32
            else:
                rows = _column(session, tile)
                complete = len(rows) == tile.width
                entries = tile.kind == tiles.ENTRIES
                content = tiles.encode_entries(rows) if entries else b"".join(rows)
        if not complete:
            raise NotFoundError(
                "the log does not hold that tile yet", hint="see the size in /log/checkpoint"
            )
        return content

    def preimages(self, signed_sha256: str) -> list[Preimage]:
        """The cubes with a statement whose signed bytes have this hash, in the order of their first entries."""
        first = func.min(LogEntry.number)
        query = (
            select(LogEntry.repository, first)
            .where(LogEntry.statement == signed_sha256)
            .group_by(LogEntry.repository)
            .order_by(first)
        )
        with self._database.read() as session:
            return [Preimage(*row) for row in session.exec(query)]

    def content(self, preimage: Preimage) -> bytes:
        """The statement, as JSON."""
        query = select(LogEntry.envelope).where(LogEntry.number == preimage.number)
        with self._database.read() as session:
            return bytes(session.exec(query).one())

    def releases(self, repository: str) -> list[LoggedRelease]:
        """Places that releases of this cube have taken, whatever the host in their origin."""
        query = (
            select(LoggedRelease)
            .join(LogEntry, col(LogEntry.number) == LoggedRelease.number)
            .where(LogEntry.repository == repository)
            .order_by(col(LoggedRelease.number))
        )
        with self._database.read() as session:
            return list(session.exec(query))

    def _take_all(self, batch: Sequence[Arrival]) -> Sequence[bytes | MemcubeError]:
        found = admitted(self._database, batch)
        wanted = [one for one in found if isinstance(one, Submission)]
        entries = iter(self.add_all(wanted) if wanted else ())
        outcomes = (next(entries) if isinstance(one, Submission) else one for one in found)
        return [shown(one) if isinstance(one, TlogEntry) else one for one in outcomes]

    def _appender(self) -> Appender:
        """What writes; the origin of a log that has begun stands in the database."""
        if self._known is None:
            with self._database.read() as session:
                state = current(session, self._wanted)
            if self._fixed and state.origin != self._wanted:
                raise InvalidSettingError(
                    f"the log is called {state.origin}, not {self._wanted}",
                    hint="a log keeps its name: set log_origin back, or leave it empty",
                )
            known = Appender(state.origin, self._signer, self.names)
            if not state.size:
                return known
            self._known = known
        return self._known

    def _timed(self, entry: TlogEntry) -> TlogEntry:
        return _seen(entry, entry.checkpoint.with_lines([self._time(entry.checkpoint)]))

    def _time(self, note: SignedCheckpoint) -> checkpoints.Line:
        """The log's own word on when this was its state."""
        state = note.checkpoint
        return checkpoints.cosign(state, state.origin, self._signer, utc_now())


def _column(session: Session, tile: Tile) -> list[bytes]:
    """What the entries of a bundle hold of its kind."""
    query = _BODIES if tile.kind == tiles.ENTRIES else _NAME_TAGS
    first = tile.number * tiles.WIDTH
    found = session.execute(query, {"first": first, "end": first + tile.width})
    return list(found.scalars())


def shown(entry: TlogEntry) -> bytes:
    """`entry` as JSON."""
    return json.dumps(entry.to_json(), separators=(",", ":")).encode()


def _seen(entry: TlogEntry, note: SignedCheckpoint) -> TlogEntry:
    return TlogEntry(entry.index, entry.log_id, entry.proof, note, entry.body)


def since(now: datetime) -> datetime:
    """From when the log's key is valid, as verifiers are told: long before any entry."""
    return now.replace(year=2020, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
