"""The one decision that every cube passes before it is used: pure, explained rule by rule.

Nothing here opens a socket or a file or asks the clock. Keys come from the policy,
else from the pins; only at first use from the referrer, and they are pinned then. The rules, in order:

    bytes         the manifest is the one that the reference's digest names
    content       every layer is of a kind that the policy allows
    release       a release statement is attached
    signature     it is signed by an accepted key, about this manifest
    threshold     as many of the policy's publishers signed it as it demands
    keys          the namespace's key documents let these keys sign this name
    publisher     the key is trusted by policy, or pinned, or pinned now
    origin        the release's name is the location, or known to be copied there
    version       a tag that is a version, or the start of one, agrees with the release
    history       no older release through the same tag, no second history of the origin
    validity      created and expires, give or take five minutes
    log           the log of its origin's registry includes it, seen by the witnesses demanded
    job           the CI job that it names is one that the policy demands, and verified by the registry
    countersignature  that registry says that it verified it, where the policy demands so
    attestations  every attestation that the policy demands is there and well signed
    freshness     what is known of the cube is not older than the policy allows
    status        neither yanked nor deprecated by its publisher
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from memcube_protocol.errors import (
    InvalidStatementError,
    MemcubeError,
    PublisherChangedError,
    TrustError,
)
from memcube_signing.keys import PublicKey

from memcube.trust import (
    _authority,
    _countersignatures,
    _job_rules,
    _log_rules,
    _policy_rules,
    _rules,
    _signatures,
    _status,
)
from memcube.trust.pins import Observation
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult, Scope, Standing, Verdict

_ABOUT_RELEASE: Final[dict[str, Callable[[Question, Signed], RuleResult]]] = {
    "publisher": _rules.publisher,
    "origin": _rules.origin,
    "version": _rules.version,
    "history": _rules.history,
    "validity": _rules.validity,
    "log": _log_rules.log,
    "job": _job_rules.job,
    "countersignature": _countersignatures.countersignature,
    "attestations": _policy_rules.attestations,
    "freshness": _policy_rules.freshness,
    "status": _status.status,
}
RULES: Final = ("bytes", "content", "release", "signature", "threshold", "keys", *_ABOUT_RELEASE)


def verify_cube(question: Question) -> Verdict:
    """The verdict on a cube that may be used.

    Raises:
        SignatureMissingError, SignatureInvalidError, PublisherChangedError, OriginMismatchError,
        RollbackError, ReleaseExpiredError, PolicyRefusedError, StaleKnowledgeError,
        DigestMismatchError: by the rule that failed.
        InvalidStatementError, InvalidJsonError, InvalidManifestError, LimitExceededError: the only
            signature is malformed.
    """
    verdict = judge_cube(question)
    if verdict.error:
        raise verdict.error
    return verdict


def judge_cube(question: Question) -> Verdict:
    """The verdict on any cube: a refusal is explained like an acceptance, and not raised."""
    rules: list[RuleResult] = []
    signed: Signed | None = None
    try:
        rules.append(_rules.same_bytes(question))
        if question.scope is Scope.LOCAL:
            detail = "made by this user: it needs no signature"
            rules.append(RuleResult("release", Outcome.SKIPPED, detail, "local"))
            return _verdict(question, Standing.LOCAL, rules)
        rules.append(_policy_rules.content(question))
        found = _signatures.find(question)
        if not found.candidates:
            _countersignatures.require_release(question)
            rules.append(_rules.unsigned(question))
            return _verdict(question, Standing.UNSIGNED, rules)
        rules.append(RuleResult("release", Outcome.PASSED, f"{found.candidates} attached"))
        signed = _signatures.choose(found, question)
        rules.append(_signature(found, signed))
        rules.append(_policy_rules.threshold(question, found, signed))
        rules.append(_authority.keys(question, found.releases, signed))
        for rule in _ABOUT_RELEASE.values():
            result = rule(question, signed)
            rules.append(result)
    except MemcubeError as error:
        return _refused(question, rules, error, signed)
    return _accepted(question, rules, signed)


def _signature(found: _signatures.Found, signed: Signed) -> RuleResult:
    ignored = f"; {len(found.failures)} others are ignored" if found.failures else ""
    detail = f"key {signed.key.id} signed this manifest{ignored}"
    return RuleResult("signature", Outcome.PASSED, detail)


def _accepted(question: Question, rules: list[RuleResult], signed: Signed) -> Verdict:
    first = any(rule.outcome is Outcome.FIRST_USE for rule in rules)
    observation = Observation(
        question.location,
        question.moving_tag,
        signed.release,
        question.terms.publishers or _publishers(question, signed),
        replaces=bool(question.accept.publisher or question.terms.publishers),
        moves=bool(question.accept.origin or question.mapped_origin),
    )
    standing = Standing.FIRST_USE if first else Standing.TRUSTED
    return _saying(_verdict(question, standing, rules, signed, observation), question, signed)


def _publishers(question: Question, signed: Signed) -> tuple[PublicKey, ...]:
    """Who is pinned: where key documents lead from the pinned key to another, the first one stays."""
    pin = question.pin
    if question.authority is not None and pin and signed.key not in pin.publishers:
        return pin.publishers
    return (signed.key,)


def _refused(
    question: Question, rules: list[RuleResult], error: MemcubeError, signed: Signed | None
) -> Verdict:
    """The rule that failed is the first that has no result, except where the key was the wrong one."""
    rule = "publisher" if isinstance(error, PublisherChangedError) else RULES[len(rules)]
    reason = error.reason if isinstance(error, (TrustError, InvalidStatementError)) else error.code
    failed = RuleResult(rule, Outcome.FAILED, str(error), reason)
    verdict = _verdict(question, Standing.REFUSED, [*rules, failed], error=error)
    # Only what every rule before has accepted is the publisher's word.
    return _saying(verdict, question, signed) if signed and rule == "status" else verdict


def _saying(verdict: Verdict, question: Question, signed: Signed) -> Verdict:
    said = tuple(bundle for _, bundle in _status.counting(question, signed))
    return replace(verdict, said=said, partners=_authority.in_charge(question, signed))


def _verdict(
    question: Question,
    standing: Standing,
    rules: list[RuleResult],
    signed: Signed | None = None,
    observation: Observation | None = None,
    error: MemcubeError | None = None,
) -> Verdict:
    decided = {rule.rule: rule for rule in rules}
    return Verdict(
        question.location,
        question.manifest.digest,
        standing,
        tuple(
            decided.get(rule, RuleResult(rule, Outcome.SKIPPED, "not reached")) for rule in RULES
        ),
        signed.release if signed else None,
        signed.key if signed else None,
        observation,
        error,
        question.registry_key,
    )
