r"""How a build was made, so that somebody else can make it again (docs/spec/build.md).

    {"asOf":"2026-11-27T09:30:00Z","base":"mip1-base:…","budgetTokens":4096,"memory":"facts-kv",
     "method":"encode","parent":"sha256:…","prompt":"Question: {question}\nAnswer:","render":"fenced",
     "seed":0,"source":"plaintext","threads":2,"unrelated":"sha256:…"}

A recipe holds everything that was chosen, the questions included. On one machine, with the same
libraries, the same recipe gives the same digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Self

from memcube_protocol import canonical_json, limits
from memcube_protocol.config import ACTIVATION, MEMORY_ID, PARAMETRIC, PLAINTEXT
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError
from memcube_protocol.fields import Described, Fields, write_moment
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.values import frozen

ENCODE: Final = "encode"
DISTIL: Final = "distil"
SOURCE_TEXT: Final = "source-text"
ASK: Final = "ask"
METHODS: Final[Mapping[str, tuple[str, str]]] = {
    ENCODE: (PLAINTEXT, ACTIVATION),
    DISTIL: (PLAINTEXT, PARAMETRIC),
    SOURCE_TEXT: (ACTIVATION, PLAINTEXT),
    ASK: (PARAMETRIC, PLAINTEXT),
}
"""The ways of making a memory: from which kind, to which."""

FENCED: Final = "fenced"
PLAIN: Final = "plain"
RENDERINGS: Final = (FENCED, PLAIN)
"""How records become text: between delimiters that they cannot close, or their bare texts, one a line."""

QUESTION: Final = "{question}"
CHAT: Final = "chat"
"""The prompt that the tokenizer's chat template makes of a question as the user's turn."""
PROMPT: Final = f"Question: {QUESTION}\nAnswer:"
BUDGET_TOKENS: Final = 4096
RATE: Final = 1e-2
QUESTIONS: Final = 1024
"""Questions of a recipe."""
_QUESTION_CHARS: Final = 2000
_PROMPT_CHARS: Final = 4000
_TRAINING: Final = ("alpha", "answers", "batch", "rank", "rate", "retain", "steps")


@frozen
class Question(Described):
    """A question about a cube's facts, and the answer that counts as right, where that is known.

    `record` is the id of the record that answers it. One that is `held_out` is asked at the end and
    never taught.
    """

    question: str
    answer: str | None = None
    record: str | None = None
    held_out: bool = False

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "question": fields.text("question", chars=_QUESTION_CHARS),
            "answer": fields.optional_text("answer", chars=_QUESTION_CHARS),
            "record": fields.optional_text("record"),
            "held_out": _flag(fields, "heldOut"),
        }
        fields.finish()
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this question; what is absent is left out."""
        value: dict[str, Any] = {
            "question": self.question,
            "answer": self.answer,
            "record": self.record,
            "heldOut": self.held_out or None,
        }
        return {key: item for key, item in value.items() if item is not None}


@frozen
class Training(Described):
    """How an adapter is taught: its rank and scale, and how long with which weights.

    The loss is the divergence from the model that has the text before it, plus `answers` times the
    cross-entropy of the right answers, plus `retain` times the divergence on unrelated text from the
    model as it was. `rate` is where the learning rate begins; it falls linearly to a twentieth.
    """

    rank: int = 8
    alpha: int = 16
    steps: int = 64
    batch: int = 16
    rate: float = RATE
    answers: float = 1.0
    retain: float = 1.0

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "rank": fields.integer("rank", least=1, most=limits.LORA_RANK),
            "alpha": fields.integer("alpha", least=1, most=limits.LORA_RANK),
            "steps": fields.integer("steps", least=1, most=100_000),
            "batch": fields.integer("batch", least=1, most=4096),
            "rate": _number(fields, "rate", most=1.0),
            "answers": _number(fields, "answers", most=1000.0),
            "retain": _number(fields, "retain", most=1000.0),
        }
        fields.finish()
        if missing := [name for name in _TRAINING if values[name] is None]:
            raise fields.refuse(missing[0], "is missing")
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this training."""
        return {name: getattr(self, name) for name in _TRAINING}


@frozen(kw_only=True)
class Recipe(Described):
    """Everything that was chosen when the build `memory` was made of the memory `source` of a cube.

    Records that were not to be shown at `as_of` stay out, and so do those behind the first
    `budget_tokens` of text. `prompt` holds `{question}`, or is `chat`; `base` is the model, absent
    where none is needed. `unrelated` is the digest of the text whose perplexity tells the damage.
    `confidence` is the least with which an answer is kept.
    """

    method: str
    parent: Digest
    source: str
    memory: str
    as_of: datetime
    base: BaseIdentity | None = None
    seed: int = 0
    threads: int = 1
    budget_tokens: int = BUDGET_TOKENS
    render: str = FENCED
    prompt: str = PROMPT
    questions: tuple[Question, ...] = ()
    unrelated: Digest | None = None
    training: Training | None = None
    confidence: float | None = None

    @property
    def kind(self) -> str:
        """The kind of memory that is made."""
        return METHODS[self.method][1]

    @property
    def digest(self) -> Digest:
        """Digest of the canonical form."""
        return Digest.of(self.write())

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Recipe held by JSON, canonical or not: people write and change them.

        Raises:
            InvalidJsonError: not strict JSON.
            InvalidConfigError: a field is unknown, missing or out of bounds.
            LimitExceededError: more than 1 MiB.
        """
        limits.require_at_most("recipe", len(raw), limits.CONFIG_BYTES)
        return cls.from_fields(Fields(canonical_json.parse_object(raw, what="recipe"), "recipe"))

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        as_of = fields.moment("asOf")
        if as_of is None:
            raise fields.refuse("asOf", "is missing")
        base, unrelated = fields.optional_text("base"), fields.optional_text("unrelated")
        method = fields.choice("method", tuple(METHODS), "")
        values: dict[str, Any] = {
            "method": method,
            "parent": Digest.parse(fields.text("parent")),
            "source": fields.text("source", chars=64, pattern=MEMORY_ID),
            "memory": fields.text("memory", chars=64, pattern=MEMORY_ID),
            "as_of": as_of,
            "base": BaseIdentity.parse(base) if base else None,
            "seed": _integer(fields, "seed", 0, most=2**31 - 1),
            "threads": _integer(fields, "threads", 1, least=1, most=4096),
            "budget_tokens": _integer(
                fields, "budgetTokens", BUDGET_TOKENS, least=1, most=limits.KV_TOKENS
            ),
            "render": fields.choice("render", RENDERINGS, FENCED),
            "prompt": _prompt(fields),
            "questions": tuple(
                map(Question.from_fields, fields.tables("questions", count=QUESTIONS))
            ),
            "unrelated": Digest.parse(unrelated) if unrelated else None,
            "training": _training(fields, method),
            "confidence": _number(fields, "confidence", most=1.0),
        }
        fields.finish()
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this recipe; what is absent is left out."""
        value: dict[str, Any] = {
            "asOf": write_moment(self.as_of),
            "base": str(self.base) if self.base else None,
            "budgetTokens": self.budget_tokens,
            "confidence": self.confidence,
            "memory": self.memory,
            "method": self.method,
            "parent": str(self.parent),
            "prompt": self.prompt,
            "questions": [one.to_json() for one in self.questions] or None,
            "render": self.render,
            "seed": self.seed,
            "source": self.source,
            "threads": self.threads,
            "training": self.training.to_json() if self.training else None,
            "unrelated": str(self.unrelated) if self.unrelated else None,
        }
        return {key: item for key, item in value.items() if item is not None}

    def write(self) -> bytes:
        """The canonical bytes of this recipe."""
        return canonical_json.dump(self.to_json())


@frozen
class Evaluation(Described):
    """What a build was measured to do.

    Of `asked` questions so many were answered right by the model `without` the memory, `with_memory`,
    and with the `source` that it was made from. `perplexity` of unrelated text, without and with the
    memory, tells the damage.
    """

    asked: int
    without: int
    with_memory: int
    source: int | None = None
    held_out: int = 0
    perplexity: tuple[float, float] | None = None

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        asked = _integer(fields, "asked", None, most=QUESTIONS)
        values: dict[str, Any] = {
            "asked": asked,
            "without": _integer(fields, "without", None, most=asked),
            "with_memory": _integer(fields, "with", None, most=asked),
            "source": fields.integer("source", most=asked),
            "held_out": _integer(fields, "heldOut", 0, most=asked),
        }
        measured = fields.table("perplexity")
        before, after = _number(measured, "without"), _number(measured, "with")
        measured.finish()
        fields.finish()
        if (before is None) != (after is None):
            raise fields.refuse("perplexity", "tells one side only")
        values["perplexity"] = None if before is None else (before, after)
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this evaluation; what is absent is left out."""
        value: dict[str, Any] = {
            "asked": self.asked,
            "without": self.without,
            "with": self.with_memory,
            "source": self.source,
            "heldOut": self.held_out or None,
        }
        if self.perplexity:
            value["perplexity"] = dict(zip(("without", "with"), self.perplexity, strict=True))
        return {key: item for key, item in value.items() if item is not None}


def _integer(fields: Fields, key: str, default: int | None, *, least: int = 0, most: int) -> int:
    """A whole number within bounds; one without a default is required."""
    value = fields.integer(key, least=least, most=most)
    value = default if value is None else value
    if value is None:
        raise fields.refuse(key, "is missing")
    return value


def _number(fields: Fields, key: str, *, most: float = 1e15) -> float | None:
    """A finite number from 0 to `most`, or None where the field is absent."""
    value = fields.take(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise fields.refuse(key, f"is not a number from 0 to {most:g}")
    return value


def _flag(fields: Fields, key: str) -> bool:
    value = fields.take(key)
    if value is not None and value is not True:
        raise fields.refuse(key, "is not true: leave it out otherwise")
    return value is True


def _prompt(fields: Fields) -> str:
    """A text that holds `{question}` once, or `chat`."""
    value = fields.take("prompt")
    if value is None:
        return PROMPT
    if not isinstance(value, str) or len(value) > _PROMPT_CHARS or not _is_text(value):
        raise fields.refuse("prompt", f"is not a text of at most {_PROMPT_CHARS} characters")
    if value != CHAT and value.count(QUESTION) != 1:
        raise fields.refuse("prompt", f"does not hold {QUESTION} once, and is not {CHAT!r}")
    return value


def _is_text(value: str) -> bool:
    return all(char in "\n\t" or char.isprintable() for char in value)


def _training(fields: Fields, method: str) -> Training | None:
    has = fields.has("training")
    training = fields.table("training")
    if has != (method == DISTIL):
        raise InvalidConfigError(
            f"training of recipe belongs to the method {DISTIL!r}, and only there",
            hint="see docs/spec/build.md",
        )
    return Training.from_fields(training) if has else None
