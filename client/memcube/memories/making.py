"""What a dump records of how it was made, inside the memory: from it `memcube push` states provenance."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Digest, new_hasher

from memcube.store.files import storage_errors
from memcube.version import VERSION

KEY: Final = "dump"
"""Where an adapter's `training` holds it."""
BUILDER: Final = "builder"
INPUTS: Final = "inputs"
_PIECE_BYTES: Final = 1024 * 1024
Inputs = Mapping[str, Path | Digest]
"""What something was made from, by a name for people: a file to hash, or its digest."""


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
