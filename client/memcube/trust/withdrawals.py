"""What publishers said of their releases, as this user saw it once: a registry cannot take it back.

    <home>/trust/statuses/<digest of a manifest>.json

A registry that hides a yank from its list of referrers hides it only from those who have not seen it.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, StorageError
from memcube_signing import bundle as bundles
from memcube_signing import statement
from memcube_signing.predicates import status
from memcube_signing.predicates.status import State

from memcube.store.files import make_folder, read_own_file, replace_file
from memcube.store.locks import hold_lock

FOLDER: Final = "statuses"
_FORMAT: Final = 1
_KEPT: Final = 32
_WORDS: Final = 2
"""What is kept of one key's words beside its last withdrawal."""
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
        """Remember `said`; of each key its last withdrawal, and its last words.

        Raises:
            StorageError, ConflictError: the file is damaged, or cannot be written.
        """
        said = tuple(said)
        if not said or set(said) <= set(self.of(subject)):
            return
        path = self._path(subject)
        make_folder(self._folder)
        with hold_lock(path.with_name(f".{path.name}.lock"), exclusive=True, wait_s=_LOCK_WAIT_S):
            before = self.of(subject)
            kept = _worth_keeping((*before, *said))
            if kept == list(before):
                return
            encoded = [base64.b64encode(raw).decode() for raw in kept]
            value = {"format": _FORMAT, "subject": str(subject), "bundles": encoded}
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


def _worth_keeping(said: Iterable[bytes]) -> list[bytes]:
    """Of `said`, verified before, what nobody else can push out by saying much; in order of time."""
    by_key: defaultdict[str, list[tuple[bool, datetime, bytes]]] = defaultdict(list)
    for raw in dict.fromkeys(said):
        bundle = bundles.parse(raw)
        told = status.read(statement.parse(bundle.envelope.payload))
        by_key[bundle.key_hint].append((told.state is State.YANKED, told.stated_at, raw))
    chosen: set[tuple[bool, datetime, bytes]] = set()
    for words in by_key.values():
        in_time = sorted(words, key=lambda word: word[1])
        chosen.update(in_time[-_WORDS:], [word for word in in_time if word[0]][-1:])
    strictest = sorted(chosen)[-_KEPT:]
    return [raw for _, _, raw in sorted(strictest, key=lambda word: word[1:])]
