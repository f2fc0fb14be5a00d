"""Whether the transparency log is whole: entries, tiles, checkpoint, the order of releases, who fills it.

The tree is computed anew from the entries up to the checkpoint that stood at the beginning; what is
appended meanwhile changes nothing of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube_protocol.errors import MemcubeError
from memcube_signing.keys import PrivateKey
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle, tiles
from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint
from sqlalchemy import func, select
from sqlmodel import Session, col

from memcube_registry.checking.findings import Findings, Rule
from memcube_registry.database import Database
from memcube_registry.log.appending import read_tile
from memcube_registry.log.models import LogEntry, LoggedRelease, LogState, LogUsage, LogWitness

_WHAT: Final = "the log"


def check_log(
    database: Database, key: NoteKey | None, seen: SignedCheckpoint | None, findings: Findings
) -> None:
    """Check the log; `seen` is a checkpoint that it has shown, and must not have gone back behind.

    Without `key`, the log's own, no signature is checked.
    """
    with database.read() as session:
        state = session.get(LogState, 1)
        size = state.size if state else 0
        for detail in _ahead(session, size):
            findings.add(Rule.LOG_SEEN, _WHAT, detail)
    _check_usage(database, findings)
    tree = _Tree(database, findings)
    if seen is not None:
        tree.grow(min(size, seen.checkpoint.size))
        _check_seen(seen, key, tree, findings)
    tree.grow(size)
    findings.count("log_entries", tree.size)
    if state is not None and size:
        _check_note(state, key, tree, findings)


def _ahead(session: Session, size: int) -> list[str]:
    """What knows of more entries than the log has."""
    found = []
    for what, column in (("entry", LogEntry.number), ("release", LoggedRelease.number)):
        last = session.execute(select(func.max(col(column)))).scalar_one()
        if last is not None and last >= size:
            found.append(f"there is {what} {last}, the log has {size} entries")
    witnesses = select(col(LogWitness.name), col(LogWitness.size)).where(
        col(LogWitness.size) > size
    )
    return found + [
        f"witness {name} has seen {shown} entries, the log has {size}"
        for name, shown in session.execute(witnesses)
    ]


def _check_usage(database: Database, findings: Findings) -> None:
    """What a namespace is said to fill is what its entries take, with the statements behind them."""
    size = func.sum(func.length(col(LogEntry.body)) + func.length(col(LogEntry.envelope)))
    taken: Counter[str] = Counter()
    with database.read() as session:
        for name, size_bytes in session.execute(
            select(col(LogEntry.repository), size).group_by(col(LogEntry.repository))
        ):
            taken[name.partition("/")[0]] += int(size_bytes)
        said = dict(
            session.execute(select(col(LogUsage.namespace), col(LogUsage.size_bytes))).all()
        )
    for name in sorted(taken.keys() | said.keys()):
        if said.get(name, 0) != taken[name]:
            detail = f"is said to fill {said.get(name, 0)} bytes, but fills {taken[name]}"
            findings.add(Rule.USAGE, f"{_WHAT}, {name}", detail)


def log_key(file: Path, database: Database) -> NoteKey | None:
    """The key in `file`, under the name that the log has; None where there is no file or no log yet."""
    with database.read() as session:
        state = session.get(LogState, 1)
    if state is None or not file.is_file():
        return None
    signer = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(file.read_bytes()))
    return NoteKey(state.origin, signer.public_key)


@dataclass(slots=True)
class _Tree:
    """The tree over the entries, computed anew in portions: only its edge is in memory."""

    database: Database
    findings: Findings
    size: int = 0
    edge: dict[tiles.Key, bytes] = field(default_factory=dict)

    def grow(self, size: int) -> None:
        """Go on to `size` entries; it stays smaller where an entry is missing."""
        while self.size < size:
            end = min(size, (self.size // tiles.WIDTH + 1) * tiles.WIDTH)
            if not self._take(end):
                return

    def root(self) -> bytes:
        """The root over the entries so far."""
        hash_at = tiles.reader(self.size, lambda *key: self.edge.get(key, b""))
        return merkle.root(self.size, hash_at)

    def _take(self, end: int) -> bool:
        query = (
            select(col(LogEntry.number), col(LogEntry.leaf_hash), col(LogEntry.body))
            .where(col(LogEntry.number) >= self.size, col(LogEntry.number) < end)
            .order_by(col(LogEntry.number))
        )
        with self.database.read() as session:
            rows = session.execute(query).all()
            if [row[0] for row in rows] != list(range(self.size, end)):
                detail = f"of the entries {self.size} to {end - 1} there are {len(rows)}"
                self.findings.add(Rule.LOG_ENTRIES, _WHAT, detail)
                return False
            leaves = [merkle.leaf_hash(bytes(row[2])) for row in rows]
            for (number, kept, _), leaf in zip(rows, leaves, strict=True):
                if bytes(kept) != leaf:
                    detail = "its hash is not that of its body"
                    self.findings.add(Rule.LOG_ENTRIES, f"{_WHAT}, entry {number}", detail)
            self._append(session, leaves)
        return True

    def _append(self, session: Session, leaves: list[bytes]) -> None:
        changed, _ = tiles.appended(self.size, self.edge, leaves)
        for (level, number), hashes in changed.items():
            self.findings.count("log_tiles")
            if read_tile(session, level, number)[: len(hashes)] != hashes:
                detail = "does not hold the hashes of its entries"
                self.findings.add(Rule.LOG_TILES, f"{_WHAT}, tile {level}/{number}", detail)
        self.size += len(leaves)
        both = {**self.edge, **changed}
        self.edge = {key: both[key] for key in tiles.edge_keys(self.size)}


def _check_note(state: LogState, key: NoteKey | None, tree: _Tree, findings: Findings) -> None:
    """The newest checkpoint is signed, and says what the entries say."""
    try:
        note = checkpoints.parse(state.note)
        if key is not None:
            checkpoints.verify(note, key)
    except MemcubeError as error:
        findings.add(Rule.LOG_CHECKPOINT, _WHAT, str(error))
        return
    said = (note.checkpoint.origin, note.checkpoint.size)
    if said != (state.origin, state.size):
        findings.add(Rule.LOG_CHECKPOINT, _WHAT, f"its checkpoint is of {said[0]} {said[1]}")
    elif tree.size == state.size and note.checkpoint.root != tree.root():
        findings.add(Rule.LOG_CHECKPOINT, _WHAT, "its checkpoint has another root than its entries")


def _check_seen(
    seen: SignedCheckpoint, key: NoteKey | None, tree: _Tree, findings: Findings
) -> None:
    """The log still begins with what it has shown. `tree` has grown to there, if it could."""
    try:
        if key is not None:
            checkpoints.verify(seen, key)
    except MemcubeError as error:
        findings.add(Rule.LOG_SEEN, _WHAT, f"the given checkpoint is not its own: {error}")
        return
    size = seen.checkpoint.size
    if tree.size < size:
        findings.add(Rule.LOG_SEEN, _WHAT, f"it has shown {size} entries, and has {tree.size}")
    elif tree.root() != seen.checkpoint.root:
        findings.add(Rule.LOG_SEEN, _WHAT, f"its first {size} entries are not those it has shown")
