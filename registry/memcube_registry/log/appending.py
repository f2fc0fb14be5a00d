"""Appending a batch in one transaction: entries, tiles and checkpoint are there together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from memcube_protocol.errors import ConflictError, NotFoundError, QuotaExceededError
from memcube_signing.keys import Signer
from memcube_signing.release import Release
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle, tiles
from memcube_signing.transparency.checkpoint import Checkpoint, NoteKey, SignedCheckpoint
from memcube_signing.transparency.entry import TlogEntry
from memcube_signing.transparency.places import history_of
from sqlalchemy import bindparam, insert, select, update
from sqlmodel import Session

from memcube_registry.database import table_of
from memcube_registry.log.models import LogEntry, LoggedRelease, LogState, LogTile
from memcube_registry.log.names import Names
from memcube_registry.log.room import Room
from memcube_registry.log.submission import Submission

Refused: TypeAlias = ConflictError | QuotaExceededError
"""Why a statement is not logged: its place is taken, or its namespace fills what it may."""
_KEYS_AT_ONCE: Final = 500

# Built once, and without the rows as objects: a batch may be one entry.
_ENTRIES: Final = table_of(LogEntry)
_TILES: Final = table_of(LogTile)
_AT: Final = (
    _TILES.c.level == bindparam("at_level"),
    _TILES.c.number == bindparam("at_number"),
)
_FIND_LEAVES: Final = select(_ENTRIES.c.leaf_hash, _ENTRIES.c.number).where(
    _ENTRIES.c.leaf_hash.in_(bindparam("leaves", expanding=True))
)
_FIND_ENTRY: Final = select(_ENTRIES.c.number, _ENTRIES.c.body).where(
    _ENTRIES.c.leaf_hash == bindparam("leaf")
)
_ADD_ENTRIES: Final = insert(_ENTRIES)
_READ_TILE: Final = select(_TILES.c.hashes).where(*_AT)
_ADD_TILE: Final = insert(_TILES).values(
    level=bindparam("at_level"), number=bindparam("at_number"), hashes=bindparam("grown")
)
_GROW_TILE: Final = update(_TILES).where(*_AT).values(hashes=bindparam("grown"))


@dataclass(frozen=True, slots=True)
class Appender:
    """Writes to one log: its key, and the key of its namespaces' tags."""

    origin: str
    signer: Signer
    names: Names

    @property
    def key(self) -> NoteKey:
        """The log's key as verifiers know it."""
        return NoteKey(self.origin, self.signer.public_key)

    def append(
        self,
        session: Session,
        batch: Sequence[Submission],
        now: datetime,
        *,
        is_own: bool = False,
    ) -> list[TlogEntry | Refused]:
        """For each of `batch` its entry in a new checkpoint, or why it is refused.

        What is in the log already is not appended again: its entry is proved anew. Where they are
        the registry's own (`is_own`), a namespace has twice the room.
        """
        state = current(session, self.origin)
        numbers = _known(session, [one.leaf_hash for one in batch])
        unknown = {one.namespace for one in batch if one.leaf_hash not in numbers}
        room = Room.of(session, unknown, is_own=is_own)
        outcomes: list[bytes | Refused] = []
        new: dict[bytes, Submission] = {}
        for one in batch:
            refused: Refused | None = None
            if one.leaf_hash not in numbers:
                number = state.size + len(new)
                refused = room.refusal(one) or _take_place(session, one.release, number)
                if refused is None:
                    room.count(one)
                    new[one.leaf_hash] = one
                    numbers[one.leaf_hash] = number
            outcomes.append(refused or one.leaf_hash)
        room.keep(session)
        note, hash_at = self._grow(session, state, new, now)
        size = note.checkpoint.size
        bodies = {one.leaf_hash: one.body for one in batch}
        return [
            _entry(self.key, numbers[one], size, hash_at, note, bodies[one])
            if isinstance(one, bytes)
            else one
            for one in outcomes
        ]

    def _grow(
        self, session: Session, state: LogState, new: dict[bytes, Submission], now: datetime
    ) -> tuple[SignedCheckpoint, merkle.HashAt]:
        """Add the leaves `new`; the checkpoint after them, and the hashes of its tree."""
        if not new:
            return self._note(state), tiles.reader(state.size, _tile_reader(session))
        edge = {key: read_tile(session, *key) for key in tiles.edge_keys(state.size)}
        changed, _ = tiles.appended(state.size, edge, list(new))
        rows = [self._row(one, state.size + at, now) for at, one in enumerate(new.values())]
        session.execute(_ADD_ENTRIES, rows)
        _write_tiles(session, edge, changed)
        size, tree = state.size + len(new), {**edge, **changed}
        hash_at = tiles.reader(size, lambda *key: tree.get(key) or read_tile(session, *key))
        note = checkpoints.sign(
            Checkpoint(self.origin, size, merkle.root(size, hash_at)), self.signer
        )
        state.size, state.note = size, note.text
        session.add(state)
        session.flush()
        return note, hash_at

    def _row(self, one: Submission, number: int, now: datetime) -> dict[str, object]:
        return {
            "number": number,
            "leaf_hash": one.leaf_hash,
            "body": one.body,
            "name_tag": self.names.tag(one.namespace, one.leaf_hash),
            "statement": one.signed_sha256,
            "envelope": one.preimage,
            "repository": one.repository,
            "logged_at": now,
        }

    def _note(self, state: LogState) -> SignedCheckpoint:
        if state.note:
            return checkpoints.parse(state.note)
        return checkpoints.sign(Checkpoint(self.origin, 0, merkle.EMPTY_ROOT), self.signer)

    def checkpoint(self, session: Session) -> SignedCheckpoint:
        """The newest checkpoint; of an empty log too."""
        return self._note(current(session, self.origin))

    def entry(self, session: Session, leaf_hash: bytes) -> TlogEntry:
        """The entry whose leaf has this hash, proved against the newest checkpoint.

        Raises:
            NotFoundError: the log has no such entry.
        """
        row = session.execute(_FIND_ENTRY, {"leaf": leaf_hash}).one_or_none()
        if row is None:
            raise NotFoundError("the log has no such entry", hint="check the hash of the leaf")
        note = self.checkpoint(session)
        size = note.checkpoint.size
        hash_at = tiles.reader(size, _tile_reader(session))
        return _entry(self.key, row[0], size, hash_at, note, row[1])


def current(session: Session, origin: str) -> LogState:
    """The state of the log, made empty where there is none."""
    return session.get(LogState, 1) or LogState(origin=origin, size=0, note="")


def read_tile(session: Session, level: int, number: int) -> bytes:
    """The hashes that a tile holds now; none where there is no such tile."""
    found = session.execute(_READ_TILE, {"at_level": level, "at_number": number})
    return bytes(found.scalar_one_or_none() or b"")


def _write_tiles(
    session: Session, edge: Mapping[tiles.Key, bytes], changed: Mapping[tiles.Key, bytes]
) -> None:
    """Write the tiles that changed: those of `edge` are there already."""
    for is_there, statement in ((True, _GROW_TILE), (False, _ADD_TILE)):
        rows = [
            {"at_level": level, "at_number": number, "grown": hashes}
            for (level, number), hashes in changed.items()
            if ((level, number) in edge) is is_there
        ]
        if rows:
            session.execute(statement, rows)


def _tile_reader(session: Session) -> tiles.ReadTile:
    return lambda level, number: read_tile(session, level, number)


def _known(session: Session, hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Numbers of the leaves that are in the log already."""
    known: dict[bytes, int] = {}
    for at in range(0, len(hashes), _KEYS_AT_ONCE):
        found = session.execute(_FIND_LEAVES, {"leaves": list(hashes[at : at + _KEYS_AT_ONCE])})
        known.update({bytes(row[0]): row[1] for row in found})
    return known


def _take_place(session: Session, release: Release | None, number: int) -> ConflictError | None:
    """Compare and swap: the place of a release in its history, unless another manifest has it."""
    if release is None:
        return None
    place = (release.origin, history_of(release.publishers), release.seq)
    taken = session.get(LoggedRelease, place)
    if taken is None:
        origin, publishers, seq = place
        manifest = str(release.subject)
        session.add(
            LoggedRelease(
                origin=origin, publishers=publishers, seq=seq, manifest=manifest, number=number
            )
        )
        session.flush()
        return None
    if taken.manifest == str(release.subject):
        return None
    return ConflictError(
        f"release {release.seq} of {release.origin} is in the log already, with {taken.manifest}",
        hint="another machine released at the same time: push again",
    )


def _entry(
    key: NoteKey,
    number: int,
    size: int,
    hash_at: merkle.HashAt,
    note: SignedCheckpoint,
    body: bytes,
) -> TlogEntry:
    proof = merkle.inclusion_proof(number, size, hash_at)
    return TlogEntry(number, key.id, proof, note, body)
