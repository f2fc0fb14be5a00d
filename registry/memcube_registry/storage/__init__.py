"""Blob stores: where bytes lie. A store knows locations, never digests or repositories.

```
blobs/ab/abcd…   a finished object, at a random location: a late unlink cannot kill a re-upload
uploads/1234…    an upload in progress, under the id of its session
```
"""

from __future__ import annotations

from memcube_registry.storage.interface import BlobStore, Object, Pieces, Sink
from memcube_registry.storage.local import LocalFiles
from memcube_registry.storage.memory import MemoryStore

__all__ = ["BlobStore", "LocalFiles", "MemoryStore", "Object", "Pieces", "Sink"]
