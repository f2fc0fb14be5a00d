"""Key documents in a log: since when each is in force, and which one nobody could see."""

from __future__ import annotations

from datetime import datetime, timedelta

from memcube_signing.authority.chain import Authority
from memcube_signing.authority.document import KeyDocument
from memcube_signing.authority.inclusion import began_at, first_unlogged
from memcube_signing.transparency import checkpoint
from memcube_signing.transparency.checkpoint import Checkpoint, SignedCheckpoint
from memcube_signing.transparency.entry import LogPolicy
from support.authority import NEW, OLD, START, after, first, logged, quorum, resolved, signed
from support.log import Log, signer
from support.signing import NOW

FIRST = first()
ROTATED = after(FIRST, quorum=quorum(NEW))
HOUR = timedelta(hours=1)


def policy(log: Log) -> LogPolicy:
    return LogPolicy(log.key)


def unlogged(*found: tuple[bytes, ...], log: Log) -> KeyDocument | None:
    return first_unlogged(resolved(*found), policy(log))


def test_the_first_document_that_the_log_does_not_show_is_told() -> None:
    log = Log(leaves=[b"others"])
    one, two = logged(log, FIRST, NOW, OLD), logged(log, ROTATED, NOW, OLD, NEW)
    assert unlogged(one, two, log=log) is None
    assert unlogged(one, signed(ROTATED, OLD, NEW), log=log) == ROTATED
    assert unlogged(one, two[:1], signed(ROTATED, NEW), log=log) == ROTATED
    assert unlogged(signed(FIRST, OLD), two, log=log) == FIRST
    assert unlogged(one, two, log=Log(signer=signer(8))) == FIRST


def test_a_document_is_in_force_since_the_log_showed_it_first() -> None:
    log = Log(leaves=[b"others"])
    for times in ((NOW, NOW + HOUR), (NOW + HOUR, NOW)):
        found = [logged(log, ROTATED, at, key) for key, at in zip((OLD, NEW), times, strict=True)]
        authority = resolved(signed(FIRST, OLD), *found)
        assert began_at(authority, 1, policy(log)) == NOW
        assert began_at(authority, 1, None) == ROTATED.created_at
        assert began_at(authority, 0, policy(log)) == FIRST.created_at == START


class Timeless(Log):
    """A log whose checkpoints say no time."""

    def note(self, at: datetime = NOW, **_: object) -> SignedCheckpoint:
        told: Checkpoint = super().note(at).checkpoint
        return checkpoint.sign(told, self.signer)


def test_where_the_log_tells_no_time_the_document_does() -> None:
    log = Timeless(leaves=[b"others"])
    authority: Authority = resolved(logged(log, FIRST, NOW, OLD))
    assert first_unlogged(authority, policy(log)) is None
    assert began_at(authority, 0, policy(log)) == START
