"""The rule about key documents: the namespace lets these keys sign this name, then and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from memcube_protocol.errors import KeyNotAuthorisedError, LogError, PublisherChangedError
from memcube_signing.authority.chain import Authority
from memcube_signing.authority.document import KeyDocument
from memcube_signing.authority.inclusion import began_at, first_unlogged
from memcube_signing.authority.judging import Judgement
from memcube_signing.keys import PublicKey

from memcube.trust import _log_rules
from memcube.trust.policy import LogDemand
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult


def keys(question: Question, releases: Sequence[Signed], signed: Signed) -> RuleResult:
    """Those who signed the release are in charge of its name, or were when they signed.

    Raises:
        KeyNotAuthorisedError: they are not, too few of them signed, or one was revoked.
        PublisherChangedError: the key documents are not those of the publisher who is trusted.
        LogError: the registry's log does not show the documents, and it is enforced.
    """
    authority, release = question.authority, signed.release
    if authority is None:
        return RuleResult("keys", Outcome.SKIPPED, "no key documents are known of its namespace")
    require_rooted(question, (signed.key,) if question.accept.publisher else ())
    signers = signers_of(question, releases, signed)
    judgement = judge(question, authority, release.origin, signers, release.created_at)
    if unlogged := _first_unlogged(question, authority):
        return _not_public(question, unlogged)
    then = ", which was in force then" if judgement.retired else ""
    detail = (
        f"key document {judgement.seq} of {authority.name}{then}: "
        f"{len(judgement.key_ids)} signed, {judgement.quorum.threshold} must"
    )
    return RuleResult("keys", Outcome.PASSED, detail, "key-authorised")


def is_authorised(question: Question, releases: Sequence[Signed], signed: Signed) -> bool:
    """Whether the key documents, if there are any, let the signers of this release sign it."""
    if question.authority is None:
        return True
    release, signers = signed.release, signers_of(question, releases, signed)
    try:
        judge(question, question.authority, release.origin, signers, release.created_at)
    except KeyNotAuthorisedError:
        return False
    return True


def judge(
    question: Question,
    authority: Authority,
    origin: str,
    signers: Mapping[str, datetime | None],
    at: datetime,
) -> Judgement:
    """Why these signers (key id: when it was logged, if it was) may speak for `origin` at the time `at`.

    Raises:
        KeyNotAuthorisedError: they may not.
    """
    began = partial(began_at, authority, policy=question.log_policy)
    return authority.judge(origin, signers, at, began)


def may_speak(
    question: Question, origin: str, signers: Mapping[str, datetime | None], at: datetime
) -> bool:
    """Whether the key documents gave one of these signers a part in `origin` at the time `at`."""
    if question.authority is None:
        return False
    began = partial(began_at, question.authority, policy=question.log_policy)
    return question.authority.may_speak(origin, signers, at, began)


def in_charge(question: Question, signed: Signed) -> tuple[PublicKey, ...]:
    """The keys that the key documents put in charge of the release's name now."""
    if question.authority is None:
        return ()
    quorums = question.authority.current.quorums_for(signed.release.origin)
    return tuple({key.id: key for quorum in quorums for key in quorum.keys}.values())


def signers_of(
    question: Question, releases: Sequence[Signed], signed: Signed
) -> dict[str, datetime | None]:
    """The ids of all keys that signed the very same release, each with when it was logged, if it was."""
    return {
        one.key.id: _log_rules.logged_at(question, one)
        for one in releases
        if one.release == signed.release
    }


def _first_unlogged(question: Question, authority: Authority) -> KeyDocument | None:
    """The first key document that the log has to show and does not."""
    policy = question.log_policy
    if question.terms.log is LogDemand.OFF or policy is None:
        return None
    return first_unlogged(authority, policy)


def _not_public(question: Question, document: KeyDocument) -> RuleResult:
    why = f"key document {document.seq} of {document.authority} is not in the transparency log"
    if question.enforced:
        raise LogError(
            f"the keys of {question.origin} were changed out of sight: {why}",
            hint="do not use it; ask the publisher, who sends it to the log with "
            f"memcube keys publish {document.authority.partition('/')[2]}",
            reason="keys-not-logged",
        )
    return RuleResult("keys", Outcome.WARNED, why, "keys-not-logged")


def require_rooted(question: Question, accepted: tuple[PublicKey, ...] = ()) -> None:
    """Documents that are new to this user come from the publisher whom the user knows or accepts.

    Raises:
        PublisherChangedError: from somebody else.
    """
    authority, pin = question.authority, question.pin
    if authority is None or pin is None or question.authority_is_known:
        return
    if not authority.is_rooted_in((*pin.publishers, *accepted)):
        raise PublisherChangedError(
            f"{authority.name} shows key documents that the publisher you trust did not sign",
            hint="ask the publisher; if the key was changed, repeat with --accept-publisher KEY_ID",
            reason="keys-not-rooted",
        )
