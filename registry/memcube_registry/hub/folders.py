"""The canonical folder of an artifact: what `oras pull` writes (docs/spec/folder.md)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from memcube_protocol import limits, media_types, oci, paths
from memcube_protocol.errors import LimitExceededError, UnsafePathError
from memcube_protocol.oci import Descriptor

FILES_KEPT: Final = 32_768
"""So many files are remembered in all: about 32 MiB. The largest manifests have a quarter of it."""

FOLDERS_AT_MOST: Final = limits.MANIFEST_LAYERS
"""Folders in the tree of one artifact: titles of a manifest could name 500 times as many as files."""

Folder = Mapping[str, Descriptor]


def folder_of(manifest: oci.Manifest | oci.Index) -> Folder:
    """The files, by path: each layer with a title, without its annotations, which may be megabytes.

    None at all where the titles do not make a folder that is safe to write: one that leaves it, two
    that some disk would confuse, or more than `FOLDERS_AT_MOST` folders.
    """
    if isinstance(manifest, oci.Index):
        return {}
    titled = [
        (layer.annotations[media_types.TITLE], replace(layer, annotations={}, artifact_type=None))
        for layer in manifest.layers
        if media_types.TITLE in layer.annotations
    ]
    try:
        folders_above(path for path, _ in titled)
        paths.require_distinct(paths.require_safe(path) for path, _ in titled)
    except (LimitExceededError, UnsafePathError):
        return {}
    return dict(sorted(titled, key=lambda file: file[0]))


def folders_above(files: Iterable[str]) -> set[str]:
    """Every folder that one of the paths `files` lies in.

    Raises:
        LimitExceededError: more than `FOLDERS_AT_MOST`.
    """
    found: set[str] = set()
    for path in files:
        above = path.rpartition("/")[0]
        while above and above not in found:  # else those above it were found before
            found.add(above)
            limits.require_at_most("the tree", len(found), FOLDERS_AT_MOST, unit="folders")
            above = above.rpartition("/")[0]
    return found


class Folders:
    """Folders that were read lately, by the digest of their manifest: what it names never changes.

    A client asks for each file by itself, and reading a large manifest each time takes longer than
    sending the file.
    """

    def __init__(self, files_kept: int = FILES_KEPT) -> None:
        self._files_kept = files_kept
        self._held = 0
        self._folders: OrderedDict[str, Folder] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, digest: str, media_type: str, content: Callable[[], bytes]) -> Folder:
        """The folder of the manifest of that digest; `content` is asked for its bytes where it is not known."""
        with self._lock:
            if (known := self._folders.get(digest)) is not None:
                self._folders.move_to_end(digest)
                return known
        made = folder_of(oci.parse(content(), media_type))
        with self._lock:
            self._keep(digest, made)
        return made

    def _keep(self, digest: str, folder: Folder) -> None:
        if digest in self._folders:
            return
        self._folders[digest] = folder
        self._held += len(folder) + 1
        while self._held > self._files_kept and len(self._folders) > 1:
            _, dropped = self._folders.popitem(last=False)
            self._held -= len(dropped) + 1
