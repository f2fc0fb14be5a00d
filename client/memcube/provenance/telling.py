"""A provenance tree as people read it, and as stable JSON."""

from __future__ import annotations

from typing import Any

from memcube_signing.predicates.countersignature import Countersignature
from memcube_signing.predicates.provenance import Provenance
from memcube_signing.predicates.scan import Scan
from memcube_signing.predicates.status import Status

from memcube.figures import count_text
from memcube.provenance.tree import Node
from memcube.trust import Verdict
from memcube.trust.attested import Claim

_TOLD = frozenset(
    {"workflow_ref", "ci_config_ref_uri", "sha", "environment", "run_id", "pipeline_id", "job_id"}
)


def text_of(node: Node) -> str:
    """The tree, the cube first and its parents below it."""
    return "\n".join(_lines(node, "", ""))


def json_of(node: Node) -> dict[str, Any]:
    """The stable JSON of the tree."""
    owed = node.inherited
    return {
        "name": node.name,
        "digest": str(node.digest),
        "relation": node.relation,
        "version": node.version,
        "licence": node.licence,
        "standing": node.standing,
        "publisher": node.verdict.publisher.id if node.verdict and node.verdict.publisher else None,
        "job": node.verdict.job if node.verdict else None,
        "sources": [source.to_json() for source in _sources(node)],
        "statements": [
            {
                "type": claim.name,
                "predicateType": claim.predicate_type,
                "verified": claim.key is not None,
                "keyId": claim.key.id if claim.key else None,
                "says": what_is_said(claim),
            }
            for claim in node.claims
        ],
        "owes": {str(key): list(names) for key, names in owed.owed} if owed else {},
        "conflicts": list(owed.conflicts) if owed else [],
        "unknown": node.why_unknown,
        "parents": [json_of(parent) for parent in node.parents],
    }


def what_is_said(claim: Claim) -> str:
    """One line about what a statement says, or why it does not count."""
    value = claim.value
    if claim.key is None:
        return f"not counted: {claim.why}"
    if isinstance(value, Scan):
        total = sum(value.counts.values())
        worst = f", worst {value.worst}" if value.worst else ""
        return f"{', '.join(value.checks)}: {count_text(total, 'finding')}{worst}"
    if isinstance(value, Status):
        return f"{value.state} since {value.stated_at:%Y-%m-%d}: {value.reason}"
    if isinstance(value, Countersignature):
        place = f", entry {value.log.index} of {value.log.origin}" if value.log else ""
        return f"{value.verifier} verified it at {value.verified_at:%Y-%m-%d %H:%M} UTC{place}"
    if isinstance(value, Provenance):
        inputs = ", ".join(dependency.uri for dependency in value.dependencies)
        return f"built by {value.builder} from {inputs or 'nothing named'}"
    return f"signed by {claim.key.id[:16]}…"


def _lines(node: Node, first: str, rest: str) -> list[str]:
    relation = f"{node.relation} " if node.relation else ""
    version = f" {node.version}" if node.version else ""
    lines = [f"{first}{relation}{node.name}{version}"]
    facts = _facts(node)
    inner = f"{rest}│   " if node.parents else f"{rest}    "
    lines += [f"{inner}{fact}" for fact in facts]
    for position, parent in enumerate(node.parents):
        last = position == len(node.parents) - 1
        branch, below = ("└── ", "    ") if last else ("├── ", "│   ")
        lines += _lines(parent, f"{rest}{branch}", f"{rest}{below}")
    return lines


def _facts(node: Node) -> list[str]:
    facts = [f"digest    {node.digest}"]
    if node.why_unknown:
        return [*facts, f"unknown   {node.why_unknown}"]
    publisher = node.verdict.publisher if node.verdict else None
    by = f", signed by {publisher.id}" if publisher else ""
    facts += [f"standing  {node.standing}{by}", f"licence   {node.licence}"]
    facts += _job(node.verdict)
    facts += [f"source    {source.name} {source.url or ''}".rstrip() for source in _sources(node)]
    facts += [f"attested  {claim.name}: {what_is_said(claim)}" for claim in node.claims]
    if node.inherited:
        facts += [f"owes      {key} to {', '.join(names)}" for key, names in node.inherited.owed]
        facts += [f"conflict  {conflict}" for conflict in node.inherited.conflicts]
    return facts


def _job(verdict: Verdict | None) -> list[str]:
    """The CI job that made it, and from what; by its own word where the registry does not vouch."""
    job = verdict.release.job if verdict and verdict.release else None
    if verdict is None or job is None:
        return []
    how = "verified by its registry" if verdict.job_is_proven else "not proven"
    told = [f"made by   {job.subject} at {job.issuer} ({how})"]
    return told + [f"          {name} {value}" for name, value in job.claims if name in _TOLD]


def _sources(node: Node) -> tuple[Any, ...]:
    return node.config.descriptive.sources if node.config else ()
