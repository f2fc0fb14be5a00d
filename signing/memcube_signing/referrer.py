"""Attestations in a registry: a bundle as an OCI referrer of the manifest it is about.

The form is cosign's (bundle specification, "OCI Distribution"): `artifactType` is the bundle's media
type, the config is empty, the one layer is the bundle. memcube adds the publisher's public key as an
annotation, so that a first use has a key to pin; nothing believes it that has another source.
"""

from __future__ import annotations

import base64
import binascii

from memcube_protocol import media_types, oci
from memcube_protocol.errors import InvalidManifestError, InvalidStatementError
from memcube_protocol.values import frozen

from memcube_signing.bundle import Bundle
from memcube_signing.keys import PublicKey


@frozen
class BundleReferrer:
    """What a referrer manifest says: where the bundle is, what it is about, and what it claims.

    `predicate_type` and `offered_key` are claims of whoever uploaded it, never proof.
    """

    bundle: oci.Descriptor
    subject: oci.Descriptor
    predicate_type: str | None
    offered_key: PublicKey | None


def write(
    bundle: Bundle, predicate_type: str, subject: oci.Descriptor, key: PublicKey
) -> oci.Manifest:
    """The referrer manifest that attaches `bundle` to `subject`.

    Its blobs are `oci.EMPTY` (the bytes `{}`) and the bundle's exact bytes.
    """
    return oci.write_manifest(
        artifact_type=media_types.SIGSTORE_BUNDLE,
        config=oci.EMPTY,
        layers=[oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, bundle.raw)],
        subject=oci.Descriptor(subject.media_type, subject.digest, subject.size),
        annotations={
            media_types.BUNDLE_CONTENT: "dsse-envelope",
            media_types.BUNDLE_PREDICATE: predicate_type,
            media_types.PUBLISHER_KEY: base64.b64encode(key.der).decode(),
        },
    )


def read(manifest: oci.Manifest) -> BundleReferrer:
    """What the referrer `manifest` says.

    Raises:
        InvalidManifestError: it does not attach exactly one bundle to a subject.
        InvalidStatementError: the key it offers is malformed.
    """
    if manifest.effective_artifact_type != media_types.SIGSTORE_BUNDLE:
        raise _invalid("its artifactType is not that of a bundle")
    if manifest.subject is None:
        raise _invalid("it has no subject")
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != media_types.SIGSTORE_BUNDLE:
        raise _invalid("it does not hold exactly one bundle")
    offered = manifest.annotations.get(media_types.PUBLISHER_KEY)
    return BundleReferrer(
        manifest.layers[0],
        manifest.subject,
        manifest.annotations.get(media_types.BUNDLE_PREDICATE),
        _key(offered) if offered is not None else None,
    )


def _key(text: str) -> PublicKey:
    try:
        return PublicKey(base64.b64decode(text.encode(), validate=True))
    except binascii.Error:
        raise InvalidStatementError(
            "not an acceptable key: the referrer's annotation is not base64",
            hint="see docs/spec/statements.md, Referrer",
            reason="malformed-key",
        ) from None


def _invalid(why: str) -> InvalidManifestError:
    return InvalidManifestError(
        f"not an attestation: {why}", hint="see docs/spec/statements.md, Referrer"
    )
