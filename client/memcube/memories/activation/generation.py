"""Ask a model a question behind a mounted KV memory, and notice where what is mounted breaks it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from memcube_protocol.errors import InvalidRequestError, InvalidTensorsError, UnsupportedError
from memcube_protocol.tensors import Rejection, rejected

from memcube.memories.activation.mounted import Prefix
from memcube.memories.activation.room import room_errors
from memcube.memories.plaintext.question import require_text
from memcube.memories.turns import asking
from memcube.memories.window import answer_room


class Watched:
    """A processor of logits that looks at the first ones: what is mounted may be finite and still too large.

    Raises:
        InvalidTensorsError: the model computes NaN or infinity.
    """

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self, _ids: Any, scores: Any) -> Any:
        """`scores` as they are."""
        if self._is_first and not bool((scores < math.inf).all()):
            raise broken_model()
        self._is_first = False
        return scores


def broken_model() -> InvalidTensorsError:
    """The error of a model whose answers are none."""
    error = rejected(
        Rejection.NOT_FINITE, "the model computes NaN or infinity with what is mounted on it"
    )
    error.hint = "unmount: the model is as it was then; mount the memories one by one to find the one that breaks it"
    return error


def readable(text: str) -> str:
    """`text` as a tokenizer takes it: what a shell gave that is no UTF-8 becomes question marks.

    Raises:
        InvalidRequestError: it is no text.
    """
    require_text("question", text)
    return text.encode("utf-8", "replace").decode("utf-8")


def question_ids(tokenizer: Any, question: str, *, behind_memory: bool) -> list[int]:
    """The ids of `question`: behind a memory without the special tokens that begin a text."""
    ids: list[int] = tokenizer(readable(question), add_special_tokens=not behind_memory)[
        "input_ids"
    ]
    return ids


def generate(
    model: Any,
    tokenizer: Any,
    question: str,
    *,
    memory: Prefix | None = None,
    max_new_tokens: int = 64,
    **options: Any,
) -> str:
    """The answer of `model` to `question`, which continues the text of `memory` where one is given.

    The ids are concatenated, never tokenised anew as one text (docs/spec/activation.md),
    and the cache is a fresh one. `options` go to transformers' `generate`; a memory is the cache, so
    `use_cache` and `cache_implementation` decide nothing behind one. Of several answers it is the first.

    It ends where the model has no further position.

    Raises:
        InvalidRequestError: the question is empty, or no text; or no token is wanted.
        ConflictError: the memory was unmounted, or the active adapters have changed since.
        DigestMismatchError: the memory is damaged.
        InvalidTensorsError: it is damaged, or what is mounted makes the model compute NaN or infinity.
        LimitExceededError: the prompt is longer than the model reads, or memory has no room for the answer.
        UnsupportedError: assisted decoding behind a memory.
    """
    import torch

    known = list(memory.token_ids) if memory else []
    ids = known + question_ids(tokenizer, question, behind_memory=memory is not None)
    if len(ids) == len(known):
        raise InvalidRequestError("the question has no token", hint="ask something")
    room = answer_room(model, len(ids), max_new_tokens)
    given = torch.tensor([ids], device=model.device)
    settings = {"do_sample": False, "pad_token_id": tokenizer.pad_token_id, **options}
    settings["logits_processor"] = [*(settings.get("logits_processor") or ()), Watched()]
    with asking(model), torch.inference_mode(), room_errors():
        if memory:
            _require_unassisted(model, settings)
            settings |= {"use_cache": True, "cache_implementation": None}
            settings["past_key_values"] = memory.new_cache()
        output = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=room,
            tokenizer=tokenizer,  # for `stop_strings`
            **settings,
        )
    sequences = getattr(output, "sequences", output)  # with `return_dict_in_generate`
    answer: str = tokenizer.decode(sequences[0, len(ids) :], skip_special_tokens=True)
    return answer


def _require_unassisted(model: Any, settings: Mapping[str, Any]) -> None:
    """Refuse what guesses several tokens ahead: transformers does it wrongly behind any filled cache.

    Raises:
        UnsupportedError: it is asked for.
    """
    configs = (settings.get("generation_config"), model.generation_config)
    ahead = [settings.get("prompt_lookup_num_tokens"), settings.get("assistant_model")]
    ahead += [getattr(config, "prompt_lookup_num_tokens", None) for config in configs]
    if any(ahead_by is not None for ahead_by in ahead):
        raise UnsupportedError(
            "assisted decoding behind a KV memory gives other answers than the model's own",
            hint="leave out assistant_model and prompt_lookup_num_tokens",
        )
