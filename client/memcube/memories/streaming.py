"""The words of an answer as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
"""Hears whole words, one or several at a time."""


def streamer_of(tokenizer: Any, say: Say) -> Any:
    """What transformers' `generate` takes as `streamer`; an exception of `say` ends the answer."""
    from transformers import TextStreamer

    class Words(TextStreamer):
        """Whole words, without the marks of the model."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
            """Hand them to `say`."""
            if text:
                say(text)

    return Words(tokenizer, skip_prompt=True, skip_special_tokens=True)
