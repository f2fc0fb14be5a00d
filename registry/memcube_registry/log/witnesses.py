"""Asking witnesses for cosignatures (C2SP tlog-witness): each sees that the log only ever grows.

A witness that does not answer costs its cosignature, never an entry: how many are enough is the
business of those who verify.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog
import urllib3
from memcube_protocol.errors import InvalidSettingError, MemcubeError
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle, tiles
from memcube_signing.transparency.checkpoint import Line, NoteKey, SignedCheckpoint
from sqlmodel import Session

from memcube_registry.database import Database
from memcube_registry.log.appending import read_tile
from memcube_registry.log.models import LogState, LogWitness

TIMEOUT_S: Final = 5.0
ANSWER_BYTES: Final = 64 * 1024
_SIZE_TYPE: Final = "text/x.tlog.size"
log = structlog.get_logger("memcube.log")


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: where it is asked, and the key that it cosigns with."""

    url: str
    key: NoteKey


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content_type: str | None
    content: bytes


class Witnesses:
    """The witnesses that one log asks."""

    def __init__(self, witnesses: Sequence[Witness]) -> None:
        self._witnesses = tuple(witnesses)
        self._http = urllib3.PoolManager(timeout=TIMEOUT_S, retries=False)

    def __bool__(self) -> bool:
        return bool(self._witnesses)

    def ask(self, database: Database, note: SignedCheckpoint) -> SignedCheckpoint:
        """`note` with the cosignatures that could be had; they are kept with the log's state.

        Only those are asked whose line `note` lacks.
        """
        asked = self.missing(note)
        if not asked:
            return note
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = pool.map(lambda one: self._ask(database, one, note), asked)
            cosigned = [(one, line) for one, line in zip(asked, answers, strict=True)]
        lines = [line for _, line in cosigned if line]
        seen = note.with_lines(lines)
        names = [one.key.name for one, line in cosigned if line]
        database.run(lambda session: _keep(session, seen, names))
        return seen

    def missing(self, note: SignedCheckpoint) -> list[Witness]:
        """The witnesses that have not cosigned `note`."""
        there = {(line.name, line.hint) for line in note.lines}
        return [one for one in self._witnesses if (one.key.name, one.key.hint) not in there]

    def _ask(self, database: Database, witness: Witness, note: SignedCheckpoint) -> Line | None:
        """The witness's line about `note`; a second try begins from the size that it names."""
        try:
            with database.read() as session:
                known = session.get(LogWitness, witness.key.name)
            old = known.size if known else 0
            answer = self._post(database, witness, note, old)
            if answer.status == 409 and answer.content_type == _SIZE_TYPE:
                answer = self._post(database, witness, note, _size(answer.content))
            if answer.status != 200:
                log.warning("a witness refused", witness=witness.key.name, status=answer.status)
                return None
            return _own_line(answer.content, witness.key, note)
        except (MemcubeError, urllib3.exceptions.HTTPError, ValueError) as error:
            log.warning("a witness is of no help", witness=witness.key.name, error=str(error))
            return None

    def _post(
        self, database: Database, witness: Witness, note: SignedCheckpoint, old: int
    ) -> _Answer:
        with database.read() as session:
            hash_at = tiles.reader(
                note.checkpoint.size, lambda level, number: read_tile(session, level, number)
            )
            proof = merkle.consistency_proof(old, note.checkpoint.size, hash_at)
        lines = "".join(f"{base64.b64encode(item).decode()}\n" for item in proof)
        body = f"old {old}\n{lines}\n{note.text}".encode()
        url = f"{witness.url.rstrip('/')}/add-checkpoint"
        answer = self._http.request("POST", url, body=body, redirect=False, preload_content=False)
        try:
            content = answer.read(ANSWER_BYTES)
            return _Answer(answer.status, answer.headers.get("content-type"), content)
        finally:
            answer.close()


def parse(text: str) -> Witnesses:
    """The witnesses in a setting: `URL KEY` of each, divided by commas (KEY as in C2SP signed-note).

    Raises:
        InvalidSettingError: another form.
    """
    return Witnesses([_witness(part) for part in text.split(",") if part.strip()])


def _witness(text: str) -> Witness:
    try:
        url, key = text.split()
        witness = Witness(url, NoteKey.parse(key))
    except (ValueError, MemcubeError):
        witness = None
    is_url = witness is not None and witness.url.startswith(("http://", "https://"))
    if witness is None or not is_url or not witness.key.cosigns:
        raise InvalidSettingError(
            "the setting log_witnesses is not a list of addresses and keys",
            hint="write `https://witness.example name+hash+key`, several divided by commas",
        )
    return witness


def _own_line(answer: bytes, key: NoteKey, note: SignedCheckpoint) -> Line | None:
    """The line of this witness in its answer, verified."""
    for line in checkpoints.parse_lines(answer.decode()):
        if (line.name, line.hint) == (key.name, key.hint):
            checkpoints.cosignatures(SignedCheckpoint(note.checkpoint, (line,)), [key])
            return line
    return None


def _size(answer: bytes) -> int:
    text = answer.decode("ascii").strip()
    if not text.isdigit() or len(text) > 16:
        raise ValueError("the witness names no size")
    return int(text)


def _keep(session: Session, seen: SignedCheckpoint, names: Sequence[str]) -> None:
    size = seen.checkpoint.size
    for name in names:
        session.merge(LogWitness(name=name, size=size))
    state = session.get(LogState, 1)
    # A newer batch may have gone ahead: its own checkpoint is cosigned by itself.
    if state is not None and state.size == size:
        state.note = checkpoints.parse(state.note).with_lines(seen.lines).text
        session.add(state)
