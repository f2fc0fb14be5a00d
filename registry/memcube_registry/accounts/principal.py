"""The principal: who a request comes from, as far as its credentials say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memcube_registry.accounts.scopes import Act, Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, or nobody, with the scopes of the token that was shown. It holds no rights."""

    account_id: int | None = None
    name: str | None = None
    scopes: tuple[Scope, ...] = ()
    token_id: int | None = None
    """The API token that was shown, or that the handshake token was issued for."""
    came_by_handshake: bool = False
    """Whether the credentials are a handshake token: its holder can ask for one of wider scope."""
    reads_public: bool = True
    """Whether public cubes are open to this caller whatever the scopes are (`anonymous_pull`)."""

    def __post_init__(self) -> None:
        if (self.account_id is None) != (self.name is None):
            raise ValueError("a principal has both an account id and a name, or neither")

    @property
    def is_anonymous(self) -> bool:
        """Whether this is nobody in particular."""
        return self.account_id is None

    def may_try(self, act: Act, repository: str) -> bool:
        """Whether the token's scopes let it try `act` on `repository`."""
        return any(scope.covers(act, repository) for scope in self.scopes)


ANONYMOUS: Final = Principal()
"""Nobody: a request without credentials."""
