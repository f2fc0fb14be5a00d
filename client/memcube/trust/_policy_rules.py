"""The rules that only a policy brings: kinds of content, thresholds, attestations, freshness."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from memcube_protocol import media_types
from memcube_protocol.errors import MemcubeError, PolicyRefusedError, StaleKnowledgeError
from memcube_signing import bundle as bundles
from memcube_signing.keys import PublicKey
from memcube_signing.release import CLOCK_TOLERANCE
from memcube_signing.statement import Statement

from memcube.trust._signatures import Found
from memcube.trust.policy import Required
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult

_EXPLAIN = "memcube policy explain {} shows what your policy demands"


def content(question: Question) -> RuleResult:
    """Every layer is of a kind that the policy allows.

    Raises:
        PolicyRefusedError: one is not, and it is enforced.
    """
    if not question.terms.media_types:
        return _skipped("content", "the policy names no kinds of content")
    for layer in question.manifest.layers:
        if not question.terms.allows_media_type(layer.media_type):
            why = f"it holds a layer of the kind {layer.media_type}"
            return _lacking(question, "content", why, "media-type-not-allowed")
    return RuleResult("content", Outcome.PASSED, "every layer is of an allowed kind")


def threshold(question: Question, found: Found, signed: Signed) -> RuleResult:
    """As many publishers as the policy demands signed the very same release.

    Raises:
        PolicyRefusedError: fewer, in both modes: it is a matter of who the publisher is.
    """
    wanted = question.terms.threshold
    signers = {one.key.id for one in found.releases if one.release == signed.release}
    if len(signers) < wanted:
        raise PolicyRefusedError(
            f"{len(signers)} of the {wanted} publishers that your policy demands signed it",
            hint="ask the publisher to let the others sign; " + _explain(question),
            reason="threshold-not-met",
        )
    if wanted == 1:
        return _skipped("threshold", "one publisher is enough")
    return RuleResult("threshold", Outcome.PASSED, f"{len(signers)} signed, {wanted} are wanted")


def attestations(question: Question, signed: Signed) -> RuleResult:
    """Every attestation that the policy demands is there, about this manifest, by a key that may.

    Raises:
        PolicyRefusedError: one is not, and it is enforced.
    """
    demanded = question.terms.attestations
    if not demanded:
        return _skipped("attestations", "the policy demands none")
    publishers = question.terms.publishers or (signed.key,)
    for required in demanded:
        keys = publishers if required.keys is None else required.keys
        if not any(_proves(bundle, required, keys, question) for bundle in _bundles(question)):
            wanted = "".join(f", {name} = {value}" for name, value in required.where.items())
            why = f"no accepted attestation {required.predicate_type}{wanted}"
            return _lacking(question, "attestations", why, "attestation-missing")
    return RuleResult(
        "attestations", Outcome.PASSED, f"all {len(demanded)} demanded ones are there"
    )


def freshness(question: Question, signed: Signed) -> RuleResult:  # noqa: ARG001
    """What is known of the cube is young enough, and not from the future.

    Raises:
        StaleKnowledgeError: it is not, and it is enforced.
    """
    known_at, most = question.known_at, question.terms.max_staleness
    if known_at is None:
        return RuleResult("freshness", Outcome.PASSED, "the registry was asked just now")
    age = question.now - known_at
    if age < -CLOCK_TOLERANCE:
        why, reason = f"it was learnt at {known_at}, which is still to come", "clock-set-back"
    elif most is not None and age > most:
        why, reason = f"it was learnt {age_text(age)} ago, {age_text(most)} are allowed", "stale"
    else:
        detail = f"learnt {age_text(max(age, timedelta()))} ago"
        return RuleResult("freshness", Outcome.PASSED, detail)
    if question.enforced:
        raise StaleKnowledgeError(
            f"what is known of {question.location} cannot be relied on: {why}",
            hint="check the clock of this machine, and pull the cube again while online",
            reason=reason,
        )
    return RuleResult("freshness", Outcome.WARNED, why, reason)


def age_text(age: timedelta) -> str:
    """`age` in its largest unit: `3 days`, `5 hours`, `0 minutes`."""
    minutes = int(age.total_seconds()) // 60
    for unit, length in (("day", 24 * 60), ("hour", 60)):
        if minutes >= 2 * length:
            return f"{minutes // length} {unit}s"
    return f"{minutes} minutes"


def _bundles(question: Question) -> list[bytes]:
    return [
        attestation.bundle
        for attestation in question.attestations
        if attestation.referrer.effective_artifact_type == media_types.SIGSTORE_BUNDLE
    ]


def _proves(
    bundle: bytes, required: Required, keys: tuple[PublicKey, ...], question: Question
) -> bool:
    """Whether `bundle` is what is required; any other proves nothing, broken ones included."""
    policy = bundles.Policy(
        keys, required.predicate_type, question.manifest.digest, canonical_only=False
    )
    try:
        said, _ = bundles.verify(bundles.parse(bundle), policy)
    except MemcubeError:
        return False
    # Python's True equals 1; JSON's does not.
    return all(_at(said, path) == (type(value), value) for path, value in required.where.items())


def _at(said: Statement, path: str) -> tuple[type, object]:
    """The type and value of the predicate's field at the dotted `path`; None where there is none."""
    value: object = said.predicate
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return type(value), value


def _lacking(question: Question, rule: str, why: str, reason: str) -> RuleResult:
    """A warning, where the mode allows it."""
    if question.enforced:
        raise PolicyRefusedError(
            f"your policy refuses {question.location}: {why}",
            hint="ask the publisher, or whoever keeps your policy; " + _explain(question),
            reason=reason,
        )
    return RuleResult(rule, Outcome.WARNED, why, reason)


def _explain(question: Question) -> str:
    return _EXPLAIN.format(question.reference)


def _skipped(rule: str, why: str) -> RuleResult:
    return RuleResult(rule, Outcome.SKIPPED, why)
