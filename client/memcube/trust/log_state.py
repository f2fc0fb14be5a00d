"""What this user has seen of transparency logs: each registry's log key, and its highest checkpoint.

A log may only grow. `advanced` refuses one that shrinks, forks, changes its key or stands still; what it
returns is kept, so that a log cannot show two histories to one user one after the other.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidError, LogError, StorageError, TrustError
from memcube_protocol.values import frozen
from memcube_signing.keys import PublicKey
from memcube_signing.release import CLOCK_TOLERANCE
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle
from memcube_signing.transparency.checkpoint import Checkpoint, NoteKey, SignedCheckpoint

from memcube.store.files import make_folder, read_own_file, replace_file
from memcube.store.locks import hold_lock

LOGS_FILE: Final = "logs.json"
LOG_MAX_AGE: Final = timedelta(days=1)
"""How old the newest checkpoint of a log may be that is asked for it."""
_FORMAT: Final = 1
_FILE_BYTES: Final = 16 * 1024 * 1024
_LOCK_WAIT_S: Final = 30.0


@frozen
class KnownLog:
    """The log of one registry: its key, and the highest checkpoint that was verified here.

    `registry_key` is the key with which that registry countersigns, as it was met first.
    """

    key: NoteKey
    note: SignedCheckpoint
    registry_key: PublicKey | None = None

    @property
    def state(self) -> Checkpoint:
        """The highest checkpoint."""
        return self.note.checkpoint


@frozen
class Logs:
    """Known logs by the host of their registry."""

    known: Mapping[str, KnownLog] = field(default_factory=dict[str, KnownLog])

    def of(self, host: str) -> KnownLog | None:
        """The log of the registry at `host`."""
        return self.known.get(host)

    def with_log(self, host: str, log: KnownLog) -> Logs:
        """These logs with the one of `host` as it is now."""
        return Logs({**self.known, host: log})

    def to_bytes(self) -> bytes:
        """These logs as canonical JSON."""
        logs = {host: _log_to_json(log) for host, log in self.known.items()}
        return canonical_json.dump({"format": _FORMAT, "logs": logs})


NO_LOGS: Final = Logs()


def advanced(
    known: KnownLog | None,
    key: NoteKey,
    note: SignedCheckpoint,
    proof: Sequence[bytes],
    now: datetime,
) -> KnownLog:
    """The log after its registry showed `note`, signed by `key`; `proof` leads there from what is known.

    Raises:
        LogError: it has another key, shrank, forked, or its checkpoint is too old.
        SignatureInvalidError: it is not signed, or the proof does not hold.
    """
    if known is not None and known.key != key:
        raise _alarm(f"{known.key.name} has another key now: {key}", "log-key-changed")
    state = checkpoints.verify(note, key)
    if known is not None:
        merkle.verify_consistency(known.state.size, known.state.root, state.size, state.root, proof)
    _require_recent(note, key, now)
    return KnownLog(key, note, known.registry_key if known else None)


def _log_to_json(log: KnownLog) -> dict[str, str]:
    value = {"key": str(log.key), "note": log.note.text}
    if log.registry_key:
        value["registryKey"] = base64.b64encode(log.registry_key.der).decode()
    return value


def _log(value: Mapping[str, str]) -> KnownLog:
    der = base64.b64decode(value["registryKey"], validate=True) if "registryKey" in value else None
    return KnownLog(
        NoteKey.parse(value["key"]),
        checkpoints.parse(value["note"]),
        PublicKey(der) if der is not None else None,
    )


def _require_recent(note: SignedCheckpoint, key: NoteKey, now: datetime) -> None:
    times = [one.at for one in checkpoints.cosignatures(note, (key.cosigner,))]
    if not times or now - max(times) > LOG_MAX_AGE:
        raise _alarm(f"the newest checkpoint of {key.name} is older than a day", "log-stale")
    if max(times) - now > CLOCK_TOLERANCE:
        raise _alarm(f"the checkpoint of {key.name} is from the future", "clock-set-back")


def parse(content: bytes) -> Logs:
    """The logs that `content` holds.

    Raises:
        StorageError: damaged. It is never read as "no logs", which would switch the alarm off.
    """
    try:
        value = canonical_json.parse_object(content, what="logs")
        if value.keys() != {"format", "logs"} or value["format"] != _FORMAT:
            raise ValueError("unknown format")
        known = {host: _log(log) for host, log in value["logs"].items()}
        for log in known.values():
            checkpoints.verify(log.note, log.key)
    except (InvalidError, TrustError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"the checkpoints of logs cannot be read: {error}",
            hint=f"restore {LOGS_FILE} from a backup; deleting it forgets what every log has shown",
        ) from None
    return Logs(known)


class LogStore:
    """The logs of one user in a folder, safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOGS_FILE

    def load(self) -> Logs:
        """The logs as they are known now.

        Raises:
            StorageError: the file is damaged or cannot be read.
        """
        content = read_own_file(self._path, _FILE_BYTES)
        return parse(content) if content is not None else NO_LOGS

    def keep(self, host: str, log: KnownLog) -> None:
        """Remember `log`, unless another process has seen more of it meanwhile.

        Raises:
            LogError: another process met another log.
            StorageError, ConflictError: it cannot be written.
        """
        make_folder(self._path.parent)
        lock = self._path.with_name(f".{LOGS_FILE}.lock")
        with hold_lock(lock, exclusive=True, wait_s=_LOCK_WAIT_S):
            logs = self.load()
            before = logs.of(host)
            if before is not None:
                if before.key != log.key:
                    raise _alarm(f"{host} has shown another log meanwhile", "log-key-changed")
                if before.state.size == log.state.size and before.state != log.state:
                    raise _alarm(f"{host} has shown another tree meanwhile", "log-forked")
                if before.state.size > log.state.size:
                    return
                log = replace(log, registry_key=before.registry_key or log.registry_key)
            replace_file(self._path, logs.with_log(host, log).to_bytes())


def _alarm(why: str, reason: str) -> LogError:
    return LogError(
        f"the transparency log is not accepted: {why}",
        hint="do not use what it proves; ask the registry's operator, and compare with others",
        reason=reason,
    )
