"""The rule about countersignatures: what the registry of the origin says it verified, in its own key.

The key comes from the policy, or from the first time that the registry was asked; never from a bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidStatementError,
    MemcubeError,
    PolicyRefusedError,
    SignatureInvalidError,
    SignatureMissingError,
    TrustError,
)
from memcube_signing import bundle as bundles
from memcube_signing import statement
from memcube_signing.predicates import countersignature as countersignatures
from memcube_signing.predicates import verify
from memcube_signing.predicates.countersignature import LEVEL, Countersignature
from memcube_signing.release import CLOCK_TOLERANCE
from memcube_signing.transparency.bundled import verify_logged

from memcube.trust.policy import LogDemand
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult


def countersignature(question: Question, signed: Signed) -> RuleResult:
    """The registry of the origin says that it verified this very release.

    Raises:
        PolicyRefusedError: it does not, the policy demands it, and it is enforced.
    """
    demand = question.terms.countersignature
    if demand is LogDemand.OFF:
        return _skipped("the policy does not ask for it")
    found = tuple(_claims(question))
    if question.registry_key is None:
        if demand is LogDemand.REQUIRED:
            why = "no key of the origin's registry is known"
            return _lacking(question, why, "registry-key-unknown")
        return _skipped("no key of the origin's registry is known")
    refused: list[MemcubeError] = []
    for bundle in found:
        try:
            said = _accepted(question, signed, bundle)
        except MemcubeError as error:
            refused.append(error)
            continue
        detail = f"{said.verifier} verified this release at {said.verified_at}"
        return RuleResult("countersignature", Outcome.PASSED, detail)
    if refused:
        return _not_accepted(question, refused[0])
    if demand is LogDemand.REQUIRED:
        return _lacking(question, "it carries no countersignature", "countersignature-missing")
    return _skipped("there is none, and none is demanded")


def require_release(question: Question) -> None:
    """Refuse a cube that carries a registry's word and no publisher's, in both modes.

    Raises:
        SignatureMissingError: so it is.
    """
    if any(_claims(question)):
        raise SignatureMissingError(
            f"{question.reference} is countersigned, and carries no release statement",
            hint="do not use it: a registry's word stands for no publisher's; ask the publisher",
            reason="countersignature-without-release",
        )


def require_about(said: Countersignature, origin: str, releases: Iterable[Digest]) -> None:
    """That `said` is about the release of `origin` in one of these bundles.

    Raises:
        SignatureInvalidError: about another name or another release, or the check failed.
    """
    if said.resource != origin:
        raise _untrusted(
            f"it is about {said.resource}, not {origin}", "countersignature-of-another-name"
        )
    if not said.passed or LEVEL not in said.levels:
        raise _untrusted("it does not say that the release passed", "countersignature-failed")
    if not set(said.inputs) & set(releases):
        raise _untrusted(
            "it is about another release than the one attached",
            "countersignature-of-another-release",
        )


def _claims(question: Question) -> Iterator[bytes]:
    """Bundles that hold a countersignature, whoever signed it."""
    for attestation in question.attestations:
        try:
            payload = bundles.parse(attestation.bundle).envelope.payload
            kind = statement.parse(payload).predicate_type
        except MemcubeError:
            continue
        if kind == countersignatures.PREDICATE_TYPE:
            yield attestation.bundle


def _accepted(question: Question, signed: Signed, bundle: bytes) -> Countersignature:
    """What the registry says in `bundle`.

    Raises:
        SignatureInvalidError, InvalidStatementError, …: it does not count.
    """
    key = question.registry_key
    assert key is not None, "asked for before"
    kind, digest = countersignatures.KIND, question.manifest.digest
    said = verify(bundle, kind, keys=(key,), subject=digest).value
    require_about(said, signed.release.origin, (Digest.of(signed.bundle),))
    if said.verified_at > question.now + CLOCK_TOLERANCE:
        raise _untrusted(f"it was made at {said.verified_at}, still to come", "not-yet-valid")
    if question.log_policy and question.terms.log is not LogDemand.OFF:
        verify_logged(bundles.parse(bundle), key, question.log_policy)
    return said


def _not_accepted(question: Question, error: MemcubeError) -> RuleResult:
    """A countersignature that does not count is told of, and refused where one is demanded."""
    reason = error.reason if isinstance(error, TrustError | InvalidStatementError) else error.code
    why = f"its countersignature does not count: {error}"
    if question.terms.countersignature is LogDemand.REQUIRED:
        return _lacking(question, why, reason)
    return RuleResult("countersignature", Outcome.WARNED, why, reason)


def _lacking(question: Question, why: str, reason: str) -> RuleResult:
    if question.enforced:
        raise PolicyRefusedError(
            f"your policy refuses {question.location}: {why}",
            hint="pull it again while online, or ask the registry's operator; "
            f"memcube policy explain {question.reference} shows what your policy demands",
            reason=reason,
        )
    return RuleResult("countersignature", Outcome.WARNED, why, reason)


def _skipped(why: str) -> RuleResult:
    return RuleResult("countersignature", Outcome.SKIPPED, why)


def _untrusted(why: str, reason: str) -> SignatureInvalidError:
    return SignatureInvalidError(
        f"the countersignature is not accepted: {why}",
        hint="do not rely on it; ask the registry's operator",
        reason=reason,
    )
