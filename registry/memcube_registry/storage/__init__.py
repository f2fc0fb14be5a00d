"""Blob stores: where bytes lie. A store knows locations, never digests or repositories.

```
uploads/abcd…    an upload in progress, under the random id of its session
blobs/ab/abcd…   a finished object, under the id of its upload: no two uploads share one, so a late
                 unlink cannot kill a re-upload
```
"""

from __future__ import annotations

from memcube_registry.storage.interface import (
    BlobStore,
    HandsOver,
    Object,
    Pieces,
    Sink,
    size_at,
)
from memcube_registry.storage.local import LocalFiles
from memcube_registry.storage.memory import MemoryStore

__all__ = [
    "BlobStore",
    "HandsOver",
    "LocalFiles",
    "MemoryStore",
    "Object",
    "Pieces",
    "Sink",
    "size_at",
]
