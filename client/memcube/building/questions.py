"""Where the questions about a cube's facts come from: a file of its owner, or the model itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import InvalidConfigError, InvalidRequestError
from memcube_protocol.fields import Fields, is_printable_line, snake_case
from memcube_protocol.recipe import CHAT, QUESTIONS, Question
from memcube_protocol.records import Record, split_lines

from memcube.building.asking import NOTHING, Asker, Prefix, is_right
from memcube.building.material import Material

QUESTION_TOKENS: Final = 64
TRIES: Final = 4
"""Questions that are drawn about one record before it is given up."""
_FILE_BYTES: Final = limits.CONFIG_BYTES // 2
"""Of a file of questions: they all go into the recipe, which is part of a config."""
_LINE: Final = 'write one a line: {"question": "Where is it?", "answer": "In Tartu"}'
_CHARS: Final = 2000
_INSTRUCTION: Final = (
    "Write one short question that this text answers, and its answer in a few words, "
    "in the language of the text, as two lines:\nQuestion: …\nAnswer: …\n\nText:\n"
)
_PAIR: Final = re.compile(
    r"Question:\s*(?P<question>[^\n]+?)\s*\n+\s*Answer:\s*(?P<answer>[^\n]+)", re.IGNORECASE
)

Watch = Callable[[int, int], None]
"""Hears how many of how many are done."""


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions in a JSON Lines file: `question`, and where known `answer`, `record`, `held_out`.

    Raises:
        InvalidRequestError: there is none, or more than 1024.
        InvalidJsonError, InvalidConfigError: a line is not one; the error names it.
        LimitExceededError: more than half a MiB.
    """
    limits.require_at_most(path.name, path.stat().st_size, _FILE_BYTES)
    with path.open("rb") as stream:
        found = tuple(_lines(stream.read(_FILE_BYTES + 1), path.name))
    if not 0 < len(found) <= QUESTIONS:
        raise InvalidRequestError(
            f"{path.name} holds {len(found)} questions, 1 to {QUESTIONS} are wanted",
            hint=_LINE,
        )
    return found


def _lines(content: bytes, name: str) -> Iterator[Question]:
    for number, line in enumerate(split_lines([content], what=name), 1):
        if line.strip():
            what = f"line {number} of {name}"
            value = canonical_json.parse_object(line, what=what)
            try:
                yield Question.from_fields(Fields(value, what, spelling=snake_case))
            except InvalidConfigError as error:
                raise InvalidConfigError(str(error), hint=_LINE) from None


def ask_itself(asker: Asker, material: Material, most: int, watch: Watch) -> tuple[Question, ...]:
    """Questions that the model asks itself about the records of `material`, one a record, at most `most`.

    One is kept only where the model, asked it again behind the record, gives the same answer, and the
    answer stands in the record: what it made up is no fact of the cube. Where the likeliest question is
    none such, a few others are drawn: call it under a seed.
    """
    asked: dict[str, Question] = {}
    chosen = material.records[:most]
    for number, record in enumerate(chosen, 1):
        text = material.text_of(record.id)
        for attempt in range(TRIES):
            found = _about(asker, text, sampled=attempt > 0)
            if found and found[0] not in asked and _is_answered(asker, record, text, *found):
                asked[found[0]] = Question(found[0], found[1], record.id)
                break
        watch(number, len(chosen))
    return tuple(asked.values())


def _is_answered(asker: Asker, record: Record, text: str, question: str, answer: str) -> bool:
    if not (_is_line(question, answer) and is_right(record.text, answer)):
        return False
    before = Prefix(tuple(asker.ids_of(text, begins=True)))
    return is_right(asker.answer(question, before), answer)


def _about(asker: Asker, text: str, *, sampled: bool) -> tuple[str, str] | None:
    """A question about `text` and its answer, both by the model; none where it writes something else."""
    if asker.prompt == CHAT:
        ids = asker.question_ids(_INSTRUCTION + text, begins=True)
        written = asker.continued(
            ids, NOTHING, 2 * QUESTION_TOKENS, until=_has_pair, sampled=sampled
        )
        pair = _PAIR.search(written)
        return (pair["question"], pair["answer"].strip()) if pair else None
    before, after = asker.ends
    ids = asker.ids_of(text + before.rstrip(), begins=True)
    mark = after.strip()

    def until(text: str) -> bool:
        return asker.is_over(text.lstrip().partition(mark)[2])

    written = asker.continued(ids, NOTHING, QUESTION_TOKENS, until=until, sampled=sampled).lstrip()
    asked, marked, rest = written.partition(mark)
    question, answer = _last(asked, before), asker.first_line(rest)
    return (question, answer) if marked and question and answer else None


def free_questions(asker: Asker, most: int, watch: Watch) -> tuple[Question, ...]:
    """Questions that the model asks of its own accord, sampled: what an adapter learnt, it asks about.

    Call it with the adapter active, and under a seed.
    """
    before, after = asker.ends
    asked: dict[str, Question] = {}
    ids, mark = asker.ids_of(before.rstrip() or "Question:", begins=True), after.strip() or "\n"
    for number in range(1, most + 1):
        text = asker.continued(
            ids, NOTHING, QUESTION_TOKENS, until=lambda text: mark in text.lstrip(), sampled=True
        )
        question = _last(text.lstrip().partition(mark)[0], before)
        if question and _is_line(question):
            asked.setdefault(question, Question(question))
        watch(number, most)
    return tuple(asked.values())


def _has_pair(text: str) -> bool:
    found = _PAIR.search(text)
    return found is not None and found.end() < len(text)


def _last(asked: str, before: str) -> str:
    """The last question of a model that began several, one after the other."""
    begun = before.strip()
    return (asked.rpartition(begun)[2] if begun else asked).strip()


def _is_line(*texts: str) -> bool:
    return all(len(text) <= _CHARS and is_printable_line(text) for text in texts)
