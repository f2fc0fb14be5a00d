"""The key documents that this user knows: one file a namespace, which only grows."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidError, StorageError
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.document import require_authority

from memcube.store.files import read_own_file, replace_file
from memcube.store.locks import hold_lock

FOLDER: Final = "authorities"
_FORMAT: Final = 1
_FILE_BYTES: Final = 64 * 1024 * 1024
_LOCK_WAIT_S: Final = 30.0


class AuthorityStore:
    """The key documents of namespaces in a folder, safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def load(self, authority: str) -> Authority | None:
        """What is known of `authority`.

        Raises:
            StorageError: the file is damaged: it is never read as "nothing known".
        """
        return resolve(authority, self.bundles(authority))

    def bundles(self, authority: str) -> tuple[bytes, ...]:
        """The bundles that are kept for `authority`.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._path(authority)
        content = read_own_file(path, _FILE_BYTES)
        if content is None:
            return ()
        try:
            value = canonical_json.parse_object(content, what="key documents")
            if value.keys() != {"format", "authority", "bundles"} or value["format"] != _FORMAT:
                raise ValueError("unknown format")
            if value["authority"] != authority:
                raise ValueError("another namespace")
            return tuple(base64.b64decode(item, validate=True) for item in value["bundles"])
        except (InvalidError, ValueError, TypeError, binascii.Error) as error:
            raise StorageError(
                f"the key documents of {authority} cannot be read: {error}",
                hint=f"restore {path} from a backup; deleting it forgets who was revoked",
            ) from None

    def add(self, authority: str, found: Iterable[bytes]) -> Authority | None:
        """What is known of `authority` once `found` is kept too.

        Raises:
            KeyNotAuthorisedError, InvalidStatementError, …: see `chain.resolve`; nothing is kept then.
            StorageError: the file is damaged or cannot be written.
            ConflictError: another process held the lock for 30 seconds.
        """
        path = self._path(authority)
        with hold_lock(path.with_name(f".{path.name}.lock"), exclusive=True, wait_s=_LOCK_WAIT_S):
            known = self.bundles(authority)
            merged = resolve(authority, (*known, *found))
            if merged is not None and (kept := tuple(one.raw for one in merged.bundles)) != known:
                replace_file(path, _to_bytes(authority, kept))
        return merged

    def _path(self, authority: str) -> Path:
        name = hashlib.sha256(require_authority(authority).encode()).hexdigest()
        return self._folder / f"{name}.json"


def _to_bytes(authority: str, bundles: tuple[bytes, ...]) -> bytes:
    return canonical_json.dump(
        {
            "format": _FORMAT,
            "authority": authority,
            "bundles": [base64.b64encode(raw).decode() for raw in bundles],
        }
    )
