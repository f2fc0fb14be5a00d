"""How much of the log a namespace fills, and may: as many bytes again as its account's quota.

Nothing leaves a log: what is counted here never becomes less, whatever cubes are deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final, Self

from memcube_protocol.errors import QuotaExceededError
from sqlalchemy import BindParameter, bindparam, insert, select, update
from sqlmodel import Session

from memcube_registry.accounts.models import Account
from memcube_registry.database import table_of
from memcube_registry.log.models import LogUsage
from memcube_registry.log.submission import Submission

_USAGES: Final = table_of(LogUsage)
_ACCOUNTS: Final = table_of(Account)
_NAMES: Final[BindParameter[Any]] = bindparam("names", expanding=True)
_FIND_USED: Final = select(_USAGES.c.namespace, _USAGES.c.size_bytes).where(
    _USAGES.c.namespace.in_(_NAMES)
)
_FIND_QUOTAS: Final = select(_ACCOUNTS.c.name, _ACCOUNTS.c.quota_bytes).where(
    _ACCOUNTS.c.name.in_(_NAMES), _ACCOUNTS.c.quota_bytes.is_not(None)
)
_ADD: Final = insert(_USAGES).values(namespace=bindparam("name"), size_bytes=bindparam("filled"))
_GROW: Final = (
    update(_USAGES)
    .where(_USAGES.c.namespace == bindparam("name"))
    .values(size_bytes=bindparam("filled"))
)


@dataclass(slots=True)
class Room:
    """What some namespaces fill and may fill, while a batch is appended; without a quota, anything."""

    used: dict[str, int]
    quotas: dict[str, int]
    added: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(cls, session: Session, namespaces: Collection[str], *, limited: bool) -> Self:
        """As the database says; what is not `limited` is only counted."""
        names = {"names": list(namespaces)}
        if not namespaces:
            return cls({}, {})
        used = {row[0]: int(row[1]) for row in session.execute(_FIND_USED, names)}
        found = session.execute(_FIND_QUOTAS, names) if limited else ()
        return cls(used, {row[0]: int(row[1]) for row in found})

    def refusal(self, one: Submission) -> QuotaExceededError | None:
        """Why `one` does not fit, if it does not."""
        name = one.namespace
        filled, quota = self.used.get(name, 0) + self.added[name], self.quotas.get(name)
        if quota is None or filled + one.size_bytes <= quota:
            return None
        return QuotaExceededError(
            f"statements of {name} fill {filled} of {quota} bytes of the log, "
            f"{one.size_bytes} more do not fit",
            hint="nothing leaves the log: ask the registry's operator for a larger quota",
        )

    def count(self, one: Submission) -> None:
        """Note that `one` is appended."""
        self.added[one.namespace] += one.size_bytes

    def keep(self, session: Session) -> None:
        """Write what was counted."""
        for is_there, statement in ((True, _GROW), (False, _ADD)):
            rows = [
                {"name": name, "filled": self.used.get(name, 0) + added}
                for name, added in self.added.items()
                if (name in self.used) is is_there
            ]
            if rows:
                session.execute(statement, rows)
