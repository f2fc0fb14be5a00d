"""The rule about the CI job that a release names: its registry's log vouches for it, or nobody does."""

from __future__ import annotations

from memcube_protocol.errors import MemcubeError, PolicyRefusedError
from memcube_signing import bundle as bundles
from memcube_signing.transparency.bundled import verify_logged

from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult


def job(question: Question, signed: Signed) -> RuleResult:
    """The release was made by a job that the policy trusts, as the registry has verified.

    A registry logs a release that names a job for that job alone: what its log does not include proves
    no job.

    Raises:
        PolicyRefusedError: the policy demands another job, in both modes; or one that is not proven,
            where it is enforced.
    """
    found, demanded = signed.release.job, question.terms.jobs
    if found is None:
        if not demanded:
            return RuleResult("job", Outcome.SKIPPED, "it names no CI job, and none is demanded")
        return _lacking(question, "no CI job made it", "job-missing")
    name = f"{found.subject} at {found.issuer}"
    for patterns in demanded:
        if not any(one.fits(found.issuer, found.all_claims) for one in patterns):
            raise _wrong(question, name)
    if not _is_proven(question, signed):
        why = f"it names the job {name}, and no log that is known vouches for that"
        if demanded:
            return _lacking(question, why, "job-unproven")
        return RuleResult("job", Outcome.SKIPPED, why, "job-unproven")
    return RuleResult("job", Outcome.PASSED, f"made by {name}, as its registry verified")


def _is_proven(question: Question, signed: Signed) -> bool:
    """Whether the log of the origin's registry includes this very signature."""
    policy = question.log_policy
    if policy is None:
        return False
    try:
        verify_logged(bundles.parse(signed.bundle), signed.key, policy)
    except MemcubeError:
        return False
    return True


def _wrong(question: Question, name: str) -> PolicyRefusedError:
    return PolicyRefusedError(
        f"{question.location} was made by {name}, which your policy does not name for it",
        hint="do not use it; if the publisher told you of this job, add it to the scope "
        f"{question.terms.scope}: memcube policy explain {question.reference}",
        reason="job-not-in-policy",
    )


def _lacking(question: Question, why: str, reason: str) -> RuleResult:
    if question.enforced:
        raise PolicyRefusedError(
            f"your policy refuses {question.location}: {why}",
            hint="ask the publisher, or whoever keeps your policy; "
            f"memcube policy explain {question.reference} shows what it demands",
            reason=reason,
        )
    return RuleResult("job", Outcome.WARNED, why, reason)
