"""A conversation with a model that has memories mounted: its prompts, its history, its words as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.errors import LimitExceededError
from memcube_protocol.values import frozen

from memcube.memories.activation.generation import readable
from memcube.memories.streaming import Say, streamer_of
from memcube.memories.window import window_of

if TYPE_CHECKING:
    from memcube.mounting import MountedMemory

ANSWER_TOKENS: Final = 512
"""How long an answer may be, unless somebody says so."""


@frozen
class Turn:
    """A question and its answer, without the records that were looked up for it."""

    question: str
    answer: str


class Conversation:
    """Questions and answers in a row, in the form that the model's chat template gives them.

    A model without a template continues a text: it gets each question alone. An answer has at most
    `max_new_tokens`, unless given 512, or half of what the model reads if that is less. `options` go to
    transformers' `generate`. What no longer fits into the model's context is left out, oldest first.
    """

    def __init__(
        self,
        memory: MountedMemory,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._memory = memory
        self._model = model
        self._tokenizer = tokenizer
        room = _window(model) - len(memory.prefix_ids)
        self._max_new_tokens = max_new_tokens or max(1, min(ANSWER_TOKENS, room // 2))
        self._options = dict(options or {})
        self.turns: list[Turn] = []
        self.context = ""
        """The records that were given with the last question."""

    @property
    def has_template(self) -> bool:
        """Whether the model was taught to talk."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    def ask(self, question: str, say: Say) -> str:
        """The answer, whose words `say` hears as they come; an interrupted question is forgotten.

        Raises:
            LimitExceededError: question and records alone are more than the model can read.
            ConflictError: the memories were unmounted, or other adapters are active.
        """
        question = readable(question)
        self.context = self._memory.context(question)
        prompt = self._prompt(f"{self.context}\n\n{question}" if self.context else question)
        answer = self._memory.generate(
            prompt,
            context="",
            max_new_tokens=self._max_new_tokens,
            streamer=streamer_of(self._tokenizer, say),
            **self._options,
        )
        self.turns.append(Turn(question, answer))
        return answer

    def forget(self) -> None:
        """Begin anew."""
        self.turns.clear()

    def _prompt(self, content: str) -> str:
        """The longest end of the conversation that fits, with `content` as the last question."""
        turns = self.turns if self.has_template else []
        room = _window(self._model) - self._max_new_tokens - len(self._memory.prefix_ids)
        prompts = (self._rendered(turns[at:], content) for at in range(len(turns) + 1))
        fitting = next((prompt for prompt in prompts if self._count(prompt) <= room), None)
        if fitting is not None:
            return fitting
        count = self._count(self._rendered([], content))
        raise LimitExceededError(
            f"question and records are {count} tokens: beside an answer of"
            f" {self._max_new_tokens}, the model has room for {max(room, 0)}",
            hint="lower --budget or --max-new-tokens, or ask less at once",
        )

    def _rendered(self, turns: list[Turn], content: str) -> str:
        if not self.has_template:
            return content
        messages = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in (("user", turn.question), ("assistant", turn.answer))
        ]
        text: str = self._tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
        )
        # The mark that begins a text comes once: from the tokenizer, or from the memory before it.
        begin = self._tokenizer.bos_token
        if begin and (self._memory.prefix_ids or self._begins_itself()):
            return text.removeprefix(begin)
        return text

    def _begins_itself(self) -> bool:
        """Whether the tokenizer puts the mark that begins a text before each text."""
        ids: list[int] = self._tokenizer("a")["input_ids"]
        return ids[:1] == [self._tokenizer.bos_token_id]

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text)["input_ids"])


def _window(model: Any) -> int:
    """Tokens that the model can read; without a limit of its own, as many as anybody sends."""
    return window_of(model) or 1 << 20
