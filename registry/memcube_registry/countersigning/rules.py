"""The rules by which this registry countersigns, as text that the countersignature names by its digest."""

from __future__ import annotations

from typing import Final

from memcube_protocol.digest import Digest

PATH: Final = "/.well-known/memcube-countersigning.txt"
KEY_PATH: Final = "/.well-known/memcube-registry.pem"
TEXT: Final = """\
memcube registry countersigning rules, version 1

This registry countersigns the release of a cube once all of this holds:

1. A bundle attached to the cube's manifest holds a release statement about that very manifest, and the
   key that the statement names signed it.
2. The statement names the cube by this registry and by the repository that holds it.
3. The registry's transparency log includes the signature.
4. It was created, and has not expired, at the time of verification.
5. The key is the one on record: where the namespace has published key documents, they let the signers
   sign that name, as many as they demand; where it has none, the key is that of the namespace's first
   release in the log.

It says nothing about what the cube contains, nor about who the publisher is. The summary is logged, and
attached to the manifest. Every input that counted is named by the digest of its bundle.
"""
DIGEST: Final = Digest.of(TEXT.encode())
