"""Fixed keys and statements for tests: the same bytes in every run (ECDSA signs deterministically)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.dsse import Envelope, Signature, pae
from memcube_signing.job import Job
from memcube_signing.keys import PrivateKey
from memcube_signing.release import PREDICATE_TYPE, Release, sign_release

ALICE = PrivateKey(ec.derive_private_key(0xA11CE, ec.SECP256R1()))
MALLORY = PrivateKey(ec.derive_private_key(0x3A110F4, ec.SECP256R1()))
EDDIE = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x0e" * 32))

ORIGIN = "registry.example/alice/notes"
NOW = datetime(2026, 2, 1, 12, 0, 0, tzinfo=UTC)
CREATED = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)

JOB = Job(
    "https://token.actions.githubusercontent.com",
    "repo:alice/memories:ref:refs/tags/v1.0.0",
    (
        ("ref", "refs/tags/v1.0.0"),
        ("repository", "alice/memories"),
        ("sha", "0123456789abcdef0123456789abcdef01234567"),
        ("workflow_ref", "alice/memories/.github/workflows/release.yml@refs/tags/v1.0.0"),
    ),
)


def manifest(text: str = "one") -> oci.Manifest:
    """A small cube manifest; another `text` gives another digest."""
    return oci.write_manifest(
        artifact_type=media_types.CUBE,
        config=oci.EMPTY,
        layers=[],
        annotations={"org.example.text": text},
    )


def release(key: PrivateKey = ALICE, **changes: Any) -> Release:
    """A first release of `manifest()`, with `changes`."""
    first = Release(
        subject=manifest().digest,
        origin=ORIGIN,
        version="1.0.0",
        seq=1,
        previous=None,
        licence="CC-BY-4.0",
        publishers=(key.public_key.id,),
        created_at=CREATED,
    )
    return replace(first, **changes)


def next_release(before: Release, text: str, **changes: Any) -> Release:
    """The release of `manifest(text)` that follows `before`."""
    following = {
        "subject": manifest(text).digest,
        "seq": before.seq + 1,
        "previous": before.subject,
        "version": f"1.{before.seq}.0",
    }
    return replace(before, **(following | changes))


def signed(key: PrivateKey = ALICE, **changes: Any) -> Bundle:
    """A bundle of `release(**changes)` by `key`."""
    return sign_release(release(key, **changes), key)


def signed_payload(
    payload: bytes, key: PrivateKey = ALICE, payload_type: str = media_types.IN_TOTO
) -> bytes:
    """A bundle with a right signature over any `payload`, as a hostile publisher makes it."""
    signature = Signature(key.sign(pae(payload_type, payload)))
    return bundles.write(Envelope(payload_type, payload, (signature,)), key.public_key.id).raw


def signed_predicate(change: dict[str, Any], drop: tuple[str, ...] = ()) -> bytes:
    """A bundle with a right signature over a release predicate with fields changed or dropped."""
    value = json.loads(release().to_statement().to_bytes())
    value["predicate"] |= change
    for name in drop:
        del value["predicate"][name]
    return signed_payload(canonical_json.dump(value))


def changed(bundle: bytes, path: str, value: Any) -> bytes:
    """`bundle` with the field at the dotted `path` replaced, or removed where `value` is `...`."""
    document = json.loads(bundle)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = document
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return canonical_json.dump(document)


def attached(bundle: Bundle, subject: oci.Manifest, key: PrivateKey = ALICE) -> oci.Manifest:
    """The referrer of a release bundle."""
    return referrer.write(bundle, PREDICATE_TYPE, subject.descriptor(), key.public_key)


def flipped(content: bytes, position: int, mask: int = 1) -> bytes:
    """`content` with some bits of one byte flipped."""
    changed_byte = content[position] ^ mask
    return content[:position] + bytes([changed_byte]) + content[position + 1 :]


OTHER = Digest.of(b"other")
