"""Unpacking: a verified cube becomes a plain folder, as `oras pull` would write it.

The folder is written beside its place under another name and moved there when every byte has been
verified: nobody sees half of it, and no link that lies in the way is followed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from memcube_protocol.content import BlobReader, Expected, stream_verified
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import ConflictError, StorageError

from memcube.store.files import open_file, storage_errors, write_all

_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755


def unpack_files(
    files: Iterable[CubeFile], blobs: BlobReader, folder: Path, *, below: str = ""
) -> None:
    """Write `files` from `blobs` as `folder`; `below` is a part of their paths to leave away.

    Raises:
        ConflictError: `folder` holds something already.
        NotFoundError, SizeMismatchError, DigestMismatchError: a blob is absent or damaged.
        DiskFullError, ReadOnlyError, StorageError: it cannot be written; nothing is left behind.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow a link in its place
    _require_vacant(folder)
    with storage_errors(f"{folder} cannot be written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name[:80]}.{secrets.token_hex(8)}")
        temporary.mkdir(mode=0o700)
        try:
            for file in files:
                _write(file, blobs, temporary / file.path.removeprefix(below))
            temporary.chmod(_FOLDER_MODE)
            _move(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _require_vacant(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConflictError(f"{folder} is not a folder", hint="name another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConflictError(
            f"{folder} holds something already", hint="name a new folder, or empty this one"
        )


def _write(file: CubeFile, blobs: BlobReader, path: Path) -> None:
    path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    descriptor = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        pieces = blobs.read(file.digest)
        for piece in stream_verified(pieces, Expected(file.digest, file.size)):
            write_all(descriptor, piece)
        os.fchmod(descriptor, _FILE_MODE)
    finally:
        os.close(descriptor)


def _move(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)  # onto an empty folder, or onto nothing
    except OSError as error:
        if isinstance(error, FileExistsError) or folder.exists():
            raise ConflictError(
                f"{folder} was filled by somebody else meanwhile", hint="name another folder"
            ) from error
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
