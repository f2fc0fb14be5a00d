"""Sigstore bundles v0.3 with a public-key hint and exactly one signature over an in-toto statement.

A bundle is how an attestation travels: the DSSE envelope, the hint that names the key (memcube
writes the key's id), and, when it was logged, the log's entries, kept here as they came.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from memcube_protocol import canonical_json, limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidStatementError, SignatureInvalidError
from memcube_protocol.values import frozen

from memcube_signing import statement
from memcube_signing.dsse import Envelope, Signature, known_fields, pae, text_field
from memcube_signing.keys import Algorithm, PublicKey, Signer, is_canonical
from memcube_signing.statement import Statement

ALL_ALGORITHMS: Final = frozenset(Algorithm)
_HINT: Final = "see docs/spec/statements.md, Bundle"
_FIELDS: Final = {"mediaType", "verificationMaterial", "dsseEnvelope"}
_MATERIAL: Final = {"publicKey", "tlogEntries", "timestampVerificationData"}


@frozen
class Bundle:
    """A bundle as received: `raw` are its exact bytes, nothing in it is verified yet.

    `log_entries` and `timestamps` are the parsed JSON of the fields of that name.
    """

    raw: bytes
    envelope: Envelope
    key_hint: str
    log_entries: tuple[Mapping[str, Any], ...] = ()
    timestamps: Mapping[str, Any] | None = None

    @property
    def signature(self) -> Signature:
        """The only signature."""
        return self.envelope.signatures[0]

    @property
    def digest(self) -> Digest:
        """SHA-256 digest of the exact bytes."""
        return Digest.of(self.raw)


@frozen
class Policy:
    """What a verifier demands of a bundle; never taken from the bundle itself.

    `keys` may sign, with `algorithms`; the statement must have `predicate_type` and be about
    `subject`. `canonical_only` also demands the one form of a signature that memcube writes. With
    `pem_hint` the bundle names its key by `PublicKey.pem_id`.
    """

    keys: Collection[PublicKey]
    predicate_type: str
    subject: Digest
    algorithms: frozenset[Algorithm] = ALL_ALGORITHMS
    canonical_only: bool = True
    pem_hint: bool = False


def parse(raw: bytes) -> Bundle:
    """The bundle that `raw` holds, in strict JSON; fields that are not known are refused.

    Raises:
        LimitExceededError: more than 2 MiB, or a statement over 1 MiB.
        InvalidJsonError: not strict JSON.
        InvalidStatementError: another version, certificates, no DSSE envelope, several signatures.
    """
    limits.require_at_most("bundle", len(raw), limits.BUNDLE_BYTES)
    value = canonical_json.parse_object(raw, what="bundle")
    if value.get("mediaType") != media_types.SIGSTORE_BUNDLE:
        raise _invalid(f"its mediaType is not {media_types.SIGSTORE_BUNDLE}", "wrong-bundle-type")
    if "messageSignature" in value:
        raise _invalid("it signs a message, not a statement", "not-a-statement")
    fields = known_fields(value, "bundle", _FIELDS)
    hint, entries, timestamps = _material(fields.get("verificationMaterial"))
    envelope = Envelope.from_json(fields.get("dsseEnvelope"))
    if len(envelope.signatures) != 1:
        raise _invalid("it holds several signatures, one is wanted", "several-signatures")
    return Bundle(raw, envelope, hint, entries, timestamps)


def sign(content: Statement, signer: Signer, *, hint: str | None = None) -> Bundle:
    """A bundle over `content`, signed by `signer`; `hint` names its key other than by its id.

    Raises:
        SigningKeyError: the signer cannot sign now.
        LimitExceededError: a statement over 1 MiB.
    """
    payload = content.to_bytes()
    # Only the bundle names the key: verifiers disagree on what a keyid inside the envelope means.
    signature = Signature(signer.sign(pae(media_types.IN_TOTO, payload)))
    envelope = Envelope(media_types.IN_TOTO, payload, (signature,))
    return write(envelope, hint or signer.public_key.id)


def write(envelope: Envelope, key_hint: str) -> Bundle:
    """A new bundle in canonical JSON around a signed `envelope`."""
    return parse(
        canonical_json.dump(
            {
                "mediaType": media_types.SIGSTORE_BUNDLE,
                "verificationMaterial": {"publicKey": {"hint": key_hint}},
                "dsseEnvelope": envelope.to_json(),
            }
        )
    )


def verify(bundle: Bundle, policy: Policy) -> tuple[Statement, PublicKey]:
    """The statement of `bundle` and the key that signed it, once every demand of `policy` is met.

    The signature is checked over the bytes received, before any of them is read as a statement.

    Raises:
        SignatureInvalidError: signed by no accepted key, or about something else.
        InvalidStatementError: well signed, but not a statement.
    """
    key = _signer_of(bundle, policy)
    if bundle.envelope.payload_type != media_types.IN_TOTO:
        raise _untrusted(
            f"its payload is {bundle.envelope.payload_type[:80]!r}, not {media_types.IN_TOTO}",
            "wrong-payload-type",
        )
    key.verify(bundle.signature.value, bundle.envelope.signed)
    if policy.canonical_only and not is_canonical(bundle.signature.value, key.algorithm):
        raise _untrusted("its signature is not in canonical form (low S)", "malleable-signature")
    said = statement.parse(bundle.envelope.payload)
    if said.predicate_type != policy.predicate_type:
        raise _untrusted(
            f"it states {said.predicate_type[:120]!r}, not {policy.predicate_type!r}",
            "wrong-predicate-type",
        )
    if said.subject != policy.subject:
        raise _untrusted(f"it is about {said.subject}, not {policy.subject}", "wrong-subject")
    return said, key


def _signer_of(bundle: Bundle, policy: Policy) -> PublicKey:
    """The accepted key that the hint names."""
    if bundle.signature.key_id not in ("", bundle.key_hint):
        raise _untrusted("its two key hints differ", "hint-mismatch")
    for key in policy.keys:
        if bundle.key_hint == (key.pem_id if policy.pem_hint else key.id):
            if key.algorithm not in policy.algorithms:
                raise _untrusted(f"{key.algorithm} is not accepted here", "forbidden-algorithm")
            return key
    raise _untrusted(f"no accepted key has the id {bundle.key_hint[:80]!r}", "unknown-key")


def _material(value: object) -> tuple[str, tuple[Mapping[str, Any], ...], Mapping[str, Any] | None]:
    if isinstance(value, dict) and {"certificate", "x509CertificateChain"} & value.keys():
        raise _invalid("it brings a certificate, a public-key hint is wanted", "has-certificate")
    fields = known_fields(value, "verificationMaterial", _MATERIAL)
    public_key = known_fields(fields.get("publicKey"), "publicKey", {"hint"})
    entries = fields.get("tlogEntries", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _invalid("its tlogEntries are not a list of objects")
    timestamps = fields.get("timestampVerificationData")
    if timestamps is not None and not isinstance(timestamps, dict):
        raise _invalid("its timestampVerificationData is not an object")
    return text_field(public_key, "hint", "publicKey"), tuple(entries), timestamps


def _invalid(why: str, reason: str = "malformed-bundle") -> InvalidStatementError:
    return InvalidStatementError(f"not an acceptable bundle: {why}", hint=_HINT, reason=reason)


def _untrusted(why: str, reason: str) -> SignatureInvalidError:
    return SignatureInvalidError(
        f"the signature is not accepted: {why}",
        hint="do not use this cube; ask its publisher, or pull it from its origin",
        reason=reason,
    )
