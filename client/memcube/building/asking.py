"""How a question is put to a model, and whether what it answers is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from memcube_protocol.errors import UnsupportedError
from memcube_protocol.recipe import CHAT, QUESTION
from memcube_protocol.text import words
from memcube_protocol.values import frozen

from memcube.memories.window import answer_room

ANSWER_TOKENS: Final = 48


@frozen
class Prefix:
    """What the model has read before a question: token ids, and a fresh cache of them where there is one."""

    ids: tuple[int, ...] = ()
    new_cache: Callable[[], Any] | None = None


NOTHING: Final = Prefix()


@frozen
class Asker:
    """A model with its tokenizer, and the prompt that a question is put into."""

    model: Any
    tokenizer: Any
    prompt: str

    def __post_init__(self) -> None:
        if self.prompt == CHAT and not getattr(self.tokenizer, "chat_template", None):
            raise UnsupportedError(
                "this tokenizer has no chat template",
                hint=f"give a prompt of your own that holds {QUESTION}",
            )

    @property
    def ends(self) -> tuple[str, str]:
        """What stands before and after a question; both empty with a chat template."""
        if self.prompt == CHAT:
            return "", ""
        before, _, after = self.prompt.partition(QUESTION)
        return before, after

    @property
    def start(self) -> Prefix:
        """What the tokenizer puts before a text that begins with nothing before it."""
        alone, whole = self.ids_of("a", begins=False), self.ids_of("a", begins=True)
        return Prefix(tuple(whole[: whole.index(alone[0])] if alone else whole))

    def ids_of(self, text: str, *, begins: bool) -> list[int]:
        """Token ids of `text`, with special tokens only where it `begins` what the model reads."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=begins)["input_ids"]
        return ids

    def question_ids(self, question: str, *, begins: bool) -> list[int]:
        """Token ids of `question` in the prompt, up to where the answer begins."""
        if self.prompt != CHAT:
            return self.ids_of(self.prompt.replace(QUESTION, question), begins=begins)
        turns = [{"role": "user", "content": question}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self.ids_of(text, begins=False)  # the template writes special tokens itself

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, with the token that ends it where the model has one."""
        ids, end = self.said_ids(answer), self.tokenizer.eos_token_id
        return ids if end is None else [*ids, end]

    def said_ids(self, answer: str) -> list[int]:
        """Token ids of the words of an answer, as they stand behind the prompt."""
        return self.ids_of(answer if self.prompt == CHAT else f" {answer}", begins=False)

    def answer(self, question: str, before: Prefix = NOTHING, tokens: int = ANSWER_TOKENS) -> str:
        """The model's answer, greedy: its first line, without a further question that it asks itself."""
        ids = [*before.ids, *self.question_ids(question, begins=not before.ids)]
        return self.first_line(self.continued(ids, before, tokens, until=self.is_over))

    def continued(
        self,
        ids: list[int],
        before: Prefix,
        tokens: int,
        *,
        until: Callable[[str], bool],
        sampled: bool = False,
    ) -> str:
        """What the model writes after `ids`, which begin with those of `before`: greedy, or `sampled`.

        It ends when `until` says so of what was written, after so many `tokens`, or where the model has no
        further position.

        Raises:
            LimitExceededError: `ids` are more than the model reads.
        """
        import torch

        def is_done(written: Any, _scores: Any, **_options: Any) -> Any:
            text = self.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True)
            return torch.tensor([until(text)], device=written.device)

        room = answer_room(self.model, len(ids), tokens)
        given = torch.tensor([ids], device=self.model.device)
        options: dict[str, Any] = {"do_sample": sampled, "pad_token_id": _pad(self.tokenizer)}
        if sampled:
            options |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        if before.new_cache is not None:
            options["past_key_values"] = before.new_cache()
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=room,
                stopping_criteria=[is_done],
                **options,
            )
        text: str = self.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
        return text

    def is_over(self, text: str) -> bool:
        """Whether an answer is complete: a line with words has ended, or a further question begins."""
        again = self.ends[0].strip()
        return "\n" in text.lstrip() or bool(again and again in text)

    def first_line(self, text: str) -> str:
        """The answer in what a model wrote: up to the end of its line, or to its next question."""
        line = next((line for line in text.splitlines() if line.strip()), "")
        again = self.ends[0].strip()
        return (line.partition(again)[0] if again else line).strip()


def is_right(answer: str, expected: str) -> bool:
    """Whether the words of `expected` stand in `answer`, in their order, whatever case they have."""
    wanted, given = " ".join(words(expected)), " ".join(words(answer))
    if not wanted:
        return answer.strip() == expected.strip()
    return f" {wanted} " in f" {given} "


def _pad(tokenizer: Any) -> int:
    """The token that fills rows; any one does, since filled places are masked."""
    pad = tokenizer.pad_token_id
    return int(pad if pad is not None else tokenizer.eos_token_id or 0)


@contextmanager
def steady(seed: int, threads: int) -> Iterator[None]:
    """Computing that the same seed and number of threads repeat; both are as before afterwards."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
