"""What a recipe takes out of a cube: the records that may be shown, as far as the budget of tokens goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from memcube_protocol.errors import NotFoundError
from memcube_protocol.recipe import PLAIN
from memcube_protocol.records import Record
from memcube_protocol.text import terms
from memcube_protocol.values import frozen

from memcube.memories.control_tokens import without_control_tokens
from memcube.memories.plaintext.context import TOKEN_CHARS, neutralise, render
from memcube.memories.plaintext.filters import Filters, allows

_ANY: Final = Filters()
_END: Final = "\n\n"
_FOUND: Final = 3
_NO_LIMIT: Final = 1 << 40

CountTokens = Callable[[str], int]


@frozen
class Material:
    """Records to make a memory of, in order of their ids. `is_whole` says that none was left out for room.

    `control` are the control tokens of the model, which no record may spell.
    """

    records: tuple[Record, ...]
    rendering: str
    is_whole: bool = True
    control: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """All of them as one text, which ends with an empty line."""
        return self._said(self.records)

    def text_of(self, record_id: str | None) -> str:
        """The text of one record; of all of them where no record is named, or none of this id is here."""
        found = tuple(record for record in self.records if record.id == record_id)
        return self._said(found or self.records)

    def _said(self, records: Iterable[Record]) -> str:
        return without_control_tokens(rendered(records, self.rendering), self.control)


def gather(
    records: Iterable[Record],
    *,
    at: datetime,
    budget_tokens: int,
    rendering: str,
    count_tokens: CountTokens,
) -> Material:
    """The first of `records` that may be shown `at` this time and that fit into the budget together.

    One that alone is longer is passed over. Reading ends with the first that does not fit beside the others,
    so that a huge cube costs no more than its beginning.

    Raises:
        NotFoundError: there is none.
    """
    chosen: list[Record] = []
    left, hidden, long = budget_tokens, 0, 0
    for record in records:
        if not allows(_ANY, record, at):
            hidden += 1
            continue
        is_long = len(record.text) > budget_tokens * TOKEN_CHARS  # counting would take a second
        tokens = 0 if is_long else count_tokens(rendered((record,), rendering))
        if is_long or tokens > budget_tokens:
            long += 1
            continue
        left -= tokens
        if left < 0:
            return Material(tuple(chosen), rendering, is_whole=False)
        chosen.append(record)
    if not chosen:
        raise _nothing(hidden, long, budget_tokens)
    return Material(tuple(chosen), rendering, is_whole=not long)


def closest(records: Iterable[Record], question: str) -> tuple[Record, ...]:
    """The few of `records` that share most words with `question`: what a search would put before it."""
    asked = set(terms(question))
    shared = [(len(asked & set(terms(record.text))), record) for record in records]
    found = sorted(shared, key=lambda one: (-one[0], one[1].id))
    return tuple(record for count, record in found[:_FOUND] if count)


def rendered(records: Iterable[Record], rendering: str) -> str:
    """`records` as text that ends with an empty line."""
    if rendering == PLAIN:
        return "\n".join(neutralise(record.text) for record in records) + _END
    return render(records, _NO_LIMIT) + _END


def _nothing(hidden: int, long: int, budget_tokens: int) -> NotFoundError:
    """Why no record can be taken."""
    why = [
        f"{long} of more than {budget_tokens} tokens" if long else "",
        f"{hidden} archived, expired or not valid now" if hidden else "",
    ]
    hint = "a larger --budget-tokens, as far as the model reads, or shorter records" if long else ""
    return NotFoundError(
        f"no record can be taken: there are {' and '.join(filter(None, why)) or 'none'}",
        hint=hint or "check status and validity of the records",
    )
