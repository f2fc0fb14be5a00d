"""The rule about what the publisher said of a release afterwards: deprecated, yanked, reinstated."""

from __future__ import annotations

from memcube_protocol.errors import YankedError
from memcube_protocol.reference import is_immutable_tag
from memcube_signing.predicates.status import State, Status

from memcube.trust._voices import strictest, voices
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Mode, Outcome, RuleResult


def status(question: Question, signed: Signed) -> RuleResult:
    """The release was not withdrawn, or it is asked for so exactly that a warning will do.

    Raises:
        YankedError: it was, and a moving tag leads to it; or it is dangerous, under `enforce`.
    """
    voice = strictest(question, signed)
    if voice is None or voice.said.state is State.ACTIVE:
        return RuleResult(
            "status", Outcome.PASSED, "neither deprecated nor yanked, as far as known"
        )
    said, unseen = voice.said, "" if voice.public else " (no log shows that)"
    detail = f"{said.state} by its publisher{unseen}: {told(said)}"
    if said.state is State.DEPRECATED:
        return RuleResult("status", Outcome.WARNED, detail, "release-deprecated")
    strict = question.enforced or question.mode is Mode.ENFORCE
    if said.reason.is_dangerous and strict:
        raise YankedError(f"{question.reference} was {detail}", hint=_hint(said, "do not use it"))
    if not _is_exact(question):
        instead = f"ask for it by its version ({said.version}) if you need these very bytes"
        raise YankedError(f"{question.reference} was {detail}", hint=_hint(said, instead))
    return RuleResult("status", Outcome.WARNED, detail, "release-yanked")


def told(said: Status) -> str:
    """The reason, with the publisher's words and the replacement, where there are any."""
    words = f"{said.reason}, {said.message}" if said.message else str(said.reason)
    return f"{words}; use {said.replacement}" if said.replacement else words


def counting(question: Question, signed: Signed) -> tuple[tuple[Status, bytes], ...]:
    """Each status about the release by who may speak for it, with its bundle, in order of time."""
    return tuple((voice.said, voice.bundle) for voice in voices(question, signed))


def _is_exact(question: Question) -> bool:
    reference = question.reference
    return bool(reference.digest or (reference.tag and is_immutable_tag(reference.tag)))


def _hint(said: Status, instead: str) -> str:
    return f"use {said.replacement}, or {instead}" if said.replacement else instead
