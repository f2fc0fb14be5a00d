"""What every dump does: a folder of its own, and a record of how the memory was made, for provenance."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from memcube_protocol.config import MEMORY_ID
from memcube_protocol.digest import Digest, new_hasher
from memcube_protocol.errors import ConflictError, InvalidConfigError

from memcube.store.files import storage_errors
from memcube.version import VERSION

KEY: Final = "dump"
"""Where an adapter's `training` holds it."""
BUILDER: Final = "builder"
INPUTS: Final = "inputs"
_PIECE_BYTES: Final = 1024 * 1024
Inputs = Mapping[str, Path | Digest]
"""What something was made from, by a name for people: a file to hash, or its digest."""


def new_folder(folder: Path, memory_id: str) -> Path:
    """Where below `folder` the new memory `memory_id` goes; nothing is made.

    Raises:
        InvalidConfigError: it is no id that a cube could be packed with.
        ConflictError: there is such a memory.
    """
    if not MEMORY_ID.fullmatch(memory_id):
        raise InvalidConfigError(
            f"{memory_id[:80]!r} is not the id of a memory",
            hint="use 1 to 64 lower-case letters, digits, and . _ - between them",
        )
    target = folder / memory_id
    if target.exists():
        raise ConflictError(
            f"memory {memory_id!r} exists: {target}",
            hint="choose another id, or remove that folder first",
        )
    return target


def builder(*packages: str) -> dict[str, str]:
    """The versions of memcube and of `packages`, as far as they are installed."""
    found = {"memcube": VERSION}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def digests_of(inputs: Inputs) -> dict[str, str]:
    """The digest of each of `inputs`.

    Raises:
        StorageError: a file cannot be read.
    """
    return {
        name: str(given if isinstance(given, Digest) else _digest(given))
        for name, given in sorted(inputs.items())
    }


def _digest(path: Path) -> Digest:
    hasher = new_hasher()
    with storage_errors(f"{path} cannot be read"), path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            hasher.update(piece)
    return Digest.finish("sha256", hasher)
