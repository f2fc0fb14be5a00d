"""What was decided about a cube, rule by rule: each with its outcome, its values and a stable code."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.values import frozen
from memcube_signing.keys import PublicKey
from memcube_signing.release import Release

from memcube.trust.pins import Observation

NEW_IN_NAMESPACE: Final = "publisher-new-in-namespace"


class Mode(StrEnum):
    """What happens to a cube that was never signed, or whose release is out of date.

    `warn` lets it pass with a warning. Alarms (a changed or vanished signature, another publisher, a
    rollback) stop in both modes.
    """

    ENFORCE = "enforce"
    WARN = "warn"


class Scope(StrEnum):
    """Where a cube comes from. `local` ones were made by this user and need no signature."""

    REMOTE = "remote"
    LOCAL = "local"


class Standing(StrEnum):
    """What a cube may be called after the decision."""

    TRUSTED = "trusted"
    FIRST_USE = "first-use"
    LOCAL = "local"
    UNSIGNED = "unsigned"
    REFUSED = "refused"


class Outcome(StrEnum):
    """How one rule ended."""

    PASSED = "passed"
    FIRST_USE = "first-use"
    WARNED = "warned"
    FAILED = "failed"
    SKIPPED = "skipped"


@frozen
class RuleResult:
    """One rule's outcome; `reason` is the stable code where it did not simply pass."""

    rule: str
    outcome: Outcome
    detail: str
    reason: str | None = None


@frozen
class Verdict:
    """The decision about one manifest at one location.

    `observation` is what to remember (`PinStore.record`) once the cube is accepted; `error` is why it
    was refused; `registry_key` is the one whose countersignatures count. `said` are the bundles of
    what the publisher said of the release since, to be remembered whatever was decided; `partners` are
    all keys in charge of its name now, whose statements count like the publisher's.
    """

    location: str
    digest: Digest
    standing: Standing
    rules: tuple[RuleResult, ...]
    release: Release | None = None
    publisher: PublicKey | None = None
    observation: Observation | None = None
    error: MemcubeError | None = None
    registry_key: PublicKey | None = None
    said: tuple[bytes, ...] = field(default=(), kw_only=True)
    partners: tuple[PublicKey, ...] = field(default=(), kw_only=True)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Details of the rules that only warned, or that pinned a key where another was to be expected."""
        return tuple(
            rule.detail
            for rule in self.rules
            if rule.outcome is Outcome.WARNED or rule.reason == NEW_IN_NAMESPACE
        )

    @property
    def job_is_proven(self) -> bool:
        """Whether the origin's registry vouches for the job that the release names."""
        return any(rule.rule == "job" and rule.outcome is Outcome.PASSED for rule in self.rules)

    @property
    def job(self) -> dict[str, Any] | None:
        """The CI job that the release names, as JSON; `checked` says whether that is proven."""
        if self.release is None or self.release.job is None:
            return None
        return {**self.release.job.to_json(), "checked": self.job_is_proven}

    def to_json(self) -> dict[str, Any]:
        """The verdict for `memcube verify --json`: stable names and reason codes."""
        return {
            "location": self.location,
            "digest": str(self.digest),
            "standing": str(self.standing),
            "publisher": self.publisher.id if self.publisher else None,
            "origin": self.release.origin if self.release else None,
            "version": self.release.version if self.release else None,
            "seq": self.release.seq if self.release else None,
            "job": self.job,
            "rules": [
                {
                    "rule": rule.rule,
                    "outcome": str(rule.outcome),
                    "detail": rule.detail,
                    "reason": rule.reason,
                }
                for rule in self.rules
            ],
        }
