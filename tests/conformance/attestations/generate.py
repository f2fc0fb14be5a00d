"""The golden vectors of attestations, made from fixed keys: `python -m conformance.attestations.generate`.

Any language can read them: a bundle is its text; `key` is the one accepted key. `accept` says what a
reader must find, `reject` the code and reason of the refusal.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing import bundle as bundles
from memcube_signing.dsse import Envelope, Signature, pae
from memcube_signing.predicates import attest, model_signature
from memcube_signing.predicates.countersignature import (
    LEVEL,
    LEVEL_LOGGED,
    Countersignature,
    LogPlace,
)
from memcube_signing.predicates.provenance import BUILD_TYPES, Dependency, Provenance
from memcube_signing.predicates.scan import Coverage, Finding, Recomputed, Scan
from memcube_signing.predicates.status import Reason, State, Status
from support.signing import ALICE, CREATED, MALLORY, ORIGIN, manifest, signed_payload

FILE = Path(__file__).parent / "attestations.json"
SUBJECT = manifest().digest
Json = dict[str, Any]

VALUES: dict[str, Any] = {
    "countersignature": Countersignature(
        subject=SUBJECT,
        resource=ORIGIN,
        verifier="https://registry.example",
        verified_at=CREATED,
        policy="https://registry.example/.well-known/memcube-countersigning.txt",
        policy_digest=Digest.of(b"rules"),
        inputs=(Digest.of(b"release"),),
        levels=(LEVEL, LEVEL_LOGGED),
        publishers=(ALICE.public_key.id,),
        log=LogPlace("registry.example", 41),
    ),
    "provenance": Provenance(
        subject=SUBJECT,
        name=ORIGIN,
        build_type=BUILD_TYPES["activation"],
        recipe={"memory": "intro"},
        dependencies=(Dependency(f"oci://{ORIGIN}", SUBJECT, "parent cube"),),
        builder="https://memcube.org/dumper/v1",
        builder_version={"memcube": "0.1.0"},
        started_at=CREATED,
        finished_at=CREATED,
    ),
    "scan": Scan(
        subject=SUBJECT,
        name=ORIGIN,
        scanner="memcube",
        scanner_version="0.1.0",
        rules_version="2026.11.1",
        scanned_at=CREATED,
        checks=("secrets", "unsafe-files"),
        findings=(
            Finding("secrets", "aws-access-key", "high", "plaintext/a.jsonl.zst", "record r"),
        ),
        counts={"secrets": 1, "unsafe-files": 0},
    ),
    "recomputed scan": Scan(
        subject=SUBJECT,
        name=ORIGIN,
        scanner="memcube",
        scanner_version="0.1.0",
        rules_version="2026.11.2",
        scanned_at=CREATED,
        checks=("opaque-memory",),
        findings=(
            Finding(
                "opaque-memory",
                "cache-differs-from-its-text",
                "high",
                "activation/intro/manifest.json",
                "token 7",
            ),
        ),
        counts={"opaque-memory": 1},
        coverage=Coverage(4, 1, 2, 1_000_000, 20_000),
        recomputed=(
            Recomputed(
                "activation/intro/manifest.json",
                "mip1-base:" + "0" * 64,
                "1.48",
                "0.1",
                {"torch": "2.13.0", "device": "cpu"},
            ),
        ),
    ),
    "status": Status(
        subject=SUBJECT,
        origin=ORIGIN,
        version="1.0.0",
        state=State.YANKED,
        reason=Reason.WRONG,
        stated_at=CREATED,
        message="the figures of chapter two are wrong",
        replacement=f"{ORIGIN}:1.0.1",
    ),
}
CUBE = oci.write_manifest(
    artifact_type=media_types.CUBE,
    config=oci.EMPTY,
    layers=[
        oci.Descriptor.of(media_types.CARD, content, {media_types.TITLE: path})
        for path, content in (("README.md", b"card"), ("b/x.md", b"two"), ("b.md", b"three"))
    ],
)


def changed(kind: str, change: Json, drop: tuple[str, ...] = ()) -> str:
    """A bundle with a right signature over a predicate with fields changed or dropped."""
    statement = json.loads(VALUES[kind].to_statement().to_bytes())
    statement["predicate"] |= change
    for name in drop:
        del statement["predicate"][name]
    return signed_payload(canonical_json.dump(statement)).decode()


def changed_model(change: Json) -> str:
    """A model signature with a right signature over other fields."""
    value = model_signature.of_manifest(CUBE, "notes")
    statement = json.loads(value.to_statement().to_bytes())
    statement["predicate"] |= change
    payload = canonical_json.dump(statement)
    signature = Signature(ALICE.sign(pae(media_types.IN_TOTO, payload)))
    envelope = Envelope(media_types.IN_TOTO, payload, (signature,))
    return bundles.write(envelope, ALICE.public_key.pem_id).raw.decode()


def accepted() -> list[Json]:
    """Every kind once, with its statement."""
    cases = [
        {
            "name": kind,
            "kind": kind.rpartition(" ")[2],
            "subject": str(SUBJECT),
            "bundle": attest(value, ALICE).raw.decode(),
            "statement": value.to_statement().to_bytes().decode(),
        }
        for kind, value in VALUES.items()
    ]
    value = model_signature.of_manifest(CUBE, "notes")
    files = {
        "name": "model-signature",
        "kind": "model-signature",
        "manifest": base64.b64encode(CUBE.raw).decode(),
        "bundle": model_signature.sign(value, ALICE).raw.decode(),
        "statement": value.to_statement().to_bytes().decode(),
    }
    return [*cases, files]


def rejected() -> list[Json]:
    """What every reader refuses, by kind."""
    status = VALUES["status"]
    untrusted, invalid = "signature-invalid", "invalid-statement"
    cases = [
        ("another key", "status", attest(status, MALLORY).raw.decode(), untrusted, "unknown-key"),
        (
            "another subject",
            "status",
            attest(replace(status, subject=manifest("two").digest), ALICE).raw.decode(),
            untrusted,
            "wrong-subject",
        ),
        (
            "another kind",
            "scan",
            attest(status, ALICE).raw.decode(),
            untrusted,
            "wrong-predicate-type",
        ),
        *(
            (name, kind, changed(kind, change, drop), invalid, reason)
            for name, kind, change, drop, reason in (
                ("a field of ours that nobody knows", "status", {"x": 1}, (), "unknown-field"),
                ("no status", "status", {}, ("status",), "malformed-predicate"),
                ("an unknown status", "status", {"status": "gone"}, (), "malformed-predicate"),
                ("a time with fractions", "status", {"statedAt": "2026-01-31T12:00:00.5Z"}, (), "malformed-predicate"),
                ("a message of two lines", "status", {"message": "a\nb"}, (), "malformed-predicate"),
                ("counts of other checks", "scan", {"counts": {"secrets": 1}}, (), "malformed-predicate"),
                ("fewer counted than found", "scan", {"counts": {"secrets": 0, "unsafe-files": 0}}, (), "malformed-predicate"),
                ("a check that nobody knows", "scan", {"checks": ["luck"]}, (), "malformed-predicate"),
                ("more read than there is", "scan", {"coverage": {"files": 1, "sampledFiles": 1, "unreadFiles": 1, "bytes": 1, "readBytes": 1}}, (), "malformed-predicate"),
                ("coverage of something else", "scan", {"coverage": {"files": 1, "sampledFiles": 0, "unreadFiles": 0, "bytes": 1, "readBytes": 1, "x": 1}}, (), "unknown-field"),
                ("a difference that is no number", "recomputed scan", {"recomputed": [{"path": "a", "base": "b", "difference": "-1", "tolerance": "0", "environment": {}}]}, (), "malformed-predicate"),
                ("no verifier", "countersignature", {}, ("verifier",), "malformed-predicate"),
                ("neither passed nor failed", "countersignature", {"verificationResult": "MAYBE"}, (), "malformed-predicate"),
                ("a countersignature without time", "countersignature", {}, ("timeVerified",), "malformed-predicate"),
                ("inputs without a digest", "countersignature", {"inputAttestations": [{}]}, (), "malformed-predicate"),
                ("a place in the log that is no number", "countersignature", {"memcube_log": {"origin": "x", "index": "41"}}, (), "malformed-predicate"),
                ("no build definition", "provenance", {}, ("buildDefinition",), "malformed-predicate"),
            )
        ),
    ]  # fmt: skip
    found = [
        {
            "name": name,
            "kind": kind.rpartition(" ")[2],
            "subject": str(SUBJECT),
            "bundle": bundle,
            "code": code,
            "reason": reason,
        }
        for name, kind, bundle, code, reason in cases
    ]
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": True}
    models = [
        ("symbolic links allowed", changed_model({"serialization": serialization}), invalid),
        ("a file left out of the list", changed_model({"resources": []}), invalid),
    ]
    return found + [
        {
            "name": name,
            "kind": "model-signature",
            "manifest": base64.b64encode(CUBE.raw).decode(),
            "bundle": bundle,
            "code": code,
            "reason": "malformed-predicate",
        }
        for name, bundle, code in models
    ]


def text() -> str:
    """The file as it must be."""
    value = {
        "about": "docs/spec/attestations.md",
        "key": ALICE.public_key.to_pem(),
        "accept": accepted(),
        "reject": rejected(),
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
