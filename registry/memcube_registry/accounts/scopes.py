"""Scopes: what a token may be used for, `act` or `act:namespace` or `act:namespace/name`.

`push` and `delete` include `pull` of the same names, since neither works without looking first;
`admin` includes everything. A scope never gives a right: it only narrows those of its account.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from memcube_protocol.errors import InvalidRequestError
from memcube_protocol.reference import is_name

SCOPES_CHARS: Final = 2048


class Act(StrEnum):
    """What somebody wants to do to a repository or, with ADMIN, to the account itself."""

    READ = "pull"
    WRITE = "push"
    DELETE = "delete"
    ADMIN = "admin"


_INCLUDED: Final = {
    Act.READ: frozenset({Act.READ}),
    Act.WRITE: frozenset({Act.READ, Act.WRITE}),
    Act.DELETE: frozenset({Act.READ, Act.DELETE}),
    Act.ADMIN: frozenset(Act),
}


@dataclass(frozen=True, slots=True)
class Scope:
    """One permission of a token. `within` is a namespace, a repository, or empty for everything.

    Raises:
        InvalidRequestError: `within` is not a name.
    """

    act: Act
    within: str = ""

    def __post_init__(self) -> None:
        if self.within and not is_name(self.within):
            raise _invalid(str(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Scope written as text.

        Raises:
            InvalidRequestError: any other form.
        """
        act, colon, within = text.partition(":")
        if act not in list(Act) or (colon and not within):
            raise _invalid(text)
        return cls(Act(act), within)

    def covers(self, act: Act, repository: str) -> bool:
        """Whether this scope lets its token try `act` on `repository`."""
        return act in _INCLUDED[self.act] and (
            self.within in ("", repository, repository.partition("/")[0])
        )

    def includes(self, other: Scope) -> bool:
        """Whether a token of this scope could do all that one of scope `other` can."""
        namespace = other.within.partition("/")[0]
        return other.act in _INCLUDED[self.act] and self.within in ("", other.within, namespace)

    def __str__(self) -> str:
        return f"{self.act}:{self.within}" if self.within else self.act.value


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Scopes divided by spaces, sorted and each once.

    Raises:
        InvalidRequestError: one of them has another form, there is none, or there are too many.
    """
    words = sorted(set(text.split()))
    if not words or len(text) > SCOPES_CHARS:
        raise _invalid(text)
    return tuple(Scope.parse(word) for word in words)


def format_scopes(scopes: Iterable[Scope]) -> str:
    """What `parse_scopes` reads."""
    return " ".join(sorted(map(str, scopes)))


def _invalid(text: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{text[:100]!r} is not a token's scope",
        hint="use pull, push, delete or admin, alone or as in push:namespace/name",
    )
