"""The rule about the log: the release is in the transparency log of its origin's registry."""

from __future__ import annotations

from datetime import datetime

from memcube_protocol.errors import InvalidStatementError, LogError, MemcubeError, TrustError
from memcube_signing import bundle as bundles
from memcube_signing.keys import PublicKey
from memcube_signing.transparency.bundled import verify_logged
from memcube_signing.transparency.entry import LOGGED, Logged, LogPolicy

from memcube.trust.policy import LogDemand
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult


def log(question: Question, signed: Signed) -> RuleResult:
    """The log that is known for the origin's registry includes the signature.

    Raises:
        LogError: it does not, or too few witnesses saw it, and it is enforced.
    """
    demand, policy = question.terms.log, question.log_policy
    if demand is LogDemand.OFF:
        return RuleResult("log", Outcome.SKIPPED, "the policy does not ask for it")
    if policy is None:
        if demand is LogDemand.REQUIRED:
            return _lacking(question, "no log is known for its registry", "log-unknown")
        return RuleResult("log", Outcome.SKIPPED, "no log is known for its registry")
    if signed.key.algorithm not in LOGGED:
        why = f"signatures with {signed.key.algorithm} cannot be logged"
        return _lacking(question, why, "log-unloggable")
    try:
        found = _logged(signed.bundle, signed.key, policy)
    except MemcubeError as error:
        reason = (
            error.reason if isinstance(error, TrustError | InvalidStatementError) else error.code
        )
        return _lacking(question, str(error), reason)
    witnessed = f", time witnessed by {len(found.seen)}" if found.seen else ""
    detail = f"entry {found.index} of {policy.log.name}{witnessed}"
    return RuleResult("log", Outcome.PASSED, detail)


def logged_at(question: Question, signed: Signed) -> datetime | None:
    """No later than this the signature was in the log that is known; None: not proven."""
    found = logged(question, signed.bundle, signed.key)
    return found.logged_at if found else None


def logged(question: Question, bundle: bytes, key: PublicKey) -> Logged | None:
    """What the log that is known says of a bundle that `key` signed; None: nothing."""
    policy = question.log_policy
    if policy is None:
        return None
    try:
        return _logged(bundle, key, policy)
    except MemcubeError:
        return None


def must_be_logged(question: Question) -> bool:
    """Whether what is stated has to be in a log, and one is known."""
    return question.terms.log is not LogDemand.OFF and question.log_policy is not None


def _logged(bundle: bytes, key: PublicKey, policy: LogPolicy) -> Logged:
    return verify_logged(bundles.parse(bundle), key, policy)


def _lacking(question: Question, why: str, reason: str) -> RuleResult:
    if question.enforced:
        raise LogError(
            f"{question.location} is not proven to be public knowledge: {why}",
            hint="ask the publisher to push it again, so that it is logged; "
            f"memcube policy explain {question.reference} shows what your policy demands",
            reason=reason,
        )
    return RuleResult("log", Outcome.WARNED, why, reason)
