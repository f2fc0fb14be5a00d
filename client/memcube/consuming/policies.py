"""Asking the trust policy: what it demands of a name, and what a new one would change."""

from __future__ import annotations

from pathlib import Path

from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen

from memcube.consuming import finding, verifying
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.trust import Verdict, judge_cube, location_of
from memcube.trust.policy import Policy, Terms
from memcube.trust.policy_file import load


@frozen
class Explained:
    """What a policy says about one cube: `source` and `terms` decide, `verdict` is what follows.

    Without a `verdict` only the name was asked for.
    """

    location: str
    source: str
    terms: Terms
    verdict: Verdict | None = None


@frozen
class Tried:
    """A policy tried before it is used.

    `wrong` are its own tests that failed, each with the scope that decides instead; `held` the verdicts
    on the cubes of the local store, each with the one by the policy that holds now.
    """

    policy: Policy
    wrong: tuple[tuple[str, str, str], ...]
    held: tuple[tuple[Verdict, Verdict], ...]

    @property
    def passed(self) -> bool:
        """Whether every test holds and no cube is refused that is accepted now."""
        return not self.wrong and not any(
            now.error and not before.error for now, before in self.held
        )


def explain(context: Context, reference: Reference, trust: Trust = NORMAL_TRUST) -> Explained:
    """What the policy demands of `reference`, and the verdict on the cube that is there.

    Raises:
        NotFoundError: there is no such cube.
        NetworkError: no answer, or offline.
    """
    found = finding.look_at(context, reference)
    question = verifying.question(context, found, trust)
    source = context.policy.decides(question.location)[0].source
    return Explained(question.location, source, question.terms, judge_cube(question))


def explain_name(context: Context, reference: Reference) -> Explained:
    """What the policy demands of the name in `reference`; no cube is looked at."""
    location = location_of(context.at_registry(reference))
    policy, terms = context.policy.decides(location)
    return Explained(location, policy.source, terms)


def try_policy(context: Context, path: Path) -> Tried:
    """The policy in the file `path`: its own tests, and the cubes of the local store judged by it.

    Raises:
        NotFoundError, InvalidPolicyError, StorageError: it cannot be read.
    """
    policy = load(path)
    decided = [(test.name, test.scope, policy.terms_of(test.name).scope) for test in policy.tests]
    verdicts: list[tuple[Verdict, Verdict]] = []
    for ref in context.store.refs():
        found = finding.found_in_store(context.store, ref)
        if found is not None and ref.reference.host:
            tried = judge_cube(verifying.question(context, found, NORMAL_TRUST, policy=policy))
            verdicts.append((tried, judge_cube(verifying.question(context, found, NORMAL_TRUST))))
    wrong = tuple(one for one in decided if one[1] != one[2])
    return Tried(policy, wrong, tuple(verdicts))
