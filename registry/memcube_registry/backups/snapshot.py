"""A snapshot: its description with the SHA-256 of each of its files, and where snapshots stand."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import IntegrityError, NotFoundError, UnsupportedError

from memcube_registry.storage.local import sync_folder

FORMAT: Final = 1
TABLES: Final = "tables"
KEYS: Final = "keys"
_DESCRIPTION: Final = "snapshot.json"
_NAME: Final = re.compile(r"\d{8}T\d{6}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a snapshot says of itself.

    `revision` is that of the tables, `blobs_copied` whether the backup holds the blobs' bytes or only
    where they lie in the registry's store, `sums` the SHA-256 in hex of each file by its path.
    """

    made_at: datetime
    registry: str
    revision: str
    blobs_copied: bool
    rows: Mapping[str, int]
    log_origin: str
    log_size: int
    sums: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The description as it is written."""
        return {
            "format": FORMAT,
            "madeAt": self.made_at.isoformat(),
            "registry": self.registry,
            "revision": self.revision,
            "blobsCopied": self.blobs_copied,
            "rows": dict(self.rows),
            "log": {"origin": self.log_origin, "size": self.log_size},
            "sums": dict(self.sums),
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole snapshot in `folder`."""

    folder: Path
    description: Description

    @property
    def tables(self) -> Path:
        """The folder of its tables."""
        return self.folder / TABLES

    @property
    def keys(self) -> Path:
        """The folder of its keys."""
        return self.folder / KEYS

    @property
    def identity(self) -> str:
        """Its name with the SHA-256 of its description, which holds the sums of everything else."""
        description = (self.folder / _DESCRIPTION).read_bytes()
        return f"{self.folder.name} {hashlib.sha256(description).hexdigest()}"

    def require_intact(self) -> None:
        """Compare every file with its sum.

        Raises:
            IntegrityError: a file is missing, is one too many, or has other bytes.
        """
        found = dict(_sums(self.folder))
        wrong = {
            path
            for path in found.keys() | self.description.sums.keys()
            if found.get(path) != self.description.sums.get(path)
        }
        if wrong:
            raise IntegrityError(
                f"the snapshot {self.folder.name} is damaged: {', '.join(sorted(wrong)[:3])}",
                hint="use another snapshot",
            )


def seal(folder: Path, description: Description) -> None:
    """Write the description of the files in `folder`, with their sums, and make all of it durable."""
    whole = replace(description, sums=dict(_sums(folder)))
    (folder / _DESCRIPTION).write_text(json.dumps(whole.to_json(), indent=2), encoding="utf-8")
    for path in (*_files(folder), folder / _DESCRIPTION):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for inner in (folder / TABLES, folder / KEYS, folder):
        if inner.is_dir():
            sync_folder(inner)


def name_of(made_at: datetime) -> str:
    """What a snapshot of that time is called."""
    return f"{made_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def names(root: Path) -> list[str]:
    """The snapshots of a backup, the newest last."""
    folder = root / "snapshots"
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))


def opened(root: Path, name: str | None) -> Snapshot:
    """A snapshot of the backup in `root`; without `name` the newest.

    Raises:
        NotFoundError: there is none.
        UnsupportedError: it was made in another format.
        IntegrityError: its description cannot be read.
    """
    known = names(root)
    if not known or (name is not None and name not in known):
        raise NotFoundError(
            f"{root} holds no snapshot {name or ''}".rstrip(),
            hint=f"it holds: {', '.join(known)}" if known else "name the folder of a backup",
        )
    return read(root / "snapshots" / (name or known[-1]))


def read(folder: Path) -> Snapshot:
    """The snapshot in `folder`.

    Raises:
        UnsupportedError, IntegrityError: as `opened`.
    """
    try:
        found = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise UnsupportedError(
                f"the backup has format {found['format']}, this version reads {FORMAT}",
                hint="use the version of memcube that made it",
            )
        return Snapshot(folder, _described(found))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"the description of snapshot {folder.name} cannot be read: {error}",
            hint="use another snapshot",
        ) from error


def _described(found: Mapping[str, Any]) -> Description:
    return Description(
        made_at=datetime.fromisoformat(found["madeAt"]),
        registry=str(found["registry"]),
        revision=str(found["revision"]),
        blobs_copied=bool(found["blobsCopied"]),
        rows={str(name): int(count) for name, count in found["rows"].items()},
        log_origin=str(found["log"]["origin"]),
        log_size=int(found["log"]["size"]),
        sums={str(path): str(hex_sum) for path, hex_sum in found["sums"].items()},
    )


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    for path in _files(folder):
        with path.open("rb") as file:
            yield str(path.relative_to(folder)), hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Every file of a snapshot but its description."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / _DESCRIPTION:
            yield path
