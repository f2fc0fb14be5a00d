"""The rule about the log: by policy or as it was met first, an entry is proved or refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from memcube.trust import Attestation, Mode, Outcome, Pins, Question, judge_cube
from memcube.trust._log_rules import logged_at
from memcube.trust._signatures import find
from memcube.trust.log_state import Logs, advanced
from memcube.trust.policy import LogDemand, Policy, Terms
from memcube.trust.policy_file import parse
from memcube_protocol.errors import InvalidPolicyError
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE, sign_release
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import Witnesses
from support.log import WITNESS_KEY, Log, signer
from support.signing import ALICE, EDDIE, NOW, ORIGIN, manifest, release

HOST = ORIGIN.partition("/")[0]


def known(log: Log) -> Logs:
    return Logs({HOST: advanced(None, log.key, log.note(), (), NOW)})


def release_in(log: Log | None, key=ALICE, **more) -> Attestation:
    bundle = sign_release(release(key), key)
    if log is not None:
        log.leaves += [b"somebody", b"else"]
        bundle = log.logged(bundle, key.public_key, **more)
    return attestation(bundle, key)


def attestation(bundle, key=ALICE):
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), key.public_key)
    return Attestation(about, bundle.raw)


def ask(attested: Attestation, logs: Logs = Logs(), terms: Terms | None = None, **more) -> Question:  # noqa: B008
    more.setdefault("policy", Policy(default=terms))
    return Question(
        Reference.parse(f"{ORIGIN}:latest"),
        manifest(),
        [attested],
        Pins(),
        NOW,
        logs=logs,
        **more,
    )


def result(question: Question):
    return next(one for one in judge_cube(question).rules if one.rule == "log")


def refused(question: Question, reason: str) -> None:
    found = result(question)
    assert (found.outcome, found.reason) == (Outcome.FAILED, reason)
    assert judge_cube(question).error.hint
    warned = result(replace(question, mode=Mode.WARN))
    assert (warned.outcome, warned.reason) == (Outcome.WARNED, reason)


def test_where_no_log_is_known_none_is_asked_for():
    assert result(ask(release_in(None))).outcome is Outcome.SKIPPED


def test_a_registry_that_keeps_a_log_must_have_logged_the_release():
    log = Log()
    logged = release_in(log)
    assert result(ask(logged, known(log))).outcome is Outcome.PASSED
    refused(ask(release_in(None), known(log)), "log-entry-missing")


def test_an_entry_in_another_log_does_not_count():
    refused(ask(release_in(Log(signer=signer(8))), known(Log())), "log-unknown")


def test_a_promise_that_was_never_kept_does_not_count():
    log = Log()
    logged = bundles.parse(release_in(log).bundle)
    value = dict(logged.log_entries[0])
    for field, reason in (
        ({"inclusionProof": None}, "malformed-envelope"),
        ({"inclusionPromise": {"signedEntryTimestamp": "eA=="}}, "unsupported-log-entry"),
        ({"logIndex": "1"}, "malformed-log-entry"),
    ):
        found = result(ask(attestation(_with_entry(logged, value | field)), known(log)))
        assert (found.outcome, found.reason) == (Outcome.FAILED, reason)


def _with_entry(bundle, value):
    class Entry:
        def to_json(self):
            return value

    return bundled.attach(bundle, [Entry()])


def test_an_entry_about_another_signature_does_not_count():
    log = Log()
    other = log.logged(sign_release(release(version="2.0.0"), ALICE), ALICE.public_key)
    stolen = _with_entry(sign_release(release(), ALICE), other.log_entries[0])
    refused(ask(attestation(stolen), known(log)), "log-entry-mismatch")


def test_a_policy_may_demand_a_log_or_none():
    refused(ask(release_in(None), terms=Terms(log=LogDemand.REQUIRED)), "log-unknown")
    off = Terms(log=LogDemand.OFF)
    skipped = result(ask(release_in(None), known(Log()), off))
    assert skipped.outcome is Outcome.SKIPPED
    assert skipped.detail == "the policy does not ask for it"


def test_a_policys_log_goes_before_the_one_met_first():
    log, other = Log(), Log(signer=signer(8))
    policy = Policy(logs={HOST: log.key})
    assert result(ask(release_in(log), known(other), policy=policy)).outcome is Outcome.PASSED
    refused(ask(release_in(other), known(other), policy=policy), "log-unknown")


WITNESSED = Witnesses(frozenset({WITNESS_KEY}), 1)


def test_witnesses_are_counted():
    log = Log()
    terms = Terms(witnesses=(WITNESSED,))
    seen = release_in(log, witnessed=True)
    assert result(ask(seen, known(log), terms)).outcome is Outcome.PASSED
    assert (
        result(ask(seen, known(log), terms)).detail
        == "entry 2 of registry.example, time witnessed by 2"
    )
    alone = result(ask(release_in(log), known(log)))
    assert alone.detail == "entry 2 of registry.example, time witnessed by 1"
    refused(ask(release_in(log), known(log), terms), "log-unwitnessed")


def test_keys_that_cannot_be_logged_release_nothing_where_a_log_is_known():
    unlogged = release_in(None, key=EDDIE)
    refused(ask(unlogged, known(Log())), "log-unloggable")
    refused(ask(unlogged, known(Log()), Terms(log=LogDemand.REQUIRED)), "log-unloggable")
    assert result(ask(unlogged)).outcome is Outcome.SKIPPED
    off = Terms(log=LogDemand.OFF)
    assert result(ask(unlogged, known(Log()), off)).outcome is Outcome.SKIPPED


def test_witnesses_of_the_one_scope_do_not_stand_in_for_those_of_the_other():
    log, stranger = Log(), NoteKey("other.example", signer(8).public_key, cosigns=True)
    copies = Terms("mirror.example/**", witnesses=(Witnesses(frozenset({stranger}), 1),))
    terms = copies.joined(Terms("registry.example/**", witnesses=(WITNESSED,)))
    refused(ask(release_in(log, witnessed=True), known(log), terms), "log-unwitnessed")


def test_the_time_of_a_signature_is_the_logs():
    log, then = Log(), NOW - timedelta(days=3)
    logged = release_in(log, at=then)
    for logs, expected in (
        (known(log), then),
        (Logs(), None),
        (known(Log(signer=signer(8))), None),
    ):
        question = ask(logged, logs)
        (signed,) = find(question).releases
        assert logged_at(question, signed) == expected


def test_a_policy_file_names_logs_and_witnesses():
    log = Log()
    text = (
        f'format = 1\n[logs]\n"{HOST}" = "{log.key}"\n[witnesses]\nw = "{WITNESS_KEY}"\n'
        '[default]\nlog = "required"\nwitnesses = ["w"]\n'
    )
    policy = parse(text.encode())
    assert policy.log_of(HOST) == log.key
    terms = policy.terms_of(ORIGIN)
    assert (terms.log, terms.witnesses) == (LogDemand.REQUIRED, (WITNESSED,))
    assert policy.terms_of(ORIGIN).joined(Terms("x/**", log=LogDemand.OFF)).log == "required"


@pytest.mark.parametrize(
    "text",
    [
        'log = "always"',
        "log = true",
        'witnesses = ["w"]',
        "witness_threshold = 1",
    ],
)
def test_a_wrong_demand_is_refused(text):
    with pytest.raises(InvalidPolicyError):
        parse(f"format = 1\n[default]\n{text}\n".encode())


def test_a_witness_is_no_log():
    for table, key in (("logs", WITNESS_KEY), ("witnesses", Log().key)):
        with pytest.raises(InvalidPolicyError):
            parse(f'format = 1\n[{table}]\n"{HOST}" = "{key}"\n'.encode())
