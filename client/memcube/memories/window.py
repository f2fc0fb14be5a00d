"""How much a model was made to read."""

from __future__ import annotations

from typing import Any

from memcube_protocol.errors import InvalidRequestError, LimitExceededError


def window_of(model: Any) -> int | None:
    """Tokens that `model` has positions for; None where its config sets no limit."""
    config = model.config.get_text_config(decoder=True)
    window: int | None = getattr(config, "max_position_embeddings", None)
    return window


def answer_room(model: Any, prompt_tokens: int, wanted: int) -> int:
    """How many of the `wanted` tokens `model` has positions for behind a prompt that it reads to its end.

    Raises:
        InvalidRequestError: none is wanted.
        LimitExceededError: the prompt has more tokens than the model has positions.
    """
    if wanted < 1:
        raise InvalidRequestError(
            f"an answer of {wanted} tokens is none", hint="ask for one at least: max_new_tokens"
        )
    window = window_of(model)
    if not window:
        return wanted
    if prompt_tokens > window:
        raise LimitExceededError(
            f"the prompt is {prompt_tokens} tokens with what is mounted before it, the model reads {window}",
            hint="lower budget_tokens, or ask less at once",
        )
    return min(wanted, window - prompt_tokens + 1)  # the last token is written and not read
