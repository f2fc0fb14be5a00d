"""Which final states a journal permits: each tag, manifest and blob of a repository is a register.

A write that was acknowledged happened at some instant between its request and its answer. One whose
answer never came happened at some instant after its request, or never. So a value may be the last
one if no acknowledged write of another value lies wholly after the write of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ABSENT = ""
"""The value of what is not there."""


@dataclass(frozen=True)
class Write:
    """An attempt to set a register to `value`, from `start` to `end` in seconds.

    `only_over` limits it to a register that holds this very value: deleting a manifest takes away the
    tags that point to it, and no others.
    """

    value: str
    start: float
    end: float
    is_certain: bool
    only_over: str | None = None

    def overwrites(self, other: Write) -> bool:
        """Whether nobody can see `other` any more because of this."""
        applies = self.only_over is None or self.only_over == other.value
        return self.is_certain and applies and self.start > other.end


@dataclass(frozen=True)
class Read:
    """An answer that showed `value`."""

    value: str
    start: float
    end: float


def permitted(initial: str, writes: Iterable[Write]) -> set[str]:
    """The values that a register may hold after `writes`, when it held `initial` before all of them."""
    every = [Write(initial, float("-inf"), float("-inf"), True), *writes]
    return {
        one.value for one in every if _could_apply(one, every) and not _is_overwritten(one, every)
    }


def impossible_reads(
    initial: str, writes: Sequence[Write], reads: Iterable[Read]
) -> list[tuple[Read, set[str]]]:
    """Reads that no order of `writes` explains, each with the values that it could have shown."""
    wrong = []
    for read in reads:
        begun = [one for one in writes if one.start < read.end]
        # What ended after the read began may not have happened yet: it overwrites nothing for sure.
        known = [
            one if one.end < read.start else Write(**{**vars(one), "is_certain": False})
            for one in begun
        ]
        values = permitted(initial, known)
        if read.value not in values:
            wrong.append((read, values))
    return wrong


def _could_apply(one: Write, every: Sequence[Write]) -> bool:
    return one.only_over is None or any(
        other.value == one.only_over and other.start < one.end for other in every
    )


def _is_overwritten(one: Write, every: Sequence[Write]) -> bool:
    return any(other.overwrites(one) for other in every if other.value != one.value)
