"""The golden vectors of attestations: this reader agrees with them, and they never change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conformance.attestations.generate import FILE, text
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import (
    countersignature,
    model_signature,
    provenance,
    scan,
    status,
    verify,
)

VECTORS = json.loads(FILE.read_text("utf-8"))
KEYS = [PublicKey.from_pem(VECTORS["key"])]
KINDS: dict[str, Any] = {
    "countersignature": countersignature.KIND,
    "provenance": provenance.KIND,
    "scan": scan.KIND,
    "status": status.KIND,
}


def cases(group: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[group]]


def read(case: dict[str, Any]) -> Any:
    raw = case["bundle"].encode()
    if case["kind"] == "model-signature":
        manifest = oci.parse_manifest(base64.b64decode(case["manifest"]))
        return model_signature.verify(raw, keys=KEYS, manifest=manifest).value
    subject = Digest.parse(case["subject"])
    return verify(raw, KINDS[case["kind"]], keys=KEYS, subject=subject).value


def test_the_vectors_are_what_the_code_writes_today():
    """Change them only with a new version of a type, and then keep the old ones."""
    assert FILE.read_text("utf-8") == text()


@pytest.mark.parametrize("case", cases("accept"))
def test_what_must_be_accepted_is(case):
    assert read(case).to_statement().to_bytes().decode() == case["statement"]


@pytest.mark.parametrize("case", cases("reject"))
def test_what_must_be_refused_is(case):
    with pytest.raises(MemcubeError) as caught:
        read(case)
    assert (caught.value.code, getattr(caught.value, "reason", None)) == (
        case["code"],
        case["reason"],
    )
