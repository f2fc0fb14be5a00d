"""The CI job that made a release, as its identity token says, and patterns of jobs (docs/spec/statements.md).

Whoever signs a release can write any job into it. What makes it more than a claim is the log: a registry
logs a release that names a job only for the job itself, whose identity token it has verified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from memcube_protocol.errors import InvalidStatementError
from memcube_protocol.values import frozen

from memcube_signing.dsse import known_fields

SUBJECT: Final = "sub"
"""The claim that names the job to its issuer (OpenID Connect Core 1.0 §2)."""

RECORDED: Final = frozenset(
    {
        *("repository", "repository_id", "repository_owner", "repository_owner_id"),
        *("ref", "ref_type", "sha", "workflow_ref", "workflow_sha", "event_name"),
        *("job_workflow_ref", "job_workflow_sha", "environment", "runner_environment"),
        *("run_id", "run_number", "run_attempt"),
        *("project_path", "project_id", "namespace_path", "namespace_id", "pipeline_id", "job_id"),
        *("pipeline_source", "ci_config_ref_uri", "ci_config_sha", "ref_path"),
    }
)
"""Claims that are recorded: which source, which recipe, which run. Never who pressed the button."""

_ISSUER_CHARS: Final = 255
_VALUE_CHARS: Final = 512
_CLAIMS: Final = 32
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIVIDERS: Final = ("/", ":", "@")


@frozen
class Job:
    """Who made a release: `subject` at `issuer`, an https URL; `claims` by name, sorted.

    Raises:
        InvalidStatementError: a field breaks its rule.
    """

    issuer: str
    subject: str
    claims: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _require_issuer(self.issuer)
        names = [name for name, _ in self.claims]
        if names != sorted(set(names)) or len(names) > _CLAIMS or SUBJECT in names:
            raise _invalid(f"its claims are not sorted, or are more than {_CLAIMS}")
        for name, value in ((SUBJECT, self.subject), *self.claims):
            if not _NAME.fullmatch(name) or not is_claim(value):
                raise _invalid(f"the claim {name[:80]!r} is not 1 to {_VALUE_CHARS} characters")

    @property
    def all_claims(self) -> Mapping[str, str]:
        """The claims, with the subject as `sub`."""
        return {SUBJECT: self.subject, **dict(self.claims)}

    def to_json(self) -> dict[str, Any]:
        """The field `job` of a release."""
        return {"issuer": self.issuer, "subject": self.subject, "claims": dict(self.claims)}

    @classmethod
    def from_json(cls, value: object) -> Job:
        """The job in a release.

        Raises:
            InvalidStatementError: a field is missing, unknown or breaks its rule.
        """
        if not isinstance(value, Mapping):
            raise _invalid("it is not an object")
        fields = known_fields(value, "job", {"issuer", "subject", "claims"})
        issuer, subject, claims = (fields.get(name) for name in ("issuer", "subject", "claims"))
        if not isinstance(issuer, str) or not isinstance(subject, str):
            raise _invalid("its issuer or its subject is not text")
        if not isinstance(claims, Mapping):
            raise _invalid("its claims are no object")
        pairs = [(name, found) for name, found in claims.items() if isinstance(found, str)]
        if len(pairs) != len(claims):
            raise _invalid("a claim is not text")
        return cls(issuer, subject, tuple(sorted(pairs)))

    @classmethod
    def of_claims(cls, issuer: str, subject: str, claims: Mapping[str, str]) -> Job:
        """The job of a verified identity token, with those of its `claims` that are recorded.

        Raises:
            InvalidStatementError: its issuer or subject cannot be recorded.
        """
        recorded = (
            (name, value) for name, value in claims.items() if name in RECORDED and is_claim(value)
        )
        return cls(issuer, subject, tuple(sorted(recorded)))


@frozen
class JobPattern:
    """Jobs that somebody trusts: those of `issuer` that have all of `claims`, `sub` among them or not.

    A claim is equal; or it begins alike, where the pattern ends in `*` after `/`, `:` or `@`.

    Raises:
        InvalidStatementError: no claim, or a `*` anywhere else.
    """

    issuer: str
    claims: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        _require_issuer(self.issuer)
        if not 1 <= len(self.claims) <= _CLAIMS:
            raise _invalid(f"a pattern of jobs has not 1 to {_CLAIMS} claims")
        for name, wanted in self.claims:
            stem = wanted.removesuffix("*")
            open_end = stem != wanted and not stem.endswith(_DIVIDERS)
            if not _NAME.fullmatch(name) or not is_claim(wanted) or "*" in stem or open_end:
                raise _invalid(f"{wanted[:80]!r} is not a claim, or has `*` not after / : or @")

    def fits(self, issuer: str, claims: Mapping[str, str]) -> bool:
        """Whether a job of `issuer` with these claims, the subject as `sub`, is one of them."""
        return issuer == self.issuer and all(
            _fits(wanted, claims.get(name)) for name, wanted in self.claims
        )


def is_claim(value: str) -> bool:
    """Whether `value` may stand in a release: 1 to 512 characters that show as they read."""
    return 1 <= len(value) <= _VALUE_CHARS and value.isprintable()


def _fits(wanted: str, found: str | None) -> bool:
    if found is None:
        return False
    return found.startswith(wanted[:-1]) if wanted.endswith("*") else found == wanted


def _require_issuer(issuer: str) -> None:
    """An issuer is named as its tokens name it, without a slash at the end."""
    try:
        parts = urlsplit(issuer)
    except ValueError:
        parts = urlsplit("")
    plain = issuer.isascii() and issuer.isprintable() and " " not in issuer
    if (
        not plain
        or parts.scheme not in ("https", "http")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or parts.username is not None
        or issuer.endswith("/")
        or len(issuer) > _ISSUER_CHARS
    ):
        raise _invalid(f"{issuer[:80]!r} is not an issuer such as https://ci.example")


def _invalid(why: str) -> InvalidStatementError:
    return InvalidStatementError(
        f"not an acceptable job: {why}",
        hint="see docs/spec/statements.md, Job",
        reason="malformed-job",
    )
