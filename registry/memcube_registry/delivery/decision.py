"""The decision who may do what to which bytes: a pure function over values.

Each decision names the rule that made it, so that errors and logs can explain it. Where a private
cube and an absent one could be told apart by a stranger, both get the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from memcube_registry.accounts.models import Role
from memcube_registry.accounts.scopes import Act
from memcube_registry.catalog.models import Visibility


class Form(StrEnum):
    """The form in which bytes leave: as published, encrypted, or personal to one buyer."""

    OPEN = "open"
    SEALED = "sealed"
    MARKED = "marked"


class Part(StrEnum):
    """What the bytes are to a cube that may be sold: its description stays public."""

    DESCRIPTION = "description"
    """Manifests, configs, cards, samples and attestations."""
    CONTENT = "content"
    """Everything else."""


class Verdict(StrEnum):
    """What to answer."""

    ALLOW = "allow"
    CHALLENGE = "challenge"
    FORBID = "forbid"
    HIDE = "hide"


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that a decision depends on."""

    act: Act
    part: Part = Part.CONTENT
    form: Form = Form.OPEN
    visibility: Visibility | None = None
    """None: there is no such repository."""
    is_anonymous: bool = True
    is_in_scope: bool = False
    """Whether the token's scopes cover the act on this repository."""
    can_widen_scope: bool = False
    """Whether the caller can ask for a token of wider scope (the Docker handshake)."""
    role: Role | None = None
    """The caller's role in the namespace; OWNER in their own."""
    reads_public: bool = True
    """Whether public cubes are open to this caller whatever the token's scopes are."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and the rule it rests on."""

    verdict: Verdict
    rule: str


_REQUIRED = {
    Act.READ: Role.READER,
    Act.WRITE: Role.WRITER,
    Act.DELETE: Role.MAINTAINER,
    Act.ADMIN: Role.OWNER,
}
_RANK = {role: rank for rank, role in enumerate(Role)}


def includes(role: Role | None, required: Role) -> bool:
    """Whether `role` may do what `required` may."""
    return role is not None and _RANK[role] >= _RANK[required]


def decide(question: Question) -> Decision:
    """The decision on `question`, by the first rule that applies."""
    if question.form is not Form.OPEN:
        return Decision(Verdict.HIDE, "this form is not delivered here")
    if question.act is Act.READ and question.visibility is Visibility.PUBLIC:
        return _read_public(question)
    if question.is_anonymous:
        return Decision(Verdict.CHALLENGE, "this needs a login")
    if not question.is_in_scope:
        verdict = Verdict.CHALLENGE if question.can_widen_scope else Verdict.FORBID
        return Decision(verdict, "the token's scope does not include this")
    if not includes(question.role, _REQUIRED[question.act]):
        if question.act is Act.READ:
            return Decision(Verdict.HIDE, "a private cube is visible to its namespace only")
        return Decision(Verdict.FORBID, "this needs a role in the namespace")
    if question.visibility is None and question.act is not Act.WRITE:
        return Decision(Verdict.HIDE, "there is no such cube")
    return Decision(Verdict.ALLOW, "the namespace's role allows it")


def may_leave_by_url(form: Form) -> bool:
    """Whether bytes of this form may be fetched by whoever holds a URL, for as long as it is valid.

    Only what is the same for every reader: a sealed or a marked copy is one buyer's.
    """
    return form is Form.OPEN


def _read_public(question: Question) -> Decision:
    if question.reads_public:
        return Decision(Verdict.ALLOW, "the cube is public")
    if question.is_anonymous:
        return Decision(Verdict.CHALLENGE, "this registry serves nobody without a login")
    if question.is_in_scope:
        return Decision(Verdict.ALLOW, "the cube is public and the caller logged in")
    verdict = Verdict.CHALLENGE if question.can_widen_scope else Verdict.FORBID
    return Decision(verdict, "the token's scope does not include this")
