"""The vectors of proof files, as any implementation has to pass them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.trust.proof import parse
from memcube_protocol.errors import MemcubeError

VECTORS = json.loads(Path(__file__).with_name("proofs.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS["accept"], ids=lambda vector: vector["name"])
def test_a_proof_is_read(vector):
    proof = parse(vector["proof"].encode())
    assert str(proof.reference) == vector["reference"]
    assert str(proof.manifest.digest) == vector["digest"]
    assert len(proof.attestations) == vector["attestations"]
    assert proof.to_bytes() == vector["proof"].encode()


@pytest.mark.parametrize("vector", VECTORS["reject"], ids=lambda vector: vector["name"])
def test_what_is_no_proof_is_refused(vector):
    with pytest.raises(MemcubeError) as caught:
        parse(vector["proof"].encode())
    assert caught.value.code == vector["code"]
