"""Writing a blob into the store: verified while it arrives, visible only when it is right.

What has arrived lies in `partial/` and stays there when the process ends early, so that the next
one goes on from it. One process writes one blob at a time; others wait and then find it there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from memcube_protocol.content import Expected
from memcube_protocol.digest import Digest, new_hasher
from memcube_protocol.errors import ConflictError, IntegrityError

from memcube.closing import Closing
from memcube.store.files import (
    PIECE_BYTES,
    make_folder,
    open_file,
    storage_errors,
    try_lock,
    write_all,
)

_WAIT_S: Final = 0.05

Keep = Callable[[Path, Digest], None]
"""Moves a finished file to where its digest says."""


class Ingest(Closing):
    """One expected blob on its way into the store; a context manager.

    `offset` counts the bytes that are there, those of an earlier attempt included. Leaving the
    context without `commit` keeps them for the next attempt.
    """

    def __init__(self, path: Path, expected: Expected, keep: Keep, *, wait_s: float) -> None:
        self._path = path
        self._expected = expected
        self._keep = keep
        make_folder(path.parent)
        self._descriptor = _open_alone(path, wait_s)
        self._start()
        try:
            self._take_up()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _start(self) -> None:
        self.offset = 0
        self._verifier = self._expected.verifier()
        # A personal copy is expected under a commitment and kept under its own digest.
        self._hasher = None if isinstance(self._expected.identity, Digest) else new_hasher()

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            SizeMismatchError: more than expected; what has arrived is thrown away.
            DiskFullError, ReadOnlyError, StorageError: what has arrived is kept.
        """
        try:
            self._verifier.update(piece)
        except IntegrityError:
            self.discard()
            raise
        if self._hasher:
            self._hasher.update(piece)
        with storage_errors(f"{self._path} cannot be written"):
            write_all(self._descriptor, piece)
        self.offset += len(piece)

    def restart(self) -> None:
        """Forget what has arrived and begin anew."""
        with storage_errors(f"{self._path} cannot be written"):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._start()

    def commit(self) -> Digest:
        """Make the blob visible, if it is the expected one; its digest.

        Raises:
            SizeMismatchError, DigestMismatchError: other content; it is thrown away.
        """
        try:
            self._verifier.finish()
        except IntegrityError:
            self.discard()
            raise
        identity = self._expected.identity
        digest = identity if isinstance(identity, Digest) else None
        if self._hasher:
            digest = Digest.finish("sha256", self._hasher)
        assert digest is not None
        self._keep(self._path, digest)
        return digest

    def close(self) -> None:
        """Stop; bytes that were not committed stay for the next attempt."""
        os.close(self._descriptor)

    def _take_up(self) -> None:
        """Hash again what an earlier attempt left, or throw it away if it is too long."""
        try:
            with storage_errors(f"{self._path} cannot be read"):
                while piece := os.read(self._descriptor, PIECE_BYTES):
                    self._verifier.update(piece)
                    if self._hasher:
                        self._hasher.update(piece)
                    self.offset += len(piece)
        except IntegrityError:
            self.restart()

    def discard(self) -> None:
        """Throw away what has arrived."""
        with storage_errors(f"{self._path} cannot be removed"):
            self._path.unlink(missing_ok=True)


def _open_alone(path: Path, wait_s: float) -> int:
    """Descriptor of the partial file, locked; waits while another writer has it."""
    deadline = time.monotonic() + wait_s
    with storage_errors(f"{path} cannot be written"):
        while True:
            descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
            if try_lock(descriptor) and _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"another process has been writing {path.name} for {wait_s:.0f} s",
                    hint="wait until it is done, or end it",
                )
            time.sleep(_WAIT_S)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file: its last writer may have moved it into place."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
