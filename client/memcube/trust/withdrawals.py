"""What publishers said of their releases, as this user saw it once: a registry cannot take it back.

    <home>/trust/statuses/<digest of a manifest>.json

A registry that hides a yank from its list of referrers hides it only from those who have not seen it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, StorageError

from memcube.store.files import make_folder, read_own_file, replace_file
from memcube.store.locks import hold_lock

FOLDER: Final = "statuses"
_FORMAT: Final = 1
_KEPT: Final = 16
_FILE_BYTES: Final = _KEPT * limits.BUNDLE_BYTES * 2
_LOCK_WAIT_S: Final = 30.0


class StatusStore:
    """Bundles of status statements by the manifest that they are about, safe for several processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def of(self, subject: Digest) -> tuple[bytes, ...]:
        """The bundles about `subject` that were kept; they are verified anew wherever they count.

        Raises:
            StorageError: the file is damaged: it is never read as "nothing said".
        """
        content = read_own_file(self._path(subject), _FILE_BYTES)
        return () if content is None else self._parse(subject, content)

    def keep(self, subject: Digest, said: Iterable[bytes]) -> None:
        """Remember `said`, in order of time; of many the last ones.

        Raises:
            StorageError, ConflictError: the file is damaged, or cannot be written.
        """
        said = tuple(said)
        if not said or set(said) <= set(self.of(subject)):
            return
        path = self._path(subject)
        make_folder(self._folder)
        with hold_lock(path.with_name(f".{path.name}.lock"), exclusive=True, wait_s=_LOCK_WAIT_S):
            kept = tuple(dict.fromkeys((*self.of(subject), *said)))[-_KEPT:]
            bundles = [base64.b64encode(raw).decode() for raw in kept]
            value = {"format": _FORMAT, "subject": str(subject), "bundles": bundles}
            replace_file(path, canonical_json.dump(value))

    def _parse(self, subject: Digest, content: bytes) -> tuple[bytes, ...]:
        try:
            value = canonical_json.parse_object(content, what="statuses")
            if value.keys() != {"format", "subject", "bundles"} or value["format"] != _FORMAT:
                raise ValueError("unknown format")
            if value["subject"] != str(subject):
                raise ValueError("about another manifest")
            return tuple(base64.b64decode(item, validate=True) for item in value["bundles"])
        except (InvalidError, ValueError, TypeError, binascii.Error) as error:
            raise StorageError(
                f"what was said of {subject} cannot be read: {error}",
                hint=f"restore {self._path(subject)} from a backup; "
                "deleting it forgets whether the release was withdrawn",
            ) from None

    def _path(self, subject: Digest) -> Path:
        return self._folder / f"{subject.algorithm}-{subject.hex}.json"
