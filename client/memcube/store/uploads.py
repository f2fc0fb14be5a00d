"""Upload sessions under way, so that a second process goes on where a killed one stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Digest

from memcube.store.files import make_folder, open_file, storage_errors, try_lock

_URL_BYTES: Final = 16 * 1024


class UploadNote:
    """The URL of one upload session, kept in a locked file, or nowhere while another process has it."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.url = _read_url(descriptor) if descriptor is not None else None

    def remember(self, url: str) -> None:
        """Go on at `url` next time.

        Raises:
            DiskFullError, StorageError: it cannot be kept.
        """
        self.url = url
        self._write(url.encode() + b"\n")

    def forget(self) -> None:
        """The session is over."""
        self.url = None
        self._write(b"")

    def _write(self, content: bytes) -> None:
        if self._descriptor is None:
            return
        with storage_errors("an upload session cannot be noted"):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content, 0)


class Uploads:
    """The upload notes of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def note(self, host: str, name: str, digest: Digest) -> Iterator[UploadNote]:
        """The note of the upload of `digest` to `name` on `host`; removed with its session.

        Raises:
            ReadOnlyError, StorageError: it cannot be opened.
        """
        key = hashlib.sha256(f"{host}\0{name}\0{digest}".encode()).hexdigest()
        path = make_folder(self.folder) / key
        with storage_errors(f"{path} cannot be written"):
            descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            note = UploadNote(descriptor if try_lock(descriptor) else None)
            yield note
            if note.url is None:
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _read_url(descriptor: int) -> str | None:
    """The noted URL; a torn note counts as none."""
    content = os.pread(descriptor, _URL_BYTES, 0)
    if not content.endswith(b"\n"):
        return None
    try:
        return content[:-1].decode("ascii")
    except UnicodeDecodeError:
        return None
