"""Which of the attestations found with a cube are releases, and which of these an accepted key signed."""

from __future__ import annotations

from collections.abc import Sequence

from memcube_protocol import media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    KeyNotAuthorisedError,
    MemcubeError,
    PublisherChangedError,
    SignatureInvalidError,
)
from memcube_protocol.values import frozen
from memcube_signing import bundle as bundles
from memcube_signing import referrer, statement
from memcube_signing.keys import PublicKey
from memcube_signing.release import PREDICATE_TYPE, verify_release

from memcube.trust import _authority
from memcube.trust.question import Attestation, Question, Signed


@frozen
class Found:
    """What the attestations hold: accepted releases, and why the other candidates were refused."""

    releases: tuple[Signed, ...]
    failures: tuple[MemcubeError, ...]

    @property
    def candidates(self) -> int:
        """How many attestations claim to be releases."""
        return len(self.releases) + len(self.failures)


def find(question: Question) -> Found:
    """The releases about the question's manifest, signed by the keys that it accepts."""
    return _find(question.attestations, question.manifest.digest, question.keys)


def choose(found: Found, question: Question) -> Signed:
    """The release to go by: under the expected origin, of several the newest.

    Raises:
        PublisherChangedError: well signed by another key than the pinned one.
        SignatureInvalidError: by no accepted key, or two publishers claim the cube at first use.
        InvalidStatementError, InvalidManifestError, …: the only candidate is malformed.
    """
    if not question.accept.publisher:
        _authority.require_rooted(question)
    if not found.releases:
        raise _refusal(found, question)
    chosen = max(
        found.releases,
        key=lambda signed: (
            signed.release.origin == question.origin,
            _authority.is_authorised(question, found.releases, signed),
            signed.release.seq,
        ),
    )
    if question.keys is None and any(_are_rivals(chosen, signed) for signed in found.releases):
        raise SignatureInvalidError(
            "two publishers claim this cube, and neither is pinned yet",
            hint="ask the publisher for the key's id, then repeat with --accept-publisher ID",
            reason="ambiguous-publisher",
        )
    return chosen


def _are_rivals(one: Signed, other: Signed) -> bool:
    """Whether the two statements do not name each other's key: anybody can name another's."""
    return other.key.id not in one.release.publishers or one.key.id not in other.release.publishers


def _find(
    attestations: Sequence[Attestation],
    subject: Digest,
    keys: tuple[PublicKey, ...] | str | None,
) -> Found:
    releases: list[Signed] = []
    failures: list[MemcubeError] = []
    for attestation in attestations:
        try:
            if (signed := _release(attestation, subject, keys)) is not None:
                releases.append(signed)
        except MemcubeError as error:
            failures.append(error)
    return Found(tuple(releases), tuple(failures))


def _refusal(found: Found, question: Question) -> MemcubeError:
    """Why no release was accepted: another publisher's well signed one is told from a broken one."""
    others = _find(question.attestations, question.manifest.digest, None).releases
    if not others or question.keys is None:
        return found.failures[0]
    key, origin = others[0].key, others[0].release.origin
    if question.terms.publishers is not None:
        return PublisherChangedError(
            f"{origin} is signed by key {key.id}, which your policy does not name for it",
            hint="do not use it; if the publisher told you of this key, add it to the scope "
            f"{question.terms.scope}: memcube policy explain {question.location}",
            reason="publisher-not-in-policy",
        )
    if question.authority is not None:
        return KeyNotAuthorisedError(
            f"the key documents of {question.authority.name} do not let key {key.id} sign {origin}",
            hint="do not use it; the publisher can allow the key (memcube keys delegate)",
        )
    return PublisherChangedError(
        f"{origin} is signed by key {key.id}, which is not the one that you trust",
        hint=f"if the publisher told you of a new key, repeat with --accept-publisher {key.id}; "
        "otherwise somebody else published this: do not use it",
    )


def _release(
    attestation: Attestation, subject: Digest, keys: tuple[PublicKey, ...] | str | None
) -> Signed | None:
    """The accepted release; none where something else is attested.

    A false annotation can only hide a release, and a hidden release is a missing one.
    """
    if attestation.referrer.effective_artifact_type != media_types.SIGSTORE_BUNDLE:
        return None
    about = referrer.read(attestation.referrer)
    if about.predicate_type not in (None, PREDICATE_TYPE):
        return None
    named = about.bundle.digest
    if Digest.of(attestation.bundle, named.algorithm) != named:
        raise DigestMismatchError(
            "a bundle differs from what its referrer names",
            hint="the store is damaged or hostile: pull again",
        )
    parsed = bundles.parse(attestation.bundle)
    if statement.parse(parsed.envelope.payload).predicate_type != PREDICATE_TYPE:
        return None
    candidates = keys if isinstance(keys, tuple) else _offered(about.offered_key, keys)
    release = verify_release(attestation.bundle, keys=candidates, subject=subject)
    key = next(key for key in candidates if key.id == parsed.key_hint)
    return Signed(release, key, attestation.bundle)


def _offered(key: PublicKey | None, wanted: str | None) -> tuple[PublicKey, ...]:
    """The key that the referrer itself offers: for a first use, or when its id was accepted."""
    if key is None:
        raise SignatureInvalidError(
            "the attestation brings no public key, and none is pinned",
            hint="ask the publisher for the key and name it in your policy",
            reason="no-key",
        )
    return (key,) if wanted in (None, key.id) else ()
