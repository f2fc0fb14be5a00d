"""`trusted_root.json` (Sigstore trusted root 0.1): how cosign learns to trust a log of ours."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Final

from memcube_protocol import timestamps

from memcube_signing.transparency.checkpoint import NoteKey

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"


def write(log: NoteKey, since: datetime) -> dict[str, Any]:
    """The trusted root of one log, whose key is valid from `since` on.

    Verifiers take the log's origin from the host name of `baseUrl`.
    """
    return {
        "mediaType": MEDIA_TYPE,
        "tlogs": [
            {
                "baseUrl": f"https://{log.name}",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": base64.b64encode(log.key.der).decode(),
                    "keyDetails": "PKIX_ED25519",
                    "validFor": {"start": timestamps.write_seconds(since)},
                },
                "logId": {"keyId": base64.b64encode(log.id).decode()},
            }
        ],
    }
