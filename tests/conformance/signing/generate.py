"""The golden vectors of signed statements, made from fixed keys: `python -m conformance.signing.generate`.

Any language can read them: text fields are text, bytes are base64. `accept` says what a reader must
find, `reject` the code and reason of the refusal.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import utils
from memcube_protocol import canonical_json, media_types
from memcube_signing import dsse
from memcube_signing.release import Parent, Release
from support.signing import (
    ALICE,
    EDDIE,
    JOB,
    MALLORY,
    OTHER,
    attached,
    changed,
    manifest,
    next_release,
    release,
    signed,
    signed_payload,
    signed_predicate,
)

FOLDER = Path(__file__).parent
Json = dict[str, Any]
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P384 = """-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEGhqy9RlLfqKjKEKBZF66je3/jYQeS3dJ
qi9s8yRDYs+YsLy1WETOt+p9xN1FNyUcQSxzuvzbJYBx3EFyg7uYZh3tEMdqDR80
Adayydubtlb3kn+L1cWgWWbajHAAU1MT
-----END PUBLIC KEY-----
"""


_NOT_REDUCED = (2**255 - 19 + 3).to_bytes(32, "little")
"""The point with y = 3, in another spelling."""


def _compressed(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a P-256 key with its point compressed."""
    point = bytes([2 + der[-1] % 2]) + der[27:59]
    algorithm = der[2:23]
    inner = algorithm + bytes([3, len(point) + 1, 0]) + point
    return bytes([0x30, len(inner)]) + inner


def keys() -> Json:
    """Public keys in PEM, their ids; and what is no acceptable key."""
    pem = ALICE.public_key.to_pem()
    small = bytes.fromhex("302a300506032b6570032100") + bytes(32)
    return {
        "about": "docs/spec/statements.md, Keys",
        "accept": [
            {
                "name": name,
                "pem": key.public_key.to_pem(),
                "algorithm": str(key.public_key.algorithm),
                "id": key.public_key.id,
            }
            for name, key in (("ecdsa-p256", ALICE), ("ed25519", EDDIE))
        ],
        "reject": [
            {"name": name, "pem": text, "code": "invalid-statement", "reason": reason}
            for name, text, reason in (
                ("p384", _P384, "unsupported-algorithm"),
                ("two blocks", pem + pem, "malformed-key"),
                ("text after the block", pem + "x", "malformed-key"),
                ("no padding", pem.replace("=", ""), "malformed-key"),
                ("byte after the key", _block(ALICE.public_key.der + b"\0"), "malformed-key"),
                ("compressed point", _block(_compressed(ALICE.public_key.der)), "malformed-key"),
                ("small order", _block(small), "weak-key"),
                ("not reduced", _block(small[:12] + _NOT_REDUCED), "weak-key"),
            )
        ],
    }


def pae() -> Json:
    """What is signed for a payload type and a payload."""
    pairs = [
        ("http://example.com/HelloWorld", b"hello world"),
        ("", b""),
        (media_types.IN_TOTO, b"{}"),
        ("ü", bytes(range(256))),
    ]
    return {
        "about": "DSSE 1.0, PAE definition; bytes in base64",
        "accept": [
            {"type": kind, "payload": _b64(payload), "pae": _b64(dsse.pae(kind, payload))}
            for kind, payload in pairs
        ],
    }


def releases() -> Json:
    """Bundles with the key that verifies them; and bundles to refuse with the same arguments."""
    return {
        "about": "docs/spec/statements.md, Bundle and Release",
        "accept": [_accepted(*case) for case in _good_releases()],
        "reject": [
            {
                "name": name,
                "bundle": _b64(raw),
                "key": ALICE.public_key.to_pem(),
                "subject": str(manifest().digest),
                "code": code,
                "reason": reason,
            }
            for name, raw, code, reason in _bad_bundles()
        ],
    }


def referrers() -> Json:
    """Referrer manifests as they are pushed."""
    bundle = signed()
    return {
        "about": "docs/spec/statements.md, Referrer",
        "accept": [
            {
                "name": "release",
                "subject": json.loads(canonical_json.dump(manifest().descriptor().to_json())),
                "bundle": _b64(bundle.raw),
                "key": ALICE.public_key.to_pem(),
                "manifest": attached(bundle, manifest()).raw.decode(),
            }
        ],
    }


def jobs() -> Json:
    """Patterns of jobs with the job of the vector `made by a CI job`: which fit, and what is none."""
    ref, subject = dict(JOB.claims)["ref"], JOB.subject
    fitting: list[tuple[Json, bool]] = [
        ({"sub": subject}, True),
        ({"ref": ref}, True),
        ({"ref": "refs/tags/*", "repository": "alice/memories"}, True),
        ({"sub": "repo:alice/memories:*"}, True),
        ({"ref": "refs/heads/*"}, False),
        ({"ref": ref[:-1]}, False),
        ({"ref": f"{ref}/*"}, False),
        ({"repository": "alice/memories/*"}, False),
        ({"repository": "Alice/memories"}, False),
        ({"environment": "release"}, False),
        ({"ref": ref, "environment": "release"}, False),
    ]
    refused: list[Json] = [{}, {"repository": "alice/mem*"}, {"sub": "*"}, {"sub": "a/*/b/*"}, {"Sub": "a"}, {"sub": ""}]  # fmt: skip
    return {
        "about": "docs/spec/statements.md, Job",
        "job": JOB.to_json(),
        "patterns": [
            {"issuer": JOB.issuer, "claims": claims, "fits": fits} for claims, fits in fitting
        ],
        "reject": [{"issuer": JOB.issuer, "claims": claims} for claims in refused],
    }


FILES: dict[str, Callable[[], Json]] = {
    "keys.json": keys,
    "pae.json": pae,
    "releases.json": releases,
    "referrers.json": referrers,
    "jobs.json": jobs,
}


def text_of(name: str) -> str:
    """Content of the file `name`."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=False) + "\n"


def _good_releases() -> list[tuple[str, Release, Any]]:
    first = release()
    lineage = (Parent("other.example:5000/bob/facts", OTHER, "derived"),)
    return [
        ("first", first, ALICE),
        ("second, derived, expiring", next_release(
            first, "two", lineage=lineage, expires_at=datetime(2027, 1, 1, tzinfo=UTC)
        ), ALICE),
        ("version with build", release(version="1.0.0-rc.1+linux"), ALICE),
        ("ed25519", release(EDDIE), EDDIE),
        ("made by a CI job", release(job=JOB), ALICE),
    ]  # fmt: skip


def _accepted(name: str, said: Release, key: Any) -> Json:
    bundle = signed_payload(said.to_statement().to_bytes(), key)
    return {
        "name": name,
        "bundle": _b64(bundle),
        "key": key.public_key.to_pem(),
        "subject": str(said.subject),
        "predicate": json.loads(canonical_json.dump(dict(said.to_statement().predicate))),
    }


def _bad_bundles() -> list[tuple[str, bytes, str, str]]:
    good = signed().raw
    signature = "dsseEnvelope.signatures.0.sig"
    payload = release().to_statement().to_bytes()
    entry = json.loads(good)["dsseEnvelope"]["signatures"][0]
    stolen = signed_payload(signed(MALLORY).envelope.payload, ALICE)
    malformed, invalid = "invalid-statement", "signature-invalid"
    return [
        ("not json", b"bundle", "invalid-json", "invalid-json"),
        ("duplicate key", b'{"mediaType":"x",' + good[1:], "invalid-json", "invalid-json"),
        ("older bundle version", changed(good, "mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.2"), malformed, "wrong-bundle-type"),
        ("certificate", changed(good, "verificationMaterial.certificate", {}), malformed, "has-certificate"),
        ("message signature", changed(good, "messageSignature", {}), malformed, "not-a-statement"),
        ("unknown field", changed(good, "more", 1), malformed, "unknown-field"),
        ("no signature", changed(good, "dsseEnvelope.signatures", []), malformed, "no-signature"),
        ("two signatures", changed(good, "dsseEnvelope.signatures", [entry, entry]), malformed, "several-signatures"),
        ("url-safe base64", changed(good, signature, entry["sig"].replace("/", "_").replace("+", "-").rstrip("=")), malformed, "not-base64"),
        ("stray bits in base64", _stray_bits(good), malformed, "not-base64"),
        ("hints differ", changed(good, "dsseEnvelope.signatures.0.keyid", MALLORY.public_key.id), invalid, "hint-mismatch"),
        ("other key", signed(MALLORY).raw, invalid, "unknown-key"),
        ("payload changed", changed(good, "dsseEnvelope.payload", _b64(payload.replace(b"1.0.0", b"1.0.1"))), invalid, "bad-signature"),
        ("payload re-serialised", changed(good, "dsseEnvelope.payload", _b64(json.dumps(json.loads(payload)).encode())), invalid, "bad-signature"),
        ("high S", changed(good, signature, _b64(_high_s(base64.b64decode(entry["sig"])))), invalid, "malleable-signature"),
        ("wrong payload type", signed_payload(payload, payload_type="text/plain"), invalid, "wrong-payload-type"),
        ("wrong predicate type", signed_payload(payload.replace(b"memcube.org/release/v1", b"slsa.dev/provenance/v1")), invalid, "wrong-predicate-type"),
        ("wrong subject", signed(subject=OTHER).raw, invalid, "wrong-subject"),
        ("another publisher's statement", stolen, invalid, "not-a-publisher"),
        ("not a statement", signed_payload(b"{}"), malformed, "wrong-statement-type"),
        ("statement with a duplicate key", signed_payload(b'{"_type":1,' + payload[1:]), "invalid-json", "invalid-json"),
        ("statement not canonical", signed_payload(json.dumps(json.loads(payload)).encode()), malformed, "not-canonical"),
        *((name, signed_payload(_about(subjects)), malformed, "wrong-subject") for name, subjects in _odd_subjects()),
        ("keys that are not sorted", signed_predicate({"publisher": {"keyIds": sorted([ALICE.public_key.id, MALLORY.public_key.id], reverse=True)}}), malformed, "malformed-release"),
        ("no keys", signed_predicate({"publisher": {"keyIds": []}}), malformed, "malformed-release"),
        ("unknown field of the publisher", signed_predicate({"publisher": {"keyIds": [ALICE.public_key.id], "name": "Alice"}}), malformed, "unknown-field"),
        ("seq of zero", signed_predicate({"seq": 0}), malformed, "malformed-release"),
        ("time with fractions", signed_predicate({"createdAt": "2026-01-31T12:00:00.5Z"}), malformed, "malformed-release"),
        ("a day that is none", signed_predicate({"createdAt": "2026-02-30T12:00:00Z"}), malformed, "malformed-release"),
        ("expired before it was created", signed_predicate({"expiresAt": "2026-01-01T00:00:00Z"}), malformed, "malformed-release"),
        ("origin with a tag", signed_predicate({"origin": "registry.example/alice/notes:1.0.0"}), malformed, "malformed-release"),
        ("origin that is not the subject's name", signed_predicate({"origin": "registry.example/alice/facts"}), malformed, "malformed-release"),
        ("a parent without relation", signed_predicate({"lineage": [{"origin": "a.example/b/c", "digest": str(OTHER)}]}), malformed, "malformed-release"),
        ("unknown field of a release", signed_predicate({"more": 1}), malformed, "unknown-field"),
        ("no seq", signed_predicate({}, ("seq",)), malformed, "malformed-release"),
        ("second without previous", signed_predicate({"seq": 2}), malformed, "malformed-release"),
        ("first with previous", signed_predicate({"previous": str(OTHER)}), malformed, "malformed-release"),
        ("version not whole", signed_predicate({"version": "1.0"}), malformed, "malformed-release"),
        ("time with offset", signed_predicate({"createdAt": "2026-01-31T12:00:00+00:00"}), malformed, "malformed-release"),
        *((f"job: {name}", signed_predicate({"job": job}), malformed, reason) for name, job, reason in _bad_jobs()),
        ("origin without host", signed_predicate({"origin": "alice/notes"}), malformed, "malformed-release"),
    ]  # fmt: skip


def _about(subjects: list[Json]) -> bytes:
    """The payload of a release, about these subjects."""
    said = json.loads(release().to_statement().to_bytes())
    return canonical_json.dump(said | {"subject": subjects})


def _odd_subjects() -> list[tuple[str, list[Json]]]:
    (one,) = json.loads(release().to_statement().to_bytes())["subject"]
    return [
        ("no subject", []),
        ("two subjects", [one, one]),
        ("two digests", [one | {"digest": one["digest"] | {"sha512": "0" * 128}}]),
        ("a digest of another algorithm", [one | {"digest": {"sha1": "0" * 40}}]),
    ]


def _bad_jobs() -> list[tuple[str, Any, str]]:
    good, malformed = JOB.to_json(), "malformed-job"
    return [
        ("no object", "alice", malformed),
        ("unknown field", good | {"more": 1}, "unknown-field"),
        ("no subject", {"issuer": good["issuer"], "claims": {}}, malformed),
        ("issuer without scheme", good | {"issuer": "ci.example"}, malformed),
        ("issuer with a slash at its end", good | {"issuer": "https://ci.example/"}, malformed),
        ("claim that is no text", good | {"claims": {"run_id": 1}}, malformed),
        ("empty claim", good | {"claims": {"ref": ""}}, malformed),
        ("control character", good | {"subject": "a\nb"}, malformed),
        ("subject among the claims", good | {"claims": {"sub": "x"}}, malformed),
    ]


def _stray_bits(good: bytes) -> bytes:
    """A payload whose last base64 group has an unused bit set."""
    payload = base64.b64decode(json.loads(good)["dsseEnvelope"]["payload"])
    text = _b64(payload[: len(payload) // 3 * 3] + b"}")
    return changed(good, "dsseEnvelope.payload", text.replace("fQ==", "fR=="))


def _high_s(signature: bytes) -> bytes:
    r, s = utils.decode_dss_signature(signature)
    return utils.encode_dss_signature(r, _ORDER - s)


def _block(der: bytes) -> str:
    text = _b64(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / name).write_text(text_of(name), "utf-8")
