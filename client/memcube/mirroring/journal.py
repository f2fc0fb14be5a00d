"""What a mirror copied before: one line of JSON for each tag, appended when its copy is whole.

It saves requests and is no evidence: whoever loses it copies nothing twice either, but asks more.
A line that a crash tore counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError
from memcube_protocol.values import frozen

from memcube.store.files import (
    make_folder,
    open_file,
    read_file,
    replace_file,
    storage_errors,
    write_all,
)
from memcube.store.locks import hold_lock

_FILE_BYTES: Final = 1024 * limits.MIB
_WAIT_S: Final = 1.0
"""Whoever holds the journal longer is mirroring, which may take hours."""


@frozen
class Done:
    """A tag that was copied: its cube, and a mark of all that referred to it then."""

    digest: Digest
    attached: str


class Journal:
    """The journal of one mirror, opened by one process at a time; safe for several threads."""

    def __init__(self, path: Path, descriptor: int, done: dict[tuple[str, str], Done]) -> None:
        self.path = path
        self._descriptor = descriptor
        self._done = done
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls, folder: Path, source: str, target: str) -> Iterator[Journal]:
        """The journal for mirroring `source` to `target`.

        Raises:
            ConflictError: another process mirrors just this now.
            StorageError: it cannot be read or written.
        """
        key = hashlib.sha256(f"{source}\0{target}".encode()).hexdigest()[:32]
        path = make_folder(folder) / f"{key}.jsonl"
        lock = folder / f".{key}.lock"
        with hold_lock(lock, exclusive=True, wait_s=_WAIT_S, what="this mirror"):
            done = _read(path)
            replace_file(path, b"".join(_line(*key, one) for key, one in done.items()))
            with storage_errors(f"{path} cannot be written"):
                descriptor = open_file(path, os.O_WRONLY | os.O_APPEND)
            try:
                yield cls(path, descriptor, done)
            finally:
                os.close(descriptor)

    def find(self, name: str, tag: str) -> Done | None:
        """What was copied under `tag` of the cube `name`."""
        return self._done.get((name, tag))

    def tags_of(self, name: str) -> list[str]:
        """The tags of the cube `name` that were copied."""
        return sorted(tag for one, tag in list(self._done) if one == name)

    def names(self) -> list[str]:
        """The cubes of which something was copied."""
        return sorted({name for name, _ in list(self._done)})

    def write(self, name: str, tag: str, done: Done | None) -> None:
        """Remember that `tag` was copied; None: that its copy is gone.

        Raises:
            DiskFullError, StorageError: it cannot be written.
        """
        with self._lock:
            if self._done.get((name, tag)) == done:
                return
            with storage_errors(f"{self.path} cannot be written"):
                write_all(self._descriptor, _line(name, tag, done))
            if done is None:
                del self._done[name, tag]
            else:
                self._done[name, tag] = done


def _line(name: str, tag: str, done: Done | None) -> bytes:
    value = {"name": name, "tag": tag}
    if done:
        value |= {"digest": str(done.digest), "attached": done.attached}
    return json.dumps(value).encode() + b"\n"


def _read(path: Path) -> dict[tuple[str, str], Done]:
    done: dict[tuple[str, str], Done] = {}
    for line in (read_file(path, _FILE_BYTES) or b"").splitlines():
        try:
            value = json.loads(line)
            key = str(value["name"]), str(value["tag"])
            if "digest" in value:
                done[key] = Done(Digest.parse(value["digest"]), str(value["attached"]))
            else:
                done.pop(key, None)
        except (ValueError, KeyError, TypeError, InvalidError):
            continue
    return done
