"""Ask a model a question behind a mounted KV memory."""

from __future__ import annotations

from typing import Any

from memcube.memories.kv_mounted import Prefix
from memcube.memories.kv_room import room_errors


def question_ids(tokenizer: Any, question: str, *, behind_memory: bool) -> list[int]:
    """The ids of `question`: behind a memory without the special tokens that begin a text."""
    ids: list[int] = tokenizer(question, add_special_tokens=not behind_memory)["input_ids"]
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

    The ids are concatenated, never tokenised anew as one text (identity-and-access.md section 5),
    and the cache is a fresh one. `options` go to transformers' `generate`.

    Raises:
        ConflictError: the memory was unmounted, or the active adapters have changed since.
        DigestMismatchError, InvalidTensorsError: the memory is damaged.
        LimitExceededError: there is no room in memory for the answer.
    """
    import torch

    known = list(memory.token_ids) if memory else []
    ids = known + question_ids(tokenizer, question, behind_memory=memory is not None)
    given = torch.tensor([ids], device=model.device)
    settings = {"do_sample": False, "pad_token_id": tokenizer.pad_token_id, **options}
    if memory:
        settings["past_key_values"] = memory.new_cache()
    with torch.inference_mode(), room_errors():
        output = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=max_new_tokens,
            **settings,
        )
    answer: str = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    return answer
