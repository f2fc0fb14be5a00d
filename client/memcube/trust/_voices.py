"""Who says what of a release after its publication, and which of it counts.

One who may speak for the release is enough to withdraw it. To be lenient again takes a quorum, later, and
in public: what no log shows, where there has to be one, makes nothing milder.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from memcube_protocol.errors import KeyNotAuthorisedError, MemcubeError
from memcube_protocol.values import frozen
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import status as statuses
from memcube_signing.predicates import verify
from memcube_signing.predicates.status import State, Status
from memcube_signing.release import CLOCK_TOLERANCE

from memcube.trust import _authority, _log_rules
from memcube.trust.question import Question, Signed

_STRICTNESS = tuple(State)


@frozen
class Voice:
    """A status by a key that may speak for the release. `public` says that no log lacks it."""

    said: Status
    key: PublicKey
    bundle: bytes
    logged_at: datetime | None
    public: bool

    @property
    def strictness(self) -> int:
        """How bad the release is by this voice."""
        return _STRICTNESS.index(self.said.state)

    @property
    def order(self) -> tuple[datetime, int]:
        """By time; of two at once the stricter comes last."""
        return self.said.stated_at, self.strictness


def voices(question: Question, signed: Signed) -> list[Voice]:
    """Every status about this very release by a key that may speak for it, in order of time.

    What is to be lenient from a later time than now is not believed: it would outlast every yank.
    """
    now = question.now + CLOCK_TOLERANCE
    attached = (attestation.bundle for attestation in question.attestations)
    found = (
        _voice(question, signed, raw) for raw in dict.fromkeys((*question.remembered, *attached))
    )
    believed = [
        voice
        for voice in found
        if voice and (voice.said.state is State.YANKED or voice.said.stated_at <= now)
    ]
    return sorted(believed, key=lambda voice: voice.order)


def strictest(question: Question, signed: Signed) -> Voice | None:
    """What counts of all that was said: the strictest that nobody was entitled to take back."""
    last: dict[str, Voice] = {}
    for voice in voices(question, signed):
        before = last.get(voice.key.id)
        yanked = voice.said.state is State.YANKED
        if voice.public or yanked or before is None or voice.strictness > before.strictness:
            last[voice.key.id] = voice
    while last:
        worst = max(last.values(), key=lambda voice: (voice.strictness, voice.said.stated_at))
        if not _is_taken_back(question, signed, worst, last.values()):
            return worst
        del last[worst.key.id]
    return None


def _voice(question: Question, signed: Signed, bundle: bytes) -> Voice | None:
    """The status in `bundle`, if it is about this release and by a key that may speak for it."""
    known = question.keys if isinstance(question.keys, tuple) else ()
    release, authority = signed.release, question.authority
    keys = {key.id: key for key in (signed.key, *known)}.values()
    try:
        found = verify(bundle, statuses.KIND, keys=tuple(keys), subject=question.manifest.digest)
    except MemcubeError:
        return None
    said, key = found.value, found.key
    if (said.origin, said.version) != (release.origin, release.version):
        return None
    logged = _log_rules.logged(question, bundle, key)
    at = logged.logged_at if logged else None
    if authority and not _authority.may_speak(question, said.origin, {key.id: at}, said.stated_at):
        return None
    public = logged is not None or not _log_rules.must_be_logged(question)
    return Voice(said, key, bundle, at, public)


def _is_taken_back(
    question: Question, signed: Signed, withdrawn: Voice, others: Collection[Voice]
) -> bool:
    """Whether a quorum said later, and where it can be seen, that the release is not so bad."""
    milder = [
        voice
        for voice in others
        if voice.public
        and voice.strictness < withdrawn.strictness
        and voice.said.stated_at > withdrawn.said.stated_at
    ]
    authority = question.authority
    if not milder or authority is None:
        return len(milder) >= question.terms.threshold
    signers = {voice.key.id: voice.logged_at for voice in milder}
    at = max(voice.said.stated_at for voice in milder)
    try:
        _authority.judge(question, authority, signed.release.origin, signers, at)
    except KeyNotAuthorisedError:
        return False
    return True
