"""How much a model was made to read."""

from __future__ import annotations

from typing import Any


def window_of(model: Any) -> int | None:
    """Tokens that `model` has positions for; None where its config sets no limit."""
    config = model.config.get_text_config(decoder=True)
    window: int | None = getattr(config, "max_position_embeddings", None)
    return window
