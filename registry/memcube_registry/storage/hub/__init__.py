"""Blobs in a private dataset repository of the Hugging Face Hub (the extra `hub`). Only settings load this.

```
blobs/9f/0193…9f.bin   a finished object: when it was made, of which upload, 32 bits of chance; in a
                       folder named by its end
```

Objects are LFS files, whose id is the SHA-256 of the content, so that the Hub checks what arrives. Xet is
never used. Uploads in progress lie in local files until they are finished.
"""

from __future__ import annotations

from memcube_registry.storage.hub.dataset import Dataset, Place
from memcube_registry.storage.hub.store import HubStore

__all__ = ["Dataset", "HubStore", "Place"]
