"""The rule about CI jobs: what a policy demands, and what only the log can prove."""

from __future__ import annotations

from dataclasses import replace

import pytest
from memcube.trust import Attestation, Mode, Outcome, Pins, Question, judge_cube
from memcube.trust.log_state import Logs, advanced
from memcube.trust.policy import LogDemand, Policy, Terms
from memcube.trust.policy_file import parse
from memcube_protocol.errors import InvalidPolicyError, PolicyRefusedError
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.job import Job, JobPattern
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support.log import Log, signer
from support.signing import ALICE, JOB, NOW, ORIGIN, manifest, release

HOST = ORIGIN.partition("/")[0]
MEMORIES = JobPattern(JOB.issuer, (("repository", "alice/memories"), ("ref", "refs/tags/*")))
OTHERS = JobPattern(JOB.issuer, (("repository", "alice/others"),))
LOG = Log()


def ask(
    job: Job | None, *demanded: JobPattern, log: Log | None = LOG, known: Log | None = LOG, **terms
) -> Question:
    """A release that names `job`, in `log`, judged by somebody who knows the log `known`."""
    bundle = sign_release(release(job=job), ALICE)
    if log is not None:
        log.leaves += [b"somebody", b"else"]
        bundle = log.logged(bundle, ALICE.public_key)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), ALICE.public_key)
    logs = Logs({HOST: advanced(None, known.key, known.note(), (), NOW)}) if known else Logs()
    jobs = (demanded,) if demanded else ()
    return Question(
        Reference.parse(f"{ORIGIN}:latest"),
        manifest(),
        [Attestation(about, bundle.raw)],
        Pins(),
        NOW,
        logs=logs,
        policy=Policy(default=Terms(jobs=jobs, **terms)),
    )


def result(question: Question):
    return next(one for one in judge_cube(question).rules if one.rule == "job")


def test_a_logged_job_is_proven():
    verdict = judge_cube(ask(JOB))
    assert verdict.job == {**JOB.to_json(), "checked": True}
    assert result(ask(JOB)).outcome is Outcome.PASSED


def test_no_job_is_as_good_as_ever():
    assert result(ask(None)).outcome is Outcome.SKIPPED
    assert judge_cube(ask(None)).job is None


@pytest.mark.parametrize("known", [None, LOG])
def test_a_job_that_no_log_vouches_for_is_a_claim(known):
    off = replace(ask(JOB, log=None, known=known), policy=Policy(default=Terms(log=LogDemand.OFF)))
    found = result(off)
    assert (found.outcome, found.reason) == (Outcome.SKIPPED, "job-unproven")
    assert judge_cube(off).job["checked"] is False


def test_another_log_vouches_for_nothing():
    off = Policy(default=Terms(log=LogDemand.OFF))
    question = replace(ask(JOB, log=Log(signer=signer(8))), policy=off)
    assert result(question).reason == "job-unproven"


def test_a_policy_names_the_jobs_that_may_release():
    assert result(ask(JOB, MEMORIES)).outcome is Outcome.PASSED
    assert result(ask(JOB, OTHERS, MEMORIES)).outcome is Outcome.PASSED


@pytest.mark.parametrize("mode", list(Mode))
def test_another_job_is_refused_in_both_modes(mode):
    question = replace(ask(JOB, OTHERS), mode=mode)
    found = result(question)
    assert (found.outcome, found.reason) == (Outcome.FAILED, "job-not-in-policy")
    error = judge_cube(question).error
    assert isinstance(error, PolicyRefusedError)
    assert JOB.subject in str(error)
    assert error.hint


@pytest.mark.parametrize(
    ("job", "log", "reason"), [(None, LOG, "job-missing"), (JOB, None, "job-unproven")]
)
def test_what_lacks_is_refused_or_warned_of(job, log, reason):
    question = ask(job, MEMORIES, log=log)
    policy = Policy(default=replace(question.terms, log=LogDemand.OFF, scope="default"))
    question = replace(question, policy=policy)
    assert (result(question).outcome, result(question).reason) == (Outcome.FAILED, reason)
    warned = result(replace(question, mode=Mode.WARN))
    assert (warned.outcome, warned.reason) == (Outcome.WARNED, reason)


def test_a_copy_obeys_both_scopes():
    here, there = Terms("a.example/x", jobs=((MEMORIES,),)), Terms("b.example/x", jobs=((OTHERS,),))
    assert here.joined(there).jobs == ((MEMORIES,), (OTHERS,))


def test_a_policy_file_names_jobs():
    text = (
        'format = 1\n[scopes."registry.example/alice/**"]\njobs = [{issuer = "https://ci.example", '
        'subject = "repo:alice/memories:*", claims = {ref = "refs/tags/*"}}]\n'
    )
    (patterns,) = parse(text.encode()).terms_of(ORIGIN).jobs
    (one,) = patterns
    assert one.fits("https://ci.example", {"sub": "repo:alice/memories:x", "ref": "refs/tags/v1"})
    assert not one.fits("https://ci.example", {"sub": "repo:alice/memories:x"})


@pytest.mark.parametrize(
    "jobs",
    [
        "[]",
        '"x"',
        "[{}]",
        '[{issuer = "https://ci.example"}]',
        '[{issuer = "ci.example", subject = "x"}]',
        '[{issuer = "https://ci.example", subject = "x", workflow = "y"}]',
        '[{issuer = "https://ci.example", claims = {ref = 1}}]',
        '[{issuer = "https://ci.example", claims = {ref = "a*"}}]',
    ],
)
def test_a_demand_that_is_unclear_is_refused(jobs):
    with pytest.raises(InvalidPolicyError):
        parse(f"format = 1\n[default]\njobs = {jobs}\n".encode())
