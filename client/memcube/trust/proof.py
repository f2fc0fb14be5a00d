"""`.memproof`: everything that the decision about one cube looks at, in one file (docs/spec/proof.md).

It brings evidence, no trust: keys come from the policy and the pins of whoever verifies, as always.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from memcube_protocol import canonical_json, limits, media_types, oci, timestamps
from memcube_protocol.cube import require_cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidError,
    InvalidProofError,
    LimitExceededError,
)
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen

from memcube.trust.question import Attestation

SUFFIX: Final = ".memproof"
FORMAT: Final = media_types.PROOF
_ATTESTATIONS: Final = 64
_KEY_DOCUMENTS: Final = 1024
_FIELDS: Final = {
    *("format", "reference", "manifest", "config", "attestations", "keyDocuments", "checkedAt"),
}


@frozen
class Proof:
    """The evidence about the cube at `reference`, as it was at `checked_at` by the exporter's clock.

    `manifest`, `config` and the attestations are exact bytes, of which nothing is believed yet.

    Raises:
        InvalidProofError: a reference without host, a time without zone, or a manifest of something else.
        DigestMismatchError: a config or bundle is not the one that its manifest names.
    """

    reference: Reference
    manifest: oci.Manifest
    config: bytes
    attestations: tuple[Attestation, ...]
    checked_at: datetime
    key_documents: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not self.reference.host:
            raise _invalid("its reference names no host")
        if self.checked_at.tzinfo is not UTC or self.checked_at.microsecond:
            raise _invalid("its time is not in whole seconds of UTC")
        require_cube(self.manifest)
        assert self.manifest.config
        _require_named("config", self.config, self.manifest.config.digest)
        for attestation in self.attestations:
            if len(attestation.referrer.layers) != 1:
                raise _invalid("a referrer does not name exactly one bundle")
            _require_named("bundle", attestation.bundle, attestation.referrer.layers[0].digest)

    def to_bytes(self) -> bytes:
        """The file's content, in canonical JSON.

        Raises:
            LimitExceededError: more than `limits.PROOF_BYTES`.
        """
        content = canonical_json.dump(
            {
                "format": FORMAT,
                "reference": str(self.reference),
                "manifest": _encode(self.manifest.raw),
                "config": _encode(self.config),
                "attestations": [
                    {"referrer": _encode(one.referrer.raw), "bundle": _encode(one.bundle)}
                    for one in self.attestations
                ],
                "keyDocuments": [_encode(one) for one in self.key_documents],
                "checkedAt": timestamps.write_seconds(self.checked_at),
            }
        )
        limits.require_at_most("proof", len(content), limits.PROOF_BYTES)
        return content


def parse(content: bytes) -> Proof:
    """The proof that `content` holds, in its one canonical form.

    Raises:
        InvalidProofError: another format, an unknown field, or not canonical.
        LimitExceededError: larger than a limit.
        DigestMismatchError: parts of it do not belong together.
    """
    limits.require_at_most("proof", len(content), limits.PROOF_BYTES)
    try:
        proof = _read(canonical_json.parse_object(content, what="proof"))
    except (DigestMismatchError, InvalidProofError, LimitExceededError):
        raise
    except InvalidError as error:
        raise _invalid(str(error)) from None
    if proof.to_bytes() != content:
        raise _invalid("it is not in canonical form")
    return proof


def _read(fields: dict[str, Any]) -> Proof:
    if fields.get("format") != FORMAT or fields.keys() != _FIELDS:
        raise _invalid(f"it has not exactly the fields of {FORMAT}")
    attestations = _list(fields["attestations"], _ATTESTATIONS)
    return Proof(
        Reference.parse(_text(fields["reference"])),
        oci.parse_manifest(_bytes(fields["manifest"])),
        _bytes(fields["config"]),
        tuple(_attestation(value) for value in attestations),
        _time(fields["checkedAt"]),
        tuple(_bytes(value) for value in _list(fields["keyDocuments"], _KEY_DOCUMENTS)),
    )


def _attestation(value: object) -> Attestation:
    if not isinstance(value, dict) or value.keys() != {"referrer", "bundle"}:
        raise _invalid("an attestation has not exactly the fields referrer and bundle")
    return Attestation(oci.parse_manifest(_bytes(value["referrer"])), _bytes(value["bundle"]))


def _require_named(what: str, content: bytes, named: Digest) -> None:
    if Digest.of(content, named.algorithm) != named:
        raise DigestMismatchError(
            f"the {what} in the proof is not {named}, which its manifest names",
            hint="the file is damaged or was put together from several: export it again",
        )


def _time(value: object) -> datetime:
    text = _text(value)
    try:
        return timestamps.read_seconds(text)
    except InvalidError:
        raise _invalid("its checkedAt is not a time such as 2026-01-31T12:00:00Z") from None


def _list(value: object, most: int) -> Sequence[object]:
    if not isinstance(value, list):
        raise _invalid("a field that holds a list does not")
    limits.require_at_most("a list in the proof", len(value), most, unit="entries")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _invalid("a field that holds text does not")
    return value


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("a field that holds base64 does not") from None


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _invalid(why: str) -> InvalidProofError:
    return InvalidProofError(
        f"not an acceptable proof: {why}",
        hint="export it again with memcube proof export; see docs/spec/proof.md",
    )
