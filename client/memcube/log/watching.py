"""Watching transparency logs: at every pull the newest checkpoint, checked against the highest one seen.

`follow` refuses a log that shrinks, forks, changes its key or stands still.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from memcube_protocol.errors import LogError, MemcubeError
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle, tiles
from memcube_signing.transparency.checkpoint import Checkpoint, SignedCheckpoint
from memcube_signing.transparency.entry import TlogEntry
from memcube_signing.transparency.tiles import Tile

from memcube.context import Context
from memcube.log.forks import keeping
from memcube.remote.log import RemoteLog, find_log
from memcube.trust import Attestation
from memcube.trust.log_state import KnownLog, advanced


def follow(
    context: Context,
    host: str,
    attestations: Iterable[Attestation] = (),
    documents: Iterable[bytes] = (),
) -> KnownLog | None:
    """The log of the registry at `host` as it is now, kept as the highest state seen; None where it keeps none.

    The trees that the log entries of `attestations`, and of the bundles `documents`, were proved against
    must be the start of it.

    Raises:
        LogError: it vanished, has another key, shrank, forked, or stands still.
        SignatureInvalidError: what it shows is not signed or not proved.
        NetworkError: no answer.
    """
    known, remote = context.logs.load().of(host.lower()), find_log(context.remote(host))
    if remote is None:
        if known is not None:
            raise _alarm(
                f"{host} kept the log {known.key.name}, and shows none now", "log-vanished"
            )
        return None
    _require_policys(context, host.lower(), remote)
    note = remote.checkpoint()
    hash_at = hashes_of(remote, note.checkpoint.size)
    before = known.state if known else None
    proof: tuple[bytes, ...] = ()
    if before is not None and before.size < note.checkpoint.size:
        proof = merkle.consistency_proof(before.size, note.checkpoint.size, hash_at)
    with keeping(context, remote.key, known.note if known else note, note, hash_at):
        log = advanced(known, remote.key, note, proof, context.now())
    found = (*(attestation.bundle for attestation in attestations), *documents)
    for earlier in _notes_in(found, log):
        with keeping(context, log.key, earlier, note, hash_at):
            _require_start(log.state, earlier.checkpoint, hash_at)
    # Whoever countersigns there is pinned at first use: another key later does not count.
    log = replace(log, registry_key=log.registry_key or remote.registry_key)
    if known is None or (known.state, known.registry_key) != (log.state, log.registry_key):
        context.logs.keep(host.lower(), log)
    return log


def _require_policys(context: Context, host: str, remote: RemoteLog) -> None:
    wanted = context.policy.log_of(host)
    if wanted is not None and wanted != remote.key:
        raise _alarm(f"{host} shows another log than your policy names", "log-key-changed")


def hashes_of(remote: RemoteLog, size: int) -> merkle.HashAt:
    """Hashes of the tree over `size` entries, from the tiles that the log serves; not verified."""

    def read(level: int, number: int) -> bytes:
        return remote.tile(Tile(level, number, tiles.width_at(level, number, size)))

    return tiles.reader(size, read)


def _notes_in(found: Iterable[bytes], log: KnownLog) -> Iterable[SignedCheckpoint]:
    """Checkpoints in the log entries of bundles, as far as this log signed them; each tree once."""
    from memcube_signing import bundle as bundles

    notes: dict[Checkpoint, SignedCheckpoint] = {}
    for raw in found:
        try:
            for value in bundles.parse(raw).log_entries:
                note = TlogEntry.from_json(value).checkpoint
                notes.setdefault(checkpoints.verify(note, log.key), note)
        except MemcubeError:
            continue  # the decision says what is wrong with it
    return notes.values()


def _require_start(state: Checkpoint, earlier: Checkpoint, hash_at: merkle.HashAt) -> None:
    """A tree that the log signed somewhere else is the start of the one that it shows here."""
    proof: tuple[bytes, ...] = ()
    if 0 < earlier.size < state.size:
        proof = merkle.consistency_proof(earlier.size, state.size, hash_at)
    merkle.verify_consistency(earlier.size, earlier.root, state.size, state.root, proof)


def _alarm(why: str, reason: str) -> LogError:
    return LogError(
        f"the transparency log is not accepted: {why}",
        hint="do not use what it proves; ask the registry's operator, and compare with others",
        reason=reason,
    )
