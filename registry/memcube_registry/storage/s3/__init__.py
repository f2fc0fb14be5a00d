"""Blobs in a bucket of an S3 server (the extra `s3`). Only settings that ask for it load this package.

```
PREFIX blobs/1234…   a finished object, or the last bytes of an upload, at a random location
PREFIX check         what readiness writes
```

Bytes of an upload are sent as parts of an S3 multipart upload; those that are too few for a part, as an
object of their own. Which parts and which object make up an upload, the registry's database knows
(`storage.claims`), so that any replica can continue it and only one at a time does.
"""

from __future__ import annotations

from memcube_registry.storage.s3.bucket import Bucket, Place
from memcube_registry.storage.s3.store import S3Store

__all__ = ["Bucket", "Place", "S3Store"]
