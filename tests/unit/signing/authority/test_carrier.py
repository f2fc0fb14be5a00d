"""Key documents as an artifact: what a reader refuses before it reads one."""

from __future__ import annotations

import pytest
from memcube_protocol import limits, media_types, oci
from memcube_protocol.errors import LimitExceededError
from memcube_signing.authority import carrier


def test_documents_that_are_together_too_large_are_refused() -> None:
    layer = oci.Descriptor(media_types.SIGSTORE_BUNDLE, oci.EMPTY.digest, limits.BUNDLE_BYTES)
    fitting = limits.KEY_DOCUMENTS_BYTES // limits.BUNDLE_BYTES
    for count in (fitting, fitting + 1):
        carried = oci.write_manifest(
            artifact_type=media_types.KEYS, config=oci.EMPTY, layers=[layer] * count
        )
        if count == fitting:
            assert len(carrier.read(carried)) == fitting
        else:
            with pytest.raises(LimitExceededError, match="key documents"):
                carrier.read(carried)
