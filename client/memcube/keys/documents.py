"""Key documents at their registry: found, entered into its log, and published as one artifact.

`NAMESPACE/memcube-keys:latest` holds the whole chain (docs/spec/keys.md). What is known here and what is
found there are taken together, so that nothing older ever replaces anything newer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.errors import (
    ForbiddenError,
    KeyNotAuthorisedError,
    MemcubeError,
    NotFoundError,
    SigningKeyError,
    UnauthenticatedError,
    UnsupportedError,
)
from memcube_protocol.reference import Reference
from memcube_signing.authority import carrier
from memcube_signing.authority.chain import Authority, resolve, signer_of
from memcube_signing.authority.document import KeyDocument, sign_document
from memcube_signing.authority.inclusion import first_unlogged, keys_of
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PublicKey, Signer
from memcube_signing.transparency import bundled
from memcube_signing.transparency.entry import LOGGED, LogPolicy

from memcube.context import Context
from memcube.copying.passage import Tally
from memcube.publishing.visibility import Visibility, set_visibility
from memcube.remote.interface import Remote
from memcube.remote.log import RemoteLog, find_log
from memcube.transfer import Repository, push_blobs
from memcube.trust import location_of

_CARRIERS: Final = 64

Signatures = Sequence[tuple[Bundle, PublicKey]]
"""Bundles of one document, each with the key that signed it."""


def namespace_of(place: Reference) -> Reference:
    """The namespace of the cube at `place`: host and first component."""
    return Reference(place.host, place.name.partition("/")[0])


def fetch(registry: Remote, namespace: str) -> tuple[bytes, ...]:
    """The bundles of key documents that `registry` has for `namespace`: none where there are none.

    Raises:
        InvalidManifestError, IntegrityError, LimitExceededError: it answers nonsense.
        NetworkError: no answer.
    """
    name = f"{namespace}/{carrier.NAME}"
    try:
        manifest = registry.manifest(name, carrier.TAG)
        layers = carrier.read(manifest)
        return tuple(registry.read_blob(name, layer, limits.BUNDLE_BYTES) for layer in layers)
    except (NotFoundError, UnauthenticatedError, ForbiddenError):
        # Other registries say one of the latter of a repository that does not exist.
        return ()


def carried(registry: Remote, name: str, listed: Iterable[oci.Descriptor]) -> tuple[bytes, ...]:
    """The bundles of key documents among what is attached to a copied cube in the repository `name`.

    None is passed over, since it could hold a revocation.

    Raises:
        InvalidManifestError, IntegrityError, LimitExceededError, NotFoundError: one cannot be read.
        NetworkError: no answer.
    """
    entries = [one for one in listed if one.artifact_type == media_types.KEYS]
    limits.require_at_most("key documents", len(entries), _CARRIERS, unit="manifests")
    layers = [
        layer
        for entry in entries
        for layer in carrier.read(registry.manifest(name, str(entry.digest)))
    ]
    once = {layer.digest: layer for layer in layers}.values()
    size_bytes = sum(layer.size for layer in once)
    limits.require_at_most("key documents", size_bytes, limits.KEY_DOCUMENTS_BYTES)
    return tuple(registry.read_blob(name, layer, limits.BUNDLE_BYTES) for layer in once)


def carry(
    context: Context, place: Repository, namespace: str, cube: oci.Manifest, known: Authority | None
) -> Tally | None:
    """Attach what is known of the origin's keys to its copy at `place`; what was moved, None: nothing to do.

    What was attached before stays: readers take all of it together. `namespace` is that of the copy; in the
    origin's own they find it anyway.

    Raises:
        UnauthenticatedError, ForbiddenError, NetworkError: as the registry answers.
    """
    if known is None or namespace == known.name:
        return None
    there, name = place.registry, place.name
    manifest = carrier.write(known.bundles, subject=cube.descriptor())
    listed = there.referrers(name, cube.digest, media_types.KEYS)
    if manifest.digest in {one.digest for one in listed}:
        return Tally()
    with context.store.session():
        for content in (b"{}", *(bundle.raw for bundle in known.bundles)):
            context.store.blobs.add(content)
        report = push_blobs(there, name, _each_once(manifest), context.store)
        there.put_manifest(name, manifest)
    return Tally(1, report.moved_bytes)


def refresh(context: Context, namespace: Reference) -> Authority | None:
    """What is known of `namespace` after asking its registry: kept from now on."""
    registry = context.remote(namespace.host)
    return context.authorities.add(location_of(namespace), fetch(registry, namespace.name))


def signed(document: KeyDocument, signers: Sequence[Signer]) -> tuple[KeyDocument, Signatures]:
    """`document` and its signatures by `signers`.

    Raises:
        SigningKeyError: a key cannot be used.
    """
    keys = [signer.public_key for signer in signers]
    return document, list(zip(sign_document(document, signers), keys, strict=True))


def publish(context: Context, document: KeyDocument, signatures: Signatures) -> Authority:
    """Let `document` follow in its namespace's chain, log it, and publish the whole chain.

    Raises:
        KeyNotAuthorisedError: those who signed may not change the keys of the namespace so.
        ForbiddenError, UnauthenticatedError, NetworkError: as the registry answers.
        SignatureInvalidError: the log's proof does not hold.
        SigningKeyError: the log cannot hold a signature that is needed.
    """
    authority = document.authority
    namespace = Reference.parse(f"{authority}/{carrier.NAME}")
    both = found(context, namespace_of(namespace))
    made = resolve(authority, (*both, *(bundle.raw for bundle, _ in signatures)))
    if made is None or made.current != document:
        raise KeyNotAuthorisedError(
            f"the keys that signed here may not change the keys of {authority}",
            hint="sign with the keys in charge, or with the recovery keys, and with the new ones "
            "(--key NAME, several times; on other machines: memcube keys sign); if somebody "
            "changed the keys meanwhile, begin anew",
        )
    return _send(context, made, [key for _, key in signatures])


def resend(context: Context, namespace: Reference) -> Authority:
    """Publish again what is known of `namespace`, and log what the registry's log lacks of it.

    Raises:
        NotFoundError: the namespace has no chain yet.
        ForbiddenError, UnauthenticatedError, NetworkError, SignatureInvalidError: as `publish`.
    """
    known = refresh(context, namespace)
    if known is None:
        raise no_chain(namespace)
    return _send(context, known, ())


def found(context: Context, namespace: Reference) -> tuple[bytes, ...]:
    """What is known of `namespace`, and what its registry shows now, not resolved."""
    served = fetch(context.remote(namespace.host), namespace.name)
    return (*context.authorities.bundles(location_of(namespace)), *served)


def _send(context: Context, made: Authority, keys: Sequence[PublicKey]) -> Authority:
    """Put the whole chain at its place, logged, where everybody may read it; `keys` signed it, too."""
    host, _, name = made.name.partition("/")
    place = Reference(host, f"{name}/{carrier.NAME}", carrier.TAG)
    registry = context.registry(place.host)
    with context.store.session():
        context.store.blobs.add(b"{}")
        # Only now the repository exists: the log takes statements about what is there.
        push_blobs(registry, place.name, [oci.EMPTY], context.store)
        log = find_log(registry)
        bundles = _logged(log, place.name, made, keys) if log else list(made.bundles)
        for bundle in bundles:
            context.store.blobs.add(bundle.raw)
        manifest = carrier.write(bundles)
        push_blobs(registry, place.name, _each_once(manifest), context.store)
        registry.put_manifest(place.name, manifest, carrier.TAG)
    with suppress(UnsupportedError):
        set_visibility(context, place, Visibility.PUBLIC)
    kept = context.authorities.add(made.name, [bundle.raw for bundle in bundles])
    assert kept is not None
    return kept


def _logged(log: RemoteLog, name: str, made: Authority, more: Sequence[PublicKey]) -> list[Bundle]:
    """The bundles of `made`, one a signature, each with its log entry where the log takes it.

    Raises:
        SigningKeyError: it takes too few of them for its readers.
    """
    keys = {key.id: key for key in (*keys_of(made), *more)}
    done: dict[bytes, Bundle] = {}
    for bundle in made.bundles:
        key, signature = signer_of(bundle, keys.values(), made.name), bundle.signature.value
        if key is None or key.algorithm not in LOGGED:
            done.setdefault(signature, bundle)
        elif _is_in(log, bundle, key):
            done[signature] = bundle
        elif signature not in done:
            entry = log.submit(name, bundle.envelope, key)
            done[signature] = bundled.attach(bundle, [entry])
            bundled.verify_logged(done[signature], key, LogPolicy(log.key))
    logged = list(done.values())
    if first_unlogged(replace(made, bundles=tuple(logged)), LogPolicy(log.key)):
        raise SigningKeyError(
            f"the log of {log.registry.host} cannot hold these signatures, so that nobody would accept them",
            hint="sign with ECDSA P-256 keys (memcube keys generate makes one)",
        )
    return logged


def _is_in(log: RemoteLog, bundle: Bundle, key: PublicKey) -> bool:
    """Whether the bundle proves already that `log` has it."""
    with suppress(MemcubeError):
        bundled.verify_logged(bundle, key, LogPolicy(log.key))
        return True
    return False


def _each_once(manifest: oci.Manifest) -> list[oci.Descriptor]:
    return list({blob.digest: blob for blob in manifest.blobs}.values())


def no_chain(namespace: Reference) -> NotFoundError:
    """The error of a change to what nobody began."""
    return NotFoundError(
        f"{location_of(namespace)} has no key documents yet",
        hint=f"begin with: memcube keys announce {namespace.name}",
    )
