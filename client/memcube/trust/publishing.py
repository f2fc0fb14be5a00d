"""Signing a cube that is about to be published: its place in the order, the bundle, the referrer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    InvalidReferenceError,
    KeyNotAuthorisedError,
    MemcubeError,
    PublisherChangedError,
)
from memcube_protocol.reference import Reference
from memcube_protocol.timestamps import whole_seconds
from memcube_protocol.values import frozen
from memcube_signing import referrer
from memcube_signing.authority.chain import Authority
from memcube_signing.bundle import Bundle
from memcube_signing.job import Job
from memcube_signing.keys import PublicKey, Signer
from memcube_signing.release import (
    NO_LICENCE,
    PREDICATE_TYPE,
    Parent,
    Release,
    sign_release,
    verify_release,
)
from memcube_signing.transparency import bundled
from memcube_signing.transparency.entry import LogPolicy, TlogEntry
from memcube_signing.transparency.places import TakenPlace, history_of

from memcube.trust.pins import Observation, Pins, Seen
from memcube.trust.question import (
    NOTHING_ACCEPTED,
    Acceptance,
    Attestation,
    Signed,
    location_of,
)

RAISE_VERSION: Final = "a version never changes: raise the version in memcube.toml and push again"


@frozen
class Publication:
    """What the publisher says of a cube when releasing it; `job` is the CI job that does it."""

    version: str
    licence: str = NO_LICENCE
    lineage: tuple[Parent, ...] = ()
    expires_at: datetime | None = None
    job: Job | None = None


@frozen
class SignedCube:
    """A signed release, ready to attach: push `blobs`, then `manifest` by digest, then the tags.

    `observation` is to be recorded in the pins after the last tag.
    """

    release: Release
    bundle: Bundle
    manifest: oci.Manifest
    observation: Observation

    @property
    def blobs(self) -> tuple[bytes, bytes]:
        """The two blobs that `manifest` names: the empty config and the bundle."""
        return b"{}", self.bundle.raw

    @property
    def attestation(self) -> Attestation:
        """What a consumer fetches: for verifying before publishing."""
        return Attestation(self.manifest, self.bundle.raw)


def sign_cube(
    reference: Reference,
    manifest: oci.Manifest,
    publication: Publication,
    *,
    signer: Signer,
    pins: Pins,
    now: datetime,
    published: Collection[Signed] = (),
    accept: Acceptance = NOTHING_ACCEPTED,
    authority: Authority | None = None,
    logged: Collection[TakenPlace] = (),
) -> SignedCube:
    """`manifest` signed as the next release of the origin `reference` (its host and name).

    Where the namespace has key documents (`authority`), they decide who may sign; else the pin does.
    What came before is taken from the pins, from `published`, read from the registry by `releases_of`,
    and from the places that are taken in its log (`logged`). The version that is already released with
    the same manifest is signed anew in its old place, so that an interrupted publication can be run
    again.

    Raises:
        ConflictError: this version was released with another manifest.
        PublisherChangedError: the origin was published with another key, and `accept` does not name
            the new one.
        KeyNotAuthorisedError: the key documents do not let this key sign.
        InvalidReferenceError: a reference without host.
        InvalidStatementError: a field breaks its rule.
        SigningKeyError: the key cannot be used.
    """
    origin, key = _origin_of(reference), signer.public_key
    before = tuple(signed for signed in published if signed.release.origin == origin)
    if authority is None:
        _require_same_publisher(origin, pins, before, key, accept)
    publishers = publishers_of(authority, origin, key)
    own = authority.keys_for(origin) if authority else ()
    counted = [
        signed.release
        for signed in before
        if signed.key in own or _counts(signed, origin, pins, key, accept)
    ]
    past, taken = _past(origin, pins, counted), _taken(origin, publishers, logged)
    seq, previous = _place(past, taken, publication.version, manifest.digest)
    release = Release(
        subject=manifest.digest,
        origin=origin,
        version=publication.version,
        seq=seq,
        previous=previous,
        licence=publication.licence,
        publishers=publishers,
        created_at=whole_seconds(now),
        expires_at=publication.expires_at,
        lineage=publication.lineage,
        job=publication.job,
    )
    bundle = sign_release(release, signer)
    attached = referrer.write(bundle, PREDICATE_TYPE, manifest.descriptor(), key)
    # Where key documents lead from the pinned key to this one, the pinned one stays.
    pinned = pins.of(origin) if authority else None
    known = pinned.publishers if pinned else (key,)
    observation = Observation(origin, None, release, known, replaces=accept.publisher == key.id)
    return SignedCube(release, bundle, attached, observation)


def _origin_of(reference: Reference) -> str:
    if not reference.host:
        raise InvalidReferenceError(
            f"{reference} names no host to release it under",
            hint="use `Reference.with_host` with the default registry first",
        )
    return location_of(reference)


def with_entry(
    signed: SignedCube, key: PublicKey, entry: TlogEntry, policy: LogPolicy
) -> SignedCube:
    """`signed`, whose bundle carries its log entry: verified first, so that nobody publishes a broken one.

    Raises:
        SignatureInvalidError: the log's proof does not hold.
    """
    bundle = bundled.attach(signed.bundle, [entry])
    bundled.verify_logged(bundle, key, policy)
    subject = signed.manifest.subject
    assert subject is not None, "a release is attached to its cube"
    return replace(
        signed, bundle=bundle, manifest=referrer.write(bundle, PREDICATE_TYPE, subject, key)
    )


def releases_of(manifest: oci.Manifest, attestations: Sequence[Attestation]) -> tuple[Signed, ...]:
    """Releases of `manifest`, each well signed by the key that it brings; all else is passed over.

    For publishers, who know their own key: it says nothing about whom to trust.
    """
    releases: list[Signed] = []
    for attestation in attestations:
        try:
            key = referrer.read(attestation.referrer).offered_key
            keys = (key,) if key else ()
            release = verify_release(attestation.bundle, keys=keys, subject=manifest.digest)
        except MemcubeError:
            continue
        releases += [Signed(release, key) for key in keys]
    return tuple(releases)


def tagged(observation: Observation, tag: str) -> Observation:
    """`observation` made through the moving `tag`."""
    return replace(observation, tag=tag)


def publishers_of(authority: Authority | None, origin: str, key: PublicKey) -> tuple[str, ...]:
    """The ids of the keys that may sign a release of `origin`, `key` among them, sorted.

    Raises:
        KeyNotAuthorisedError: the key documents do not let `key` sign.
    """
    if authority is None:
        return (key.id,)
    for quorum in reversed(authority.current.quorums_for(origin)):
        if key in quorum.keys:
            return tuple(one.id for one in quorum.keys)
    raise KeyNotAuthorisedError(
        f"the key documents of {authority.name} do not let key {key.id} sign {origin}",
        hint="sign with a key in charge, --key NAME; which are, and what they are called here, tells: "
        f"memcube keys history {authority.name}",
    )


def _require_same_publisher(
    origin: str, pins: Pins, before: Sequence[Signed], key: PublicKey, accept: Acceptance
) -> None:
    """Stop a publisher who would alarm everybody by signing with a key that nobody knows."""
    pin = pins.of(origin)
    known = pin.publishers if pin else tuple(signed.key for signed in before)
    if known and key not in known and accept.publisher != key.id:
        raise PublisherChangedError(
            f"{origin} was published with the key {known[0].id}, not with {key.id}",
            hint="sign with that key (copy its two files here, or --key NAME), or repeat with "
            f"--accept-publisher {key.id}: everybody who pulled it before is alarmed",
        )


def _counts(signed: Signed, origin: str, pins: Pins, key: PublicKey, accept: Acceptance) -> bool:
    """Whether a release found at the registry is one of this publisher's, or accepted as such."""
    pin = pins.of(origin)
    own = (key, *pin.publishers) if pin else (key,)
    return signed.key in own or accept.publisher == key.id


def _taken(
    origin: str, publishers: tuple[str, ...], logged: Collection[TakenPlace]
) -> dict[int, Digest]:
    """What the log says is released at each place of the history that `publishers` share."""
    history = history_of(publishers)
    return {
        place.seq: place.manifest
        for place in logged
        if (place.origin, place.history) == (origin, history)
    }


def _past(origin: str, pins: Pins, published: Collection[Release]) -> dict[str, Seen]:
    """Known releases of `origin` by version."""
    pin = pins.of(origin)
    past = dict(pin.seen) if pin else {}
    for release in published:
        past[release.version] = Seen(release.seq, release.subject)
    return past


def _place(
    past: dict[str, Seen], taken: dict[int, Digest], version: str, manifest: Digest
) -> tuple[int, Digest | None]:
    """`seq` of the release and the manifest of the one before; `taken` are places in the log."""
    by_seq = taken | {seen.seq: seen.manifest for seen in past.values()}
    known = past.get(version)
    if known is not None and known.manifest != manifest:
        raise ConflictError(
            f"version {version} is released already, with other content ({known.manifest})",
            hint=RAISE_VERSION,
        )
    # The publication that was interrupted after it was logged is finished in its place.
    had = [known.seq] if known else [seq for seq, held in taken.items() if held == manifest]
    for seq in had:
        if seq == 1 or seq - 1 in by_seq:
            return seq, by_seq.get(seq - 1)
    last = max(by_seq, default=0)
    return last + 1, by_seq.get(last)
