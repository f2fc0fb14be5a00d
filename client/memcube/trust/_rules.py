"""The rules of the decision, one function each: a result, or the error that stops it."""

from __future__ import annotations

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    OriginMismatchError,
    ReleaseExpiredError,
    RollbackError,
    SignatureInvalidError,
    SignatureMissingError,
)
from memcube_protocol.reference import is_immutable_tag
from memcube_signing.authority.document import authority_of
from memcube_signing.release import CLOCK_TOLERANCE, Release

from memcube.trust.pins import Pin
from memcube.trust.question import Question, Signed
from memcube.trust.verdict import NEW_IN_NAMESPACE, Outcome, RuleResult


def same_bytes(question: Question) -> RuleResult:
    """The manifest is the one that the reference's digest names.

    Raises:
        DigestMismatchError: another one.
    """
    wanted, manifest = question.reference.digest, question.manifest
    if wanted is None:
        return _passed("bytes", f"the manifest is {manifest.digest}")
    if (actual := Digest.of(manifest.raw, wanted.algorithm)) != wanted:
        raise DigestMismatchError(
            f"the manifest has digest {actual}, {wanted} was asked for",
            hint="the registry or the store is damaged or hostile",
        )
    return _passed("bytes", f"the manifest is {wanted}, as asked for")


def unsigned(question: Question) -> RuleResult:
    """A warning about a cube without release, where the mode lets it pass.

    Raises:
        SignatureMissingError: a signature is required, or there was one before.
    """
    if question.pin or (question.place and question.place.tags):
        raise SignatureMissingError(
            f"{question.location} was signed before, and its signature has vanished",
            hint="do not use it: the registry or the publisher's account may be taken over; "
            "ask the publisher",
            reason="signature-vanished",
        )
    if question.enforced:
        raise SignatureMissingError(
            f"{question.reference} carries no release statement",
            hint="ask the publisher to push it with memcube, or repeat with --trust warn",
        )
    return RuleResult("release", Outcome.WARNED, "it carries no signature", "signature-missing")


def publisher(question: Question, signed: Signed) -> RuleResult:
    """Where the trust in the key comes from: policy, pin, the user's word, or this first use."""
    pin, key = question.pin, signed.key
    if question.terms.publishers is not None:
        return _passed("publisher", f"the policy's scope {question.terms.scope} names key {key.id}")
    if question.authority is not None and question.authority_is_known:
        name = question.authority.name
        return _passed("publisher", f"key {key.id} is one of those that speak for {name}")
    if pin and key in pin.publishers:
        return _passed("publisher", f"key {key.id} is the pinned one")
    if pin and question.authority is not None:
        return _passed("publisher", f"the pinned key's owner lets key {key.id} sign")
    if pin:
        detail = f"key {key.id} replaces the pinned one, as you accept"
        return RuleResult("publisher", Outcome.WARNED, detail, "publisher-replaced")
    detail = f"first use: key {key.id} is pinned for {signed.release.origin}"
    if others := _neighbours(question, signed):
        detail += f", although you know {others[0]} by another key"
        return RuleResult("publisher", Outcome.FIRST_USE, detail, NEW_IN_NAMESPACE)
    return RuleResult("publisher", Outcome.FIRST_USE, detail, "publisher-first-use")


def _neighbours(question: Question, signed: Signed) -> list[str]:
    """Cubes of the release's namespace that this user knows, where none is by its key."""
    namespace = f"{authority_of(signed.release.origin)}/"
    known = {name: pin for name, pin in question.pins.origins.items() if name.startswith(namespace)}
    if any(signed.key in pin.publishers for pin in known.values()):
        return []
    return sorted(known)


def origin(question: Question, signed: Signed) -> RuleResult:
    """The release's name is the location, or known to be copied there.

    Raises:
        OriginMismatchError: neither.
    """
    name, location, place = signed.release.origin, question.location, question.place
    if name != question.origin:
        raise OriginMismatchError(
            f"{location} holds a cube that was released as {name}, and not as {question.origin}",
            hint=f"if you know it as a copy, repeat with --accept-origin {name}; "
            "otherwise somebody swapped it",
        )
    if name == location:
        return _passed("origin", f"released as {name}")
    if name == question.mapped_origin:
        return RuleResult("origin", Outcome.PASSED, f"the policy knows a copy of {name}", "copy")
    if place and place.origin == name:
        return RuleResult("origin", Outcome.PASSED, f"known copy of {name}", "copy")
    detail = f"accepted by you as a copy of {name}"
    return RuleResult("origin", Outcome.FIRST_USE, detail, "copy-accepted")


def version(question: Question, signed: Signed) -> RuleResult:
    """A tag that is a version, or the start of one (`1`, `1.4`), agrees with the release.

    Raises:
        SignatureInvalidError: it leads to another version.
    """
    tag, release = question.reference.tag, signed.release
    if tag is None:
        return RuleResult(
            "version", Outcome.SKIPPED, f"no version asked for; it is {release.version}"
        )
    agrees = release.tag == tag if is_immutable_tag(tag) else _may_lead_to(tag, release)
    if not agrees:
        raise SignatureInvalidError(
            f"tag {tag} leads to a release that was signed as version {release.version}",
            hint="the registry swapped two releases: do not use it; ask the publisher",
            reason="version-mismatch",
        )
    return _passed("version", f"tag {tag} leads to {release.version}")


def history(question: Question, signed: Signed) -> RuleResult:
    """No second history of the origin, and no older release through a tag that was followed before.

    Raises:
        RollbackError: one or the other, and the user does not accept it.
    """
    release, tag, place, pin = signed.release, question.moving_tag, question.place, question.pin
    if pin and signed.key not in pin.publishers and not question.authority:
        detail = "a new publisher begins a new history"
        return RuleResult("history", Outcome.SKIPPED, detail, "publisher-replaced")
    last = place.tags.get(tag, 0) if place and tag else 0
    forked = _fork(release, pin)
    if question.accept.rollback and (forked or last > release.seq):
        detail = f"release {release.seq}, as you accept"
        return RuleResult("history", Outcome.WARNED, detail, "rollback-accepted")
    if forked:
        raise RollbackError(
            f"the publisher's key signed two histories of {release.origin}: {forked}",
            hint="two machines released at once, or the key was stolen: ask the publisher",
            reason="history-forked",
        )
    if last > release.seq:
        raise RollbackError(
            f"tag {tag} led to release {last} before, and now to the older {release.seq}",
            hint="the registry serves an old state; if the publisher withdrew a release, "
            "ask for a version by its number, or repeat with --accept-rollback",
        )
    return _passed("history", f"release {release.seq} agrees with what was seen before")


def validity(question: Question, signed: Signed) -> RuleResult:
    """The release was created and has not expired, by a clock that may be five minutes wrong.

    Raises:
        ReleaseExpiredError: otherwise, where it is enforced.
    """
    created, expires = signed.release.created_at, signed.release.expires_at
    if created > question.now + CLOCK_TOLERANCE:
        why, reason = f"it was created at {created}, which is still to come", "not-yet-valid"
    elif expires and question.now > expires + CLOCK_TOLERANCE:
        why, reason = f"it expired at {expires}", "release-expired"
    else:
        until = f" until {expires}" if expires else ""
        return _passed("validity", f"valid since {created}{until}")
    if question.enforced:
        raise ReleaseExpiredError(
            f"the release is not valid now: {why}",
            hint="check the clock of this machine; ask the publisher for a newer release",
            reason=reason,
        )
    return RuleResult("validity", Outcome.WARNED, why, reason)


def _fork(release: Release, pin: Pin | None) -> str | None:
    """What contradicts the past: a version has one content, a `seq` one release, each its predecessor."""
    for known, seen in (pin.seen if pin else {}).items():
        if known == release.version and seen.manifest != release.subject:
            return f"version {known} was {seen.manifest} when it was seen first"
        if seen.seq == release.seq and seen.manifest != release.subject:
            return f"release {seen.seq} was version {known} when it was seen first"
        if seen.seq == release.seq - 1 and seen.manifest != release.previous:
            return f"it does not follow release {seen.seq}, version {known}"
    return None


def _may_lead_to(tag: str, release: Release) -> bool:
    """Whether a moving tag may name `release`: `1` and `1.4` only what starts so, others any."""
    parts = tag.split(".")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return True
    return release.version.split(".")[: len(parts)] == parts


def _passed(rule: str, detail: str) -> RuleResult:
    return RuleResult(rule, Outcome.PASSED, detail)
