"""The rule about key documents: the namespace lets these keys sign this name, then and now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memcube_protocol.errors import KeyNotAuthorisedError, PublisherChangedError
from memcube_signing.keys import PublicKey

from memcube.trust import _log_rules
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import Outcome, RuleResult


def keys(question: Question, releases: Sequence[Signed], signed: Signed) -> RuleResult:
    """Those who signed the release are in charge of its name, or were when they signed.

    Raises:
        KeyNotAuthorisedError: they are not, too few of them signed, or one was revoked.
        PublisherChangedError: the key documents are not those of the publisher who is trusted.
    """
    authority = question.authority
    if authority is None:
        return RuleResult("keys", Outcome.SKIPPED, "no key documents are known of its namespace")
    require_rooted(question, (signed.key,) if question.accept.publisher else ())
    judgement = authority.judge(
        signed.release.origin, signers_of(question, releases, signed), signed.release.created_at
    )
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
    release = signed.release
    try:
        question.authority.judge(
            release.origin, signers_of(question, releases, signed), release.created_at
        )
    except KeyNotAuthorisedError:
        return False
    return True


def signers_of(
    question: Question, releases: Sequence[Signed], signed: Signed
) -> dict[str, datetime | None]:
    """The ids of all keys that signed the very same release, each with when it was logged, if it was."""
    return {
        one.key.id: _log_rules.logged_at(question, one)
        for one in releases
        if one.release == signed.release
    }


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
