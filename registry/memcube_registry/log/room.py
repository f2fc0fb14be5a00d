"""How much of the log a namespace fills, and may: as many bytes again as its account's quota.

The registry's own statements about its cubes count as well, and have twice the room: where a publisher's last
release fits, so does the countersignature, and whoever asks for countersignatures without end is stopped.
Nothing leaves a log: what is counted here never becomes less, whatever cubes are deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, Self

from memcube_protocol.errors import QuotaExceededError
from sqlalchemy import Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session

from memcube_registry.accounts.models import Account
from memcube_registry.database import table_of
from memcube_registry.log.models import LogUsage
from memcube_registry.log.submission import Submission

_USAGES: Final = table_of(LogUsage)
_ACCOUNTS: Final = table_of(Account)
# Built once: this runs with every batch, and a batch may be one entry.
_FIND: Final = (
    select(_ACCOUNTS.c.name, _ACCOUNTS.c.quota_bytes, _USAGES.c.size_bytes)
    .outerjoin(_USAGES, _USAGES.c.namespace == _ACCOUNTS.c.name)
    .where(
        _ACCOUNTS.c.quota_bytes.is_not(None),
        _ACCOUNTS.c.name.in_(bindparam("names", expanding=True)),
    )
)


def _counting(insert: Callable[[Table], Any]) -> Any:
    """The statement that adds to what a namespace fills, begun by a dialect's own INSERT."""
    begun = insert(_USAGES)
    grown = _USAGES.c.size_bytes + begun.excluded.size_bytes
    return begun.on_conflict_do_update(index_elements=["namespace"], set_={"size_bytes": grown})


_COUNT: Final = {"sqlite": _counting(sqlite.insert), "postgresql": _counting(postgresql.insert)}


@dataclass(slots=True)
class Room:
    """What namespaces with a quota fill and may fill, and what a batch adds to any, while it is appended."""

    used: dict[str, int]
    quotas: dict[str, int]
    added: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(cls, session: Session, namespaces: Collection[str], *, is_own: bool = False) -> Self:
        """As the database says; `is_own`: for statements of the registry itself."""
        times = 2 if is_own else 1
        rows = session.execute(_FIND, {"names": list(namespaces)}).all() if namespaces else []
        return cls(
            {row[0]: int(row[2] or 0) for row in rows}, {row[0]: times * row[1] for row in rows}
        )

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
        """Write what was counted, in the order of the names: replicas wait for one another in no circle."""
        rows = [
            {"namespace": name, "size_bytes": size}
            for name, size in sorted(self.added.items())
            if size
        ]
        if rows:
            session.execute(_COUNT[session.get_bind().dialect.name], rows)
