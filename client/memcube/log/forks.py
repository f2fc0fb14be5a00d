"""Keeping the proof when a log has shown two histories: both signatures, for others to see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memcube_protocol.errors import InvalidStatementError, SignatureInvalidError
from memcube_signing.transparency import fork as forks
from memcube_signing.transparency import merkle
from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint
from memcube_signing.transparency.fork import Fork

from memcube.context import Context
from memcube.store.files import make_folder, replace_file

FOLDER: Final = "forks"
"""Below `trust/`: the proofs that this user has come across."""


def keep(context: Context, fork: Fork, path: Path | None = None) -> Path:
    """Write the proof `fork` to `path`, or among this user's own; the file.

    Raises:
        StorageError: it cannot be written.
    """
    content = fork.to_bytes()
    if path is None:
        folder = context.settings.home / "trust" / FOLDER
        make_folder(folder)
        path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.json"
    replace_file(path, content)
    return path


@contextmanager
def keeping(
    context: Context,
    key: NoteKey,
    earlier: SignedCheckpoint,
    note: SignedCheckpoint,
    hash_at: merkle.HashAt,
) -> Iterator[None]:
    """Where two trees that are compared inside turn out as forked, the proof is kept, and named in the hint.

    `hash_at` tells the hashes of the tree of `note`, the larger one.
    """
    try:
        yield
    except SignatureInvalidError as error:
        if error.reason == "log-forked" and (path := _kept(context, key, earlier, note, hash_at)):
            error.hint = (
                "do not use what it proves; show others that it signed two histories: the proof is "
                f"{path} (they check it with memcube log compare)"
            )
        raise


def _kept(
    context: Context,
    key: NoteKey,
    earlier: SignedCheckpoint,
    note: SignedCheckpoint,
    hash_at: merkle.HashAt,
) -> Path | None:
    try:
        fork = forks.find(key, earlier, note, hash_at)
    except (InvalidStatementError, SignatureInvalidError):
        return (
            None  # the log serves tiles that its checkpoint does not commit to: nothing is proved
        )
    return keep(context, fork) if fork else None
