"""Refs: which cubes this user holds, one small file each, replaced atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol import canonical_json
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, StorageError
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen

from memcube.store.files import make_folder, read_file, replace_files, storage_errors

_REF_BYTES: Final = 1024 * 1024


@frozen
class Ref:
    """A cube of the local store: where it is from, its manifest, and what else belongs to it.

    `related` holds manifests kept together with this one: release bundles, builds. A `kept` ref
    is never removed by pruning: a cube that exists nowhere else, or one that the user pinned.
    `checked_at` is when the registry was last asked for it and its attestations.
    """

    reference: Reference
    digest: Digest
    used_at: datetime
    kept: bool = False
    related: tuple[Digest, ...] = ()
    checked_at: datetime | None = None

    def __post_init__(self) -> None:
        if None in {moment.tzinfo for moment in (self.used_at, self.checked_at) if moment}:
            raise StorageError(f"ref {self.reference} has a time without a zone", hint="use UTC")

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The manifests that this keeps."""
        return (self.digest, *self.related)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Ref held by a parsed file.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, InvalidError: it is damaged.
        """
        return cls(
            Reference.parse(fields["reference"]),
            Digest.parse(fields["digest"]),
            datetime.fromisoformat(fields["usedAt"]),
            fields["kept"] is True,
            tuple(Digest.parse(text) for text in fields["related"]),
            datetime.fromisoformat(checked) if (checked := fields["checkedAt"]) else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this ref."""
        return {
            "reference": str(self.reference),
            "digest": str(self.digest),
            "usedAt": self.used_at.astimezone(UTC).isoformat(),
            "kept": self.kept,
            "related": [str(digest) for digest in self.related],
            "checkedAt": self.checked_at and self.checked_at.astimezone(UTC).isoformat(),
        }


class Refs:
    """The refs of one store. A reference with a tag names one ref, whatever digest stands beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, *refs: Ref) -> None:
        """Keep each of `refs`, in the place of an older one of the same reference.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: not all were kept.
        """
        if not refs:
            return
        make_folder(self._folder)
        replace_files(
            self._folder,
            {self._path(ref.reference).name: canonical_json.dump(ref.to_json()) for ref in refs},
        )

    def get(self, reference: Reference) -> Ref | None:
        """The ref of `reference`, if the store holds it (and under the digest, if one is named)."""
        ref = _read(self._path(reference))
        if ref and reference.digest not in (None, ref.digest):
            return None
        return ref

    def remove(self, reference: Reference) -> bool:
        """Forget `reference`; its blobs stay until they are pruned. Says whether it was there."""
        path = self._path(reference)
        with storage_errors(f"{path} cannot be removed"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def __iter__(self) -> Iterator[Ref]:
        """Every ref, sorted by reference; a damaged file is an error, since blobs hang on it."""
        with storage_errors(f"{self._folder} cannot be read"):
            paths = list(self._folder.glob("*.json")) if self._folder.is_dir() else []
        refs = [ref for path in paths if (ref := _read(path))]
        return iter(sorted(refs, key=lambda ref: str(ref.reference)))

    def _path(self, reference: Reference) -> Path:
        key = reference.location
        key += f":{reference.tag}" if reference.tag else f"@{reference.digest or ''}"
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _read(path: Path) -> Ref | None:
    content = read_file(path, _REF_BYTES)
    if content is None:
        return None
    try:
        return Ref.from_json(canonical_json.parse_object(content, what=str(path)))
    except (InvalidError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"{path} is damaged: {error}", hint="delete the file and pull the cube again"
        ) from None
