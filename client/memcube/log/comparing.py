"""Comparing what this client has seen of a log with what others were shown: `memcube log compare`.

A registry that shows two histories shows each client one of them, so that neither sees it alone. Any
checkpoint from elsewhere tells: one that a friend exported, or those inside of a `.memproof`. Where two
cannot belong to one tree, both signatures are kept as a proof that nobody has to believe us.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidStatementError, LogError, NotFoundError
from memcube_protocol.limits import PROOF_BYTES
from memcube_protocol.values import frozen
from memcube_signing import bundle as bundles
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import fork as forks
from memcube_signing.transparency import merkle
from memcube_signing.transparency.checkpoint import Checkpoint, SignedCheckpoint
from memcube_signing.transparency.entry import TlogEntry
from memcube_signing.transparency.fork import Fork

from memcube.context import Context
from memcube.http import Request
from memcube.log.watching import follow, hashes_of
from memcube.remote.log import find_log
from memcube.store.files import read_file
from memcube.trust import Attestation
from memcube.trust.log_state import KnownLog
from memcube.trust.proof import parse as parse_proof


@frozen
class Compared:
    """Checkpoints from elsewhere beside the newest of the log of `host`; `fork` where they contradict it."""

    host: str
    ours: Checkpoint
    theirs: tuple[Checkpoint, ...]
    fork: Fork | None


def compare(context: Context, source: str) -> Compared:
    """Whether the checkpoints in `source` (a file, or a URL) and those shown here are of one tree.

    A file is a signed checkpoint, a `.memproof`, or a proof of a fork that somebody else kept.

    Raises:
        NotFoundError: there is no such file, or nothing of a log that is known here.
        SignatureInvalidError: the log has not signed what is in it.
        LogError: the log shows this client less than it has shown elsewhere, or is refused by itself.
        NetworkError: no answer.
    """
    told = _read(_content(context, source))
    if isinstance(told, Fork):
        host, log = _known(context, {told.key.name})
        if log.key != told.key:
            raise _unknown(f"it is about another key than {log.key}")
        seen = (told.smaller.checkpoint, told.larger.checkpoint)
        return Compared(host, log.state, seen, told)
    host, log = _known(context, {note.checkpoint.origin for note in told})
    notes = tuple(note for note in told if note.checkpoint.origin == log.key.name)
    theirs = tuple(checkpoints.verify(note, log.key) for note in notes)
    # What was seen before comes first: the registry may show everybody the same by now.
    fork = next(filter(None, (_of_one_size(log, note) for note in notes)), None)
    if fork is None:
        log, fork = _against_newest(context, host, notes)
    return Compared(host, log.state, theirs, fork)


def _against_newest(
    context: Context, host: str, notes: Sequence[SignedCheckpoint]
) -> tuple[KnownLog, Fork | None]:
    """The log as its registry shows it now, and the fork between that and `notes`."""
    log, remote = follow(context, host), find_log(context.registry(host))
    assert log is not None, "a log that vanished is refused"
    assert remote is not None, "a log that vanished is refused"
    hash_at = hashes_of(remote, log.state.size)
    # The smaller ones first: they may prove a fork, a larger one only shows that something is hidden.
    for note in sorted(notes, key=lambda note: note.checkpoint.size):
        if note.checkpoint.size > log.state.size:
            raise LogError(
                f"{host} shows {log.state.size} entries of {log.key.name} here, and has signed "
                f"{note.checkpoint.size} elsewhere",
                hint="it hides entries from you: let the other side compare your checkpoint "
                f"(memcube log checkpoint {host}), and ask the registry's operator",
                reason="log-shrank",
            )
        if fork := _found(log, note, hash_at):
            return log, fork
    return log, None


def _found(log: KnownLog, note: SignedCheckpoint, hash_at: merkle.HashAt) -> Fork | None:
    try:
        return forks.find(log.key, log.note, note, hash_at)
    except InvalidStatementError:
        raise LogError(
            f"the tiles of {log.key.name} are not those that its checkpoint commits to",
            hint="do not use what it proves; ask the registry's operator, and compare with others",
            reason="log-forked",
        ) from None


def _of_one_size(log: KnownLog, note: SignedCheckpoint) -> Fork | None:
    """The fork between two checkpoints of one size: it needs no answer of the registry."""
    if note.checkpoint.size != log.state.size or note.checkpoint == log.state:
        return None
    return Fork(log.key, log.note, note)


def _known(context: Context, names: Collection[str]) -> tuple[str, KnownLog]:
    """The log of one of `names` that this client has met, and the host of its registry."""
    for host, log in context.logs.load().known.items():
        if log.key.name in names:
            return host, log
    raise _unknown("it is about no log that was met here before")


def _content(context: Context, source: str) -> bytes:
    if "://" in source:
        host = urlsplit(source).netloc
        with context.registry(host).http.send(Request("GET", source), (200,)) as response:
            return response.content(PROOF_BYTES)
    content = read_file(Path(source), PROOF_BYTES)
    if content is None:
        hint = "memcube log checkpoint on another machine writes one"
        raise NotFoundError(f"there is no checkpoint {source}", hint=hint)
    return content


def _read(content: bytes) -> Fork | tuple[SignedCheckpoint, ...]:
    """What is known of logs in a file: one checkpoint, those of a `.memproof`, or a proof of a fork."""
    if not content.startswith(b"{"):
        return (checkpoints.parse(content.decode("utf-8", "replace")),)
    if canonical_json.parse_object(content, what="file").get("format") == forks.FORMAT:
        return forks.parse(content)
    found = _notes_of(parse_proof(content).attestations)
    if not found:
        raise _unknown("no statement in it was logged")
    return found


def _notes_of(attestations: Iterable[Attestation]) -> tuple[SignedCheckpoint, ...]:
    """The checkpoints that log entries of bundles were proved against, each once."""
    notes: dict[Checkpoint, SignedCheckpoint] = {}
    for attestation in attestations:
        for value in bundles.parse(attestation.bundle).log_entries:
            note = TlogEntry.from_json(value).checkpoint
            notes.setdefault(note.checkpoint, note)
    return tuple(notes.values())


def _unknown(why: str) -> LogError:
    return LogError(
        f"there is nothing to compare: {why}",
        hint="meet the log first: memcube log audit HOST, or pull a cube from its registry",
        reason="log-unknown",
    )
