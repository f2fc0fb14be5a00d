"""Writes proofs.json: one proof to accept with what it says, and altered ones to refuse."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memcube.trust import Attestation
from memcube.trust.proof import Proof
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support.signing import ALICE, NOW, ORIGIN, release

CUBE = oci.write_manifest(
    artifact_type=media_types.CUBE,
    config=oci.Descriptor.of(media_types.CONFIG, b"{}"),
    layers=[],
)
BUNDLE = sign_release(release(subject=CUBE.digest), ALICE)
ABOUT = referrer.write(BUNDLE, PREDICATE_TYPE, CUBE.descriptor(), ALICE.public_key)
PROOF = Proof(
    Reference.parse(f"{ORIGIN}:1.0.0"), CUBE, b"{}", (Attestation(ABOUT, BUNDLE.raw),), NOW
)
CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "another version": ("invalid-proof", lambda v: v.update(format="application/x")),
    "a further field": ("invalid-proof", lambda v: v.update(trustedKeys=[])),
    "a field missing": ("invalid-proof", lambda v: v.pop("keyDocuments")),
    "no host": ("invalid-proof", lambda v: v.update(reference="alice/notes:1.0.0")),
    "a time with an offset": (
        "invalid-proof",
        lambda v: v.update(checkedAt="2026-02-01T12:00:00+00:00"),
    ),
    "base64 without padding": ("invalid-proof", lambda v: v.update(config="e30")),
    "no manifest": ("invalid-proof", lambda v: v.update(manifest="e30=")),
    "another config": ("digest-mismatch", lambda v: v.update(config="e319")),
    "another bundle": (
        "digest-mismatch",
        lambda v: v["attestations"][0].update(bundle=base64.b64encode(b"{}").decode()),
    ),
}


def altered(change: Callable[[dict[str, Any]], Any]) -> str:
    value = json.loads(PROOF.to_bytes())
    change(value)
    return canonical_json.dump(value).decode()


def document() -> dict[str, Any]:
    whole = PROOF.to_bytes().decode()
    others = {"a newline at the end": whole + "\n", "spaces": json.dumps(json.loads(whole))}
    return {
        "about": "docs/spec/proof.md; `proof` is the text of the file",
        "accept": [
            {
                "name": "one release",
                "proof": whole,
                "reference": str(PROOF.reference),
                "digest": str(CUBE.digest),
                "attestations": 1,
            }
        ],
        "reject": [
            *(
                {"name": name, "proof": altered(change), "code": code}
                for name, (code, change) in CHANGES.items()
            ),
            *(
                {"name": name, "proof": text, "code": "invalid-proof"}
                for name, text in others.items()
            ),
        ],
    }


if __name__ == "__main__":
    path = Path(__file__).with_name("proofs.json")
    path.write_text(json.dumps(document(), indent=1) + "\n", "utf-8")
