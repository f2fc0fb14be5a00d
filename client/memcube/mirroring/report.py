"""What became of each version in one round of a mirror."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping

from memcube_protocol.errors import EXIT_ERROR, EXIT_OK
from memcube_protocol.values import frozen


class Fate(enum.Enum):
    """What became of one tag."""

    COPIED = "copied"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    """No cube."""
    KEPT = "kept"
    """Gone at the source; the copy stays."""
    PRUNED = "pruned"
    """Gone at the source; so is the copy's tag now."""
    REFUSED = "refused"
    """The trust policy, or a rule of the cube itself, speaks against it."""
    ALARM = "alarm"
    """A version has another content than before, at the source or at the target."""
    FAILED = "failed"

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to look."""
        return self in (Fate.REFUSED, Fate.ALARM, Fate.FAILED)


@frozen
class Row:
    """One tag of one cube: what became of it, why, and what was sent for it.

    `tag` is empty where the cube as a whole is meant; `exit_code` is that of the error, 0 without one.
    """

    name: str
    tag: str
    fate: Fate
    digest: str = ""
    detail: str = ""
    sent_bytes: int = 0
    exit_code: int = EXIT_OK


@frozen
class Report:
    """One round: a row for each tag, by cube and tag."""

    source: str
    target: str
    rows: tuple[Row, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many tags had which fate."""
        found = Counter(row.fate.value for row in self.rows)
        return {fate.value: found[fate.value] for fate in Fate}

    @property
    def sent_bytes(self) -> int:
        """Bytes of content that were sent."""
        return sum(row.sent_bytes for row in self.rows)

    @property
    def exit_code(self) -> int:
        """Zero where all went well; that of the failures where they are of one kind; else 1."""
        codes = {row.exit_code for row in self.rows if row.fate.is_bad}
        return codes.pop() if len(codes) == 1 else EXIT_ERROR if codes else EXIT_OK
