"""`memcube policy`: what the trust policy of this user demands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from memcube_protocol.errors import EXIT_OK, EXIT_TRUST, outcome_of

from memcube.cli.answer import Answer
from memcube.cli.command import MemcubeGroup, command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options
from memcube.figures import count_text, table_text

if TYPE_CHECKING:
    from memcube.trust import Verdict
    from memcube.trust.policy import Terms


@click.group("policy", cls=MemcubeGroup)
def policy() -> None:
    """Explain and try trust policies.

    The file memcube-trust.toml in memcube's home folder decides which publishers, attestations and kinds
    of content are accepted, name by name. Without one, the first use of a name pins its publisher.
    """


@command(
    "explain",
    "memcube policy explain alice/notes:1.0.0",
    "memcube policy explain alice/notes --name",
)
@click.argument("reference")
@click.option("--name", is_flag=True, help="Only what is demanded of the name: look at no cube.")
@offline_option
@trust_options
def explain(
    reference: str,
    name: bool,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Show which scope decides about REFERENCE, each of its terms, and each rule's outcome.

    The exit code is that of the first rule that failed.
    """
    from memcube_protocol.reference import Reference

    from memcube.consuming import policies

    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    wanted = Reference.parse(reference)
    with open_client(offline=offline) as client:
        if name:
            told = policies.explain_name(client.context, wanted)
        else:
            told = policies.explain(client.context, wanted, trust)
    terms = _terms(told.terms)
    value = {"location": told.location, "source": told.source, "terms": terms}
    lines = [
        f"{told.location}: scope {told.terms.scope} of {told.source} decides",
        table_text([(f"  {word}", _words(what)) for word, what in terms.items()]),
    ]
    code = EXIT_OK
    if told.verdict:
        value["verdict"] = told.verdict.to_json()
        lines += ["", verdict_text(told.verdict)]
        code = outcome_of(told.verdict.error).exit_code if told.verdict.error else EXIT_OK
    return Answer(value, "\n".join(lines), told.terms.scope, code)


@command("test", "memcube policy test memcube-trust.toml")
@click.argument("file", type=click.Path(path_type=Path))
def test(file: Path) -> Answer:
    """Read the policy FILE, check its own tests, and judge every cube in the local store by it.

    The exit code is 13 if a test fails, or if a cube would be refused that is accepted now.
    """
    from memcube.consuming import policies

    with open_client() as client:
        tried = policies.try_policy(client.context, file)
    wrong = [
        f"wrong: {name} is decided by {actual}, not by {wanted}"
        for name, wanted, actual in tried.wrong
    ]
    rows = [
        (
            now.standing.value,
            f"(now {before.standing.value})",
            f"{now.location}@{now.digest}",
            _why(now),
        )
        for now, before in tried.held
    ]
    scopes, tests = len(tried.policy.scopes), len(tried.policy.tests)
    head = f"{file}: {count_text(scopes, 'scope')}, {count_text(tests, 'test')}"
    text = "\n".join([head, *wrong, *([table_text(rows)] if rows else [])])
    value = {
        "scopes": [terms.scope for terms in tried.policy.scopes],
        "wrong": [
            {"name": name, "expected": wanted, "actual": actual}
            for name, wanted, actual in tried.wrong
        ],
        "cubes": [{"now": before.to_json(), "then": now.to_json()} for now, before in tried.held],
        "passed": tried.passed,
    }
    return Answer(value, text, "", EXIT_OK if tried.passed else EXIT_TRUST)


def verdict_text(verdict: Verdict) -> str:
    """`verdict` rule by rule, for people."""
    names = max((len(rule.rule) for rule in verdict.rules), default=0)
    lines = [
        f"{rule.outcome.value:>9}  {rule.rule:<{names}}  {rule.detail}" for rule in verdict.rules
    ]
    lines.append(f"{verdict.standing.value}: {verdict.location}@{verdict.digest}")
    if verdict.error:
        lines.append(f"hint: {verdict.error.hint}")
    return "\n".join(lines)


def _terms(terms: Terms) -> dict[str, Any]:
    """Every term, as JSON."""
    age = terms.max_staleness
    return {
        "scope": terms.scope,
        "publishers": None if terms.publishers is None else [key.id for key in terms.publishers],
        "threshold": terms.threshold,
        "attestations": [
            {
                "type": required.predicate_type,
                "keys": None if required.keys is None else [key.id for key in required.keys],
                "where": dict(required.where),
            }
            for required in terms.attestations
        ],
        "mediaTypes": [list(kinds) for kinds in terms.media_types],
        "maxStalenessSeconds": None if age is None else int(age.total_seconds()),
        "mode": None if terms.mode is None else str(terms.mode),
        "origin": terms.origin,
        "log": str(terms.log),
        "witnesses": [
            {"keys": sorted(map(str, group.keys)), "threshold": group.threshold}
            for group in terms.witnesses
        ],
        "jobs": [
            [{"issuer": one.issuer, "claims": dict(one.claims)} for one in patterns]
            for patterns in terms.jobs
        ],
        "countersignature": str(terms.countersignature),
    }


def _words(what: Any) -> str:
    if what is None:
        return "–"
    if isinstance(what, dict):
        return ", ".join(f"{name} {_words(value)}" for name, value in what.items()) or "–"
    if isinstance(what, list):
        return "; ".join(_words(one) for one in what) or "none"
    return str(what)


def _why(verdict: Verdict) -> str:
    return str(verdict.error) if verdict.error else ""


for one in (explain, test):
    policy.add_command(one)
