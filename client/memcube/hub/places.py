"""Where the blobs of the cubes lie that were used last: which commit, which path."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from memcube_protocol.digest import Digest

_PLACES_MAX: Final = 100_000
"""How many are remembered at most, unless the cube used last has more."""


class Places:
    """Commit and path of blobs, by repository and digest. Safe for several threads.

    What is remembered of one commit is forgotten together: a cube is known whole or not at all, and
    resolving it again makes it known again.
    """

    def __init__(self, places_max: int = _PLACES_MAX) -> None:
        self._places_max = places_max
        self._paths: OrderedDict[tuple[str, str], dict[Digest, str]] = OrderedDict()
        self._commits: dict[tuple[str, Digest], list[str]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def find(self, name: str, digest: Digest) -> tuple[str, str] | None:
        """Commit and path of the blob, where it is known."""
        with self._lock:
            commits = self._commits.get((name, digest))
            if not commits:
                return None
            commit = commits[-1]
            self._paths.move_to_end((name, commit))
            return commit, self._paths[name, commit][digest]

    def remember(self, name: str, commit: str, paths: Mapping[Digest, str]) -> None:
        """From now on these blobs are read at these paths of `commit`."""
        with self._lock:
            known = self._paths.setdefault((name, commit), {})
            self._paths.move_to_end((name, commit))
            self._count += len(paths.keys() - known.keys())
            known.update(paths)
            for digest in paths:
                commits = self._commits.setdefault((name, digest), [])
                if commit in commits:
                    commits.remove(commit)
                commits.append(commit)
            while self._count > self._places_max and len(self._paths) > 1:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        (name, commit), paths = self._paths.popitem(last=False)
        self._count -= len(paths)
        for digest in paths:
            commits = self._commits[name, digest]
            commits.remove(commit)
            if not commits:
                del self._commits[name, digest]

    def __len__(self) -> int:
        return self._count
