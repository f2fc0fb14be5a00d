"""Proofs in files: written while online, verified on machines that never are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from memcube_protocol.errors import NotFoundError
from memcube_protocol.limits import PROOF_BYTES
from memcube_protocol.reference import Reference
from memcube_protocol.timestamps import whole_seconds

from memcube.consuming import finding, verifying
from memcube.consuming.finding import Found
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.store.files import read_file, replace_file
from memcube.trust import Scope, Verdict, judge_cube, verify_cube
from memcube.trust.proof import Proof, parse


def export(
    context: Context, reference: Reference, path: Path, *, trust: Trust = NORMAL_TRUST
) -> tuple[Proof, Verdict]:
    """Write the evidence about the cube at `reference` to `path`; from its registry, unless offline.

    What could not be verified here is not exported.

    Raises:
        NotFoundError: there is no such cube, or it was made here and never published.
        TrustError: its provenance cannot be established.
        NetworkError: no answer.
        StorageError: the file cannot be written.
    """
    found = _found(context, reference)
    asked = verifying.question(context, found, trust)
    verdict = verify_cube(asked)
    known_at = whole_seconds(found.known_at or context.now())
    proof = Proof(
        found.reference,
        found.manifest,
        found.config,
        found.attestations,
        known_at,
        tuple(bundle.raw for bundle in asked.authority.bundles) if asked.authority else (),
    )
    replace_file(path, proof.to_bytes())
    return proof, verdict


def read(path: Path) -> Proof:
    """The proof in the file `path`.

    Raises:
        NotFoundError: there is no such file.
        InvalidProofError, DigestMismatchError, LimitExceededError: it is no proof.
    """
    content = read_file(path, PROOF_BYTES)
    if content is None:
        raise NotFoundError(
            f"there is no proof {path}", hint="write one with memcube proof export REF"
        )
    return parse(content)


def judge(
    context: Context,
    proof: Proof,
    *,
    reference: Reference | None = None,
    trust: Trust = NORMAL_TRUST,
) -> Verdict:
    """The verdict by what `proof` holds, and nothing else but this user's policy and pins.

    Judged is whether it proves the cube at `reference`; without one, at the name that it gives itself.
    """
    wanted = context.at_registry(reference or proof.reference)
    found = Found(
        wanted,
        proof.manifest,
        proof.config,
        proof.attestations,
        Scope.REMOTE,
        proof.key_documents,
        proof.checked_at,
    )
    return judge_cube(verifying.question(context, found, trust))


def _found(context: Context, reference: Reference) -> Found:
    if not context.settings.offline:
        place = context.at_registry(reference)
        return finding.look_up(context, place)
    found = finding.look_at(context, reference)
    if found.scope is Scope.LOCAL:
        raise NotFoundError(
            f"{reference} was never published: there is nothing to prove",
            hint="publish it first: memcube push",
        )
    return replace(found, reference=replace(found.reference, digest=reference.digest))
