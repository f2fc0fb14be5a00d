"""The consumer's own rules about cubes: which publishers, attestations and content, by name (docs/spec/policy.md).

A policy is a list of **scopes**, each a pattern of names with its **terms**. The scope that fits a name
most closely decides alone; where none fits, the policy's defaults do. A machine may have two policies,
its organisation's and the user's: the user's scopes decide only about names that the organisation's
leave open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from memcube_protocol.errors import InvalidPolicyError
from memcube_protocol.reference import is_host, is_name
from memcube_protocol.values import frozen
from memcube_signing.job import JobPattern
from memcube_signing.keys import PublicKey
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import Witnesses

from memcube.trust.verdict import Mode

DEFAULT_SCOPE: Final = "default"
POLICY_FILE: Final = "memcube-trust.toml"
_HINT: Final = "docs/spec/policy.md shows what a policy may hold"
_USUAL_PORT: Final = ":443"
"""Names are written without it (`Context.at_registry`)."""
_ANY_HOST_BELOW: Final = re.compile(r"\*\.(.+)")


@frozen
class Pattern:
    """Names that a scope is about: `host/namespace/name`, component by component.

    `*` stands for one component, `*.suffix` for one host below a domain, and `**` at the end for one
    component or more. Everything is lower-case ASCII, so that no look-alike fits.

    Raises:
        InvalidPolicyError: another form.
    """

    text: str

    def __post_init__(self) -> None:
        host, *rest = self.parts
        suffix = _ANY_HOST_BELOW.fullmatch(host)
        names = [part for part in rest if part != "*"]
        if names and names[-1] == "**" and rest[-1] == "**":
            names.pop()
        if self.text == "**":
            return
        named = is_host(suffix[1] if suffix else host) or host == "*"
        if not named or host != host.lower() or not rest or not all(map(is_name, names)):
            raise invalid(f"{self.text[:140]!r} is not a pattern such as registry.example/alice/**")
        if host.endswith(_USUAL_PORT):
            raise invalid(f"{self.text[:140]!r} would fit no name: leave out {_USUAL_PORT}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The components."""
        return tuple(self.text.split("/"))

    @property
    def closeness(self) -> tuple[tuple[int, int], ...]:
        """How closely this fits, component by component.

        Of two patterns that fit one name the greater does so more closely; equal ones are the same.
        """
        return tuple(_closeness(part) for part in self.parts)

    @property
    def prefix(self) -> str | None:
        """What stands before `/**`, where that is the only wildcard; the whole without wildcard."""
        prefix = self.text.removesuffix("/**")
        return None if "*" in prefix else prefix

    def fits(self, name: str) -> bool:
        """Whether `name`, a location or an origin, is one of the names."""
        wanted, parts = self.parts, name.split("/")
        if wanted[-1] == "**":
            wanted = wanted[:-1]
            if len(parts) <= len(wanted):
                return False
            parts = parts[: len(wanted)]
        return len(wanted) == len(parts) and all(map(_fits, wanted, parts))


@frozen
class Required:
    """An attestation that a cube must carry: a statement about its manifest, of `predicate_type`.

    `keys` may sign it; None: the release's own publishers. `where` are fields of the predicate, by
    dotted path, with the value that each must have.
    """

    predicate_type: str
    keys: tuple[PublicKey, ...] | None = None
    where: Mapping[str, str | int | bool] = field(default_factory=dict[str, str | int | bool])


class LogDemand(StrEnum):
    """Whether a release must be in its registry's log, or countersigned by it: each demands more."""

    OFF = "off"
    OFFERED = "offered"
    REQUIRED = "required"


@frozen
class Terms:
    """What is demanded of the cubes of one scope. None leaves the matter to the usual rules.

    `publishers` may release, `threshold` of them together; none at all forbids the scope. Without
    them first use pins. `media_types` are lists of what layers may be, each of which has to agree; a
    type ending in `*` stands for its kin. `origin` says whose cubes lie at the names of the scope, as
    copies. `max_staleness` is how old what is known of a cube may be. A `mode` goes before the user's.
    `log` says whether a release must be in its registry's log, and `witnesses` are groups, of each of
    which enough must have seen it there. `jobs` are lists of CI jobs, each of which has to hold the one
    that made it. `countersignature` says whether that registry must have signed what it verified.
    """

    scope: str = DEFAULT_SCOPE
    publishers: tuple[PublicKey, ...] | None = None
    threshold: int = 1
    attestations: tuple[Required, ...] = ()
    media_types: tuple[tuple[str, ...], ...] = ()
    max_staleness: timedelta | None = None
    mode: Mode | None = None
    origin: str | None = None
    log: LogDemand = LogDemand.OFFERED
    witnesses: tuple[Witnesses, ...] = ()
    jobs: tuple[tuple[JobPattern, ...], ...] = ()
    countersignature: LogDemand = LogDemand.OFFERED

    def allows_media_type(self, media_type: str) -> bool:
        """Whether a layer of `media_type` may be loaded."""
        return all(
            any(_is_of_kind(media_type, kind) for kind in kinds) for kinds in self.media_types
        )

    def origin_at(self, location: str) -> str | None:
        """The origin whose copy lies at `location`, where this scope says so."""
        prefix = Pattern(self.scope).prefix if self.origin else None
        return None if prefix is None else f"{self.origin}{location[len(prefix) :]}"

    def joined(self, other: Terms) -> Terms:
        """The terms that demand what both demand: those of a copy, found under another name."""
        if self.scope == other.scope:
            return self
        demands = tuple(LogDemand)
        modes = {self.mode, other.mode} - {None}
        ages = [age for age in (self.max_staleness, other.max_staleness) if age is not None]
        return replace(
            self,
            scope=f"{self.scope} and {other.scope}",
            publishers=_common(self.publishers, other.publishers),
            threshold=max(self.threshold, other.threshold),
            attestations=self.attestations + other.attestations,
            media_types=self.media_types + other.media_types,
            max_staleness=min(ages, default=None),
            log=max(self.log, other.log, key=demands.index),
            witnesses=self.witnesses + other.witnesses,
            jobs=self.jobs + other.jobs,
            countersignature=max(self.countersignature, other.countersignature, key=demands.index),
            mode=Mode.ENFORCE if Mode.ENFORCE in modes else next(iter(modes), None),
        )


@frozen
class Expected:
    """A test in a policy: the scope that has to decide about `name`."""

    name: str
    scope: str


@frozen
class Policy:
    """Scopes and defaults. `above` is the policy of the organisation, which goes first.

    Raises:
        InvalidPolicyError: a mapping to an origin from a pattern with other wildcards than `/**`.
    """

    scopes: tuple[Terms, ...] = ()
    default: Terms | None = None
    tests: tuple[Expected, ...] = ()
    source: str = "built in"
    above: Policy | None = None
    logs: Mapping[str, NoteKey] = field(default_factory=dict[str, NoteKey])
    registries: Mapping[str, PublicKey] = field(default_factory=dict[str, PublicKey])

    def __post_init__(self) -> None:
        for terms in self.scopes:
            if terms.origin and Pattern(terms.scope).prefix is None:
                raise invalid(f"{terms.scope}: `origin` needs a scope without `*` or ending in /**")

    def terms_of(self, name: str) -> Terms:
        """The terms that decide about `name`."""
        return self.decides(name)[1]

    def log_of(self, host: str) -> NoteKey | None:
        """The key of the log of the registry at `host`, where a policy tells it."""
        return (self.above.log_of(host) if self.above else None) or self.logs.get(host)

    def registry_key_of(self, host: str) -> PublicKey | None:
        """The key with which the registry at `host` countersigns, where a policy tells it."""
        known = self.above.registry_key_of(host) if self.above else None
        return known or self.registries.get(host)

    def decides(self, name: str) -> tuple[Policy, Terms]:
        """The policy, this one or one above, and those of its terms that decide about `name`."""
        above = self.above.decides(name) if self.above else None
        if above and above[1].scope != DEFAULT_SCOPE:
            return above
        fitting = [terms for terms in self.scopes if Pattern(terms.scope).fits(name)]
        if fitting:
            return self, max(fitting, key=lambda terms: Pattern(terms.scope).closeness)
        if above and above[0].default:
            return above
        return self, self.default or Terms()


NO_POLICY: Final = Policy()


def invalid(why: str) -> InvalidPolicyError:
    """The error about a policy that is wrong by `why`."""
    return InvalidPolicyError(f"the trust policy is refused: {why}", hint=_HINT)


def _common(
    one: tuple[PublicKey, ...] | None, other: tuple[PublicKey, ...] | None
) -> tuple[PublicKey, ...] | None:
    if one is None or other is None:
        return one if other is None else other
    return tuple(key for key in one if key in other)


def _is_of_kind(media_type: str, kind: str) -> bool:
    return media_type.startswith(kind[:-1]) if kind.endswith("*") else media_type == kind


def _fits(wanted: str, part: str) -> bool:
    suffix = _ANY_HOST_BELOW.fullmatch(wanted)
    if suffix:
        return part.endswith(f".{suffix[1]}")
    return wanted in ("*", part)


def _closeness(part: str) -> tuple[int, int]:
    """Rank of one component: a name, a host below a domain (the longer the closer), `*`, `**`."""
    if suffix := _ANY_HOST_BELOW.fullmatch(part):
        return 2, len(suffix[1])
    return {"*": (1, 0), "**": (0, 0)}.get(part, (3, 0))
