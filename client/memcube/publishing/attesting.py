"""Attaching further statements to a published cube: each a bundle, each an OCI referrer of its own."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidStatementError, SignatureMissingError
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing import bundle as bundles
from memcube_signing import referrer, release
from memcube_signing.bundle import Bundle
from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.predicates import model_signature
from memcube_signing.statement import Statement

from memcube.consuming.finding import Found, resolve_unjudged
from memcube.context import Context
from memcube.remote.interface import Remote
from memcube.remote.log import logged
from memcube.transfer import push_blobs
from memcube.trust import Signed, releases_of
from memcube.trust.attested import KINDS, NAMES


@frozen
class Made:
    """A statement that a registry holds now: of which type, about what, signed by whom, attached by what."""

    reference: Reference
    subject: Digest
    predicate_type: str
    bundle: Digest
    key_id: str
    referrer: Digest


def attest(
    context: Context,
    reference: Reference,
    predicate_type: str,
    predicate: Mapping[str, Any],
    *,
    key: str | None = None,
) -> Made:
    """State `predicate` about the published cube `reference`, in the name of one's own key.

    Types that memcube knows are read back before they are signed, so that nobody signs what no reader
    takes.

    Raises:
        InvalidStatementError: the predicate breaks its type's rules, or is a release or a model
            signature, which `push` and `sign_model` make.
        NotFoundError, ForbiddenError, NetworkError: as the registry answers.
        SigningKeyError: the key cannot be used.
    """
    if predicate_type in (release.PREDICATE_TYPE, model_signature.PREDICATE_TYPE):
        raise InvalidStatementError(
            f"a {NAMES[predicate_type]} is not stated by hand",
            hint="memcube push makes it; memcube attest --type model-signature signs the files",
            reason="malformed-predicate",
        )
    found, registry = at_registry(context, reference)
    name = f"{found.reference.host}/{found.reference.name}"
    said = Statement(name, found.manifest.digest, predicate_type, predicate)
    if kind := KINDS.get(predicate_type):
        kind.read(said)
    signer = context.signer(key)
    return attach(context, registry, found, bundles.sign(said, signer), predicate_type, signer)


def sign_model(context: Context, reference: Reference, *, key: str | None = None) -> Made:
    """Sign the files of the published cube `reference` as OpenSSF model signing v1.0 does.

    Raises:
        InvalidStatementError: the key is no P-256 key.
        NotFoundError, ForbiddenError, NetworkError: as the registry answers.
        SigningKeyError: the key cannot be used.
    """
    found, registry = at_registry(context, reference)
    signer = context.signer(key)
    if signer.public_key.algorithm is not Algorithm.ECDSA_P256_SHA256:
        raise InvalidStatementError(
            "OpenSSF model signing takes no Ed25519 key",
            hint="sign with a P-256 key: memcube keys generate makes one",
            reason="unsupported-algorithm",
        )
    value = model_signature.of_manifest(found.manifest, _folder_name(found.reference))
    bundle = model_signature.sign(value, signer)
    return attach(context, registry, found, bundle, model_signature.PREDICATE_TYPE, signer)


def at_registry(context: Context, reference: Reference) -> tuple[Found, Remote]:
    """The cube at `reference` as its registry has it now, unjudged, and that registry.

    Raises:
        NotFoundError, NetworkError: as the registry answers.
    """
    place = context.at_registry(reference)
    registry = context.remote(place.host)
    return resolve_unjudged(registry, place), registry


def own_release(found: Found, key: PublicKey) -> Signed:
    """The release of the cube `found` by `key`.

    Raises:
        SignatureMissingError: this key did not release it.
    """
    for signed in releases_of(found.manifest, found.attestations):
        if signed.key == key:
            return signed
    raise SignatureMissingError(
        f"{found.reference} was not released with the key {key.id}",
        hint="use the key that signed the release: --key NAME",
    )


def attach(
    context: Context,
    registry: Remote,
    found: Found,
    bundle: Bundle,
    predicate_type: str,
    signer: Signer,
    *,
    held: Container[Digest] = (),
) -> Made:
    """Log `bundle` and push it as a referrer of the cube `found`; keep it beside the cube in the store.

    `held` are blobs that the repository is known to hold.

    Raises:
        ForbiddenError, NetworkError: as the registry answers.
    """
    key, place = signer.public_key, found.reference
    if predicate_type != model_signature.PREDICATE_TYPE:  # its verifiers expect the bare bundle
        bundle = logged(registry, place.name, bundle, key)
    manifest = referrer.write(bundle, predicate_type, found.manifest.descriptor(), key)
    with context.store.session():
        for content in (b"{}", bundle.raw, manifest.raw):
            context.store.blobs.add(content)
        push_blobs(registry, place.name, manifest.blobs, context.store, held=held)
        registry.put_manifest(place.name, manifest)
        context.store.relate(place.location, found.manifest.digest, manifest.digest)
    subject = found.manifest.digest
    return Made(place, subject, predicate_type, bundle.digest, key.id, manifest.digest)


def _folder_name(reference: Reference) -> str:
    """What the cube's folder is called: the last component of its name."""
    return reference.name.rpartition("/")[2]
