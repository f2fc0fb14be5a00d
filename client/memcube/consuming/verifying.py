"""The verification step: every cube passes through `verify` before anything of it is used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.errors import NotFoundError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing.authority.chain import about
from memcube_signing.authority.chain import resolve as resolve_keys
from memcube_signing.authority.document import authority_of

from memcube.consuming.finding import Found, look_at
from memcube.context import Context, Trust
from memcube.trust import Attestation, Question, Scope, Verdict, judge_cube
from memcube.trust.policy import Policy
from memcube.trust.verdict import Standing


@frozen
class Verified:
    """A cube that passed the verification step. `files` are those that the store holds of it."""

    reference: Reference
    cube: Cube
    verdict: Verdict
    files: tuple[CubeFile, ...]
    attestations: tuple[Attestation, ...] = ()
    fetched_bytes: int = 0

    @property
    def is_local(self) -> bool:
        """Whether this user packed it: nobody signed it, and no registry is known to hold it."""
        return self.verdict.standing is Standing.LOCAL


def verify(context: Context, found: Found, trust: Trust) -> Verified:
    """The verification step: provenance first, then that manifest, config and layers agree.

    Raises:
        TrustError: its provenance cannot be established.
        InvalidManifestError, InvalidConfigError: it is no cube, or its parts do not agree.
    """
    asked = question(context, found, trust)
    verdict = judge_cube(asked)
    if verdict.said:
        # A yank is remembered whatever becomes of this cube.
        context.statuses.keep(found.manifest.digest, verdict.said)
    verified = accepted(found, verdict)
    if asked.authority and not asked.authority_is_known and verdict.release:
        bundles = tuple(bundle.raw for bundle in asked.authority.bundles)
        context.authorities.add(asked.authority.name, bundles)
    return verified


def recheck(context: Context, reference: Reference, trust: Trust) -> Verdict:
    """The verdict on a cube, a refusal in its `error`; what the store holds of it is hashed anew.

    Raises:
        NotFoundError: there is no such cube.
        IntegrityError: bytes in the store are damaged.
    """
    found = look_at(context, reference)
    verdict = judge_cube(question(context, found, trust))

    def rehash(blob: Descriptor) -> None:
        with suppress(NotFoundError):
            context.store.path(blob.digest, blob.size, strict=True)

    with ThreadPoolExecutor(context.settings.parallel) as hashing:
        for _ in hashing.map(rehash, found.manifest.blobs):
            pass
    return verdict


def accepted(found: Found, verdict: Verdict) -> Verified:
    """`found` as the cube that `verdict` lets through; its manifest, config and layers agree.

    Raises:
        TrustError: the verdict is against it.
        InvalidManifestError, InvalidConfigError: they do not agree.
    """
    if verdict.error:
        raise verdict.error
    cube = Cube.read(found.manifest, found.config)
    return Verified(found.reference, cube, verdict, (), found.attestations)


def question(
    context: Context, found: Found, trust: Trust, *, policy: Policy | None = None
) -> Question:
    """What `trust.judge_cube` and `trust.verify_cube` decide about `found`, by the policy that holds."""
    asked = Question(
        found.reference,
        found.manifest,
        found.attestations,
        context.pins.load(),
        context.now(),
        mode=trust.mode,
        scope=found.scope,
        policy=context.policy if policy is None else policy,
        known_at=found.known_at,
        logs=context.logs.load(),
        accept=trust.accept,
        remembered=context.statuses.of(found.manifest.digest),
    )
    return asked if found.scope is Scope.LOCAL else _with_authority(context, asked, found)


def _with_authority(context: Context, asked: Question, found: Found) -> Question:
    """`asked` with the key documents of the origin's namespace: known ones, and those served now."""
    name = authority_of(asked.origin)
    served = about(name, found.key_documents)
    authority = context.authorities.load(name)
    if authority is None:
        return replace(asked, authority=resolve_keys(name, served))
    if served:
        # A revocation is remembered whatever becomes of this cube.
        authority = context.authorities.add(name, served)
    return replace(asked, authority=authority, authority_is_known=True)
